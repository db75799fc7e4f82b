"""The client's part of the protocol's own conformance suite, whose client is `dispatcher tools`.

`docs/tools.md` has a table of the scenarios: what it says to apply is run here, of the rest it gives the reason.
"""

import json
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.mcp_servers.installed import ROOT, node, script

pytestmark = [pytest.mark.mcp, pytest.mark.slow]

SECONDS = 120
# By scenario: what `dispatcher tools` is asked for, and the checks that have to succeed.
RUN: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "initialize": (("check", "{file}"), {"mcp-client-initialization"}),
    "tools_call": (("call", "add_numbers", '{{"a": 2, "b": 3}}', "--file", "{file}"), {"tool-add-numbers"}),
    "sse-retry": (
        ("call", "test_reconnection", "--file", "{file}"),
        {"client-sse-graceful-reconnect", "client-sse-last-event-id"},
    ),
}
CLIENT = """\
#!{python}
import pathlib, subprocess, sys
entry = '[[toolset]]\\nname = "suite"\\nkind = "mcp"\\nprivate = true\\nurl = "%s"\\n' % sys.argv[-1]
pathlib.Path({file!r}).write_text(entry)
sys.exit(subprocess.call([sys.executable, "-m", "dispatcher", "tools", *{arguments!r}]))
"""


def suite(*arguments: str) -> str:
    """What it prints. It fails where a check does, also one of how late something came, which a busy machine decides:
    so the checks are looked at one by one.
    """
    command = (node(), script("conformance"), *arguments)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False).stdout


def checks(folder: Path, scenario: str) -> dict[str, dict[str, Any]]:
    """What the suite found, by check."""
    file, client = str(folder / "tools.toml"), folder / "client"
    arguments = [part.format(file=file) for part in RUN[scenario][0]]
    client.write_text(CLIENT.format(python=sys.executable, file=file, arguments=arguments))
    client.chmod(0o755)
    said = suite("client", "--command", str(client), "--scenario", scenario, "--output-dir", str(folder / "found"))
    files = [*folder.glob("found/**/checks.json")]
    assert len(files) == 1, said
    return {check["id"]: check for check in json.loads(files[0].read_text())}


@pytest.mark.parametrize("scenario", RUN)
def test_what_applies_is_conformant(tmp_path: Path, scenario: str) -> None:
    found = checks(tmp_path, scenario)
    succeeded = {name for name, check in found.items() if check["status"] == "SUCCESS"}
    failed = {name for name, check in found.items() if check["status"] == "FAILURE"}
    assert succeeded >= RUN[scenario][1]
    if timing := found.get("client-sse-retry-timing"):
        assert not timing["details"]["tooEarly"]
        failed.discard("client-sse-retry-timing")
    assert not failed


def test_the_document_names_every_scenario() -> None:
    listed = suite("list").partition("Client scenarios")[2]
    scenarios = re.findall(r"^  - (\S+)", listed, re.MULTILINE)
    assert scenarios
    table = (ROOT / "docs/tools.md").read_text().partition("| scenario |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    named = [(pattern, text) for first, text in rows for pattern in re.findall(r"`([^`]+)`", first)]
    rows_of = {scenario: [text for pattern, text in named if fnmatchcase(scenario, pattern)] for scenario in scenarios}
    assert {len(texts) for texts in rows_of.values()} == {1}, rows_of
    assert {scenario for scenario, (text,) in rows_of.items() if text == "conformant"} == RUN.keys()
    assert all(any(fnmatchcase(scenario, pattern) for scenario in scenarios) for pattern, _ in named), (
        "none is so named"
    )
