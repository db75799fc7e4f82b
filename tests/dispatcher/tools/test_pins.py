from pathlib import Path

import pytest

from dispatcher.files.document import Fault, Where
from dispatcher.tools.entry import ToolEntry
from dispatcher.tools.pins import Pin, differs, pinned, read_pin
from tests.dispatcher.tools.fakes import spec


def read(folder: Path, text: bytes | None) -> Pin | list[str] | None:
    """Or what is wrong with it."""
    if text is not None:
        (folder / "docs.json").write_bytes(text)
    faults: list[Fault] = []
    entry = ToolEntry(Where(folder / "tools.toml", "toolset", 1), {"pin": "docs.json"}, faults, lambda file: None)
    pin = read_pin(entry)
    return [str(fault).removeprefix(f"{folder}/tools.toml: toolset 1: ") for fault in faults] or pin


def test_what_was_approved_is_told_from_all_else(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}
    approved = [spec("b", description="Ünïcode", schema=schema), spec("a")]
    pin = read(tmp_path, pinned(approved).encode())
    assert isinstance(pin, dict)
    assert [*pin] == ["a", "b"]
    assert [differs(pin, one) for one in approved] == ["", ""]
    assert differs(pin, spec("c")) == "is not pinned"
    assert differs(pin, spec("a", description="other")) == "differs from its pin"
    assert differs(pin, spec("b", description="Ünïcode")) == "differs from its pin"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "`pin`: {folder}/docs.json: No such file or directory"),
        (b"\xff", "`pin`: not UTF-8"),
        (b"{", "`pin`: Expecting property name enclosed in double quotes at line 1, column 2"),
        (b"[]", '`pin`: has to be {{"tools": …}}, as `dispatcher tools pin` writes it'),
    ],
)
def test_a_pin_that_is_none(tmp_path: Path, text: bytes | None, reason: str) -> None:
    assert read(tmp_path, text) == [reason.format(folder=tmp_path)]
