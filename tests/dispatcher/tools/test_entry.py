from pathlib import Path
from typing import Any

import pytest

from dispatcher.files.document import Fault, Where
from dispatcher.tools.entry import MAX_SECRET_BYTES, ToolEntry, terms


class Reading:
    """An entry of a file in that folder, and what was wrong and was read."""

    def __init__(self, folder: Path, table: dict[str, Any]) -> None:
        self.where = Where(folder / "tools.toml", "tool", 1)
        self.faults: list[Fault] = []
        self.read: list[Path] = []
        self.entry = ToolEntry(self.where, table, self.faults, self.read.append)

    @property
    def reasons(self) -> list[str]:
        return [fault.reason for fault in self.faults]


def test_variables_and_files_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cret")
    (tmp_path / "token").write_text("from a file\n")
    reading = Reading(tmp_path, {})
    text = reading.entry.filled("headers", "X", "Bearer ${env:A_TOKEN}, ${file:token}; $5 {city}")
    assert text == "Bearer s3cret, from a file; $5 {city}"
    assert not reading.faults
    assert reading.read == [tmp_path / "token"]
    assert "s3cret" not in repr(reading.entry) + repr(vars(reading.entry))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${env:NOT_SET_AT_ALL}", "the variable NOT_SET_AT_ALL is not set"),
        ("${file:missing}", "missing: No such file or directory"),
        ("${file:large}", f"large: has more than {MAX_SECRET_BYTES} bytes"),
        ("${file:binary}", "binary: not UTF-8"),
        ("${file:.}", ".: Is a directory"),
        ("${env:}", "${…} is written ${env:NAME} or ${file:PATH}"),
        ("${HOME}", "${…} is written ${env:NAME} or ${file:PATH}"),
        ("${env:HOME", "${…} is written ${env:NAME} or ${file:PATH}"),
    ],
)
def test_what_cannot_be_filled_in_is_a_fault(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "large").write_text("x" * (MAX_SECRET_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff")
    reading = Reading(tmp_path, {})
    reading.entry.filled("headers", "X", text)
    assert reading.reasons == [f'`headers`: "X": {reason}']


def test_the_fingerprint_changes_with_all_that_stands_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprint(table: dict[str, Any] | None = None) -> str:
        entry = Reading(tmp_path, table or {"file": "schema.json"}).entry
        entry.filled("headers", "X", "${env:A_TOKEN}${file:token}")
        entry.content("file")
        return entry.fingerprint

    (tmp_path / "token").write_text("1")
    (tmp_path / "schema.json").write_text("{}")
    monkeypatch.setenv("A_TOKEN", "1")
    seen = {fingerprint()}
    assert fingerprint() in seen
    monkeypatch.setenv("A_TOKEN", "2")
    seen.add(fingerprint())
    (tmp_path / "token").write_text("2")
    seen.add(fingerprint())
    (tmp_path / "schema.json").write_text("{ }")
    seen.add(fingerprint())
    seen.add(fingerprint({"file": "schema.json", "other": 1}))
    assert len(seen) == 5


def test_how_a_toolsets_tools_are_offered(tmp_path: Path) -> None:
    table = {"name": "docs", "allow": ["search_*", "get"], "prefix": "docs_", "timeout_seconds": 3}
    reading = Reading(tmp_path, table)
    on = terms(reading.entry, "mcp")
    assert not reading.faults
    assert [name for name in ("search_all", "get", "Get", "get_all", "delete") if on.allows(name)] == [
        "search_all",
        "get",
    ]
    spec = on.offered("get", "Get it.", {"type": "object"})
    assert (spec.name, spec.description, spec.kind, spec.timeout_seconds) == ("docs_get", "Get it.", "mcp", 3)
    assert terms(Reading(tmp_path, {"name": "docs"}).entry, "mcp").allows("anything")
