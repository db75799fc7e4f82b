from pathlib import Path

import pytest

from dispatcher.files import FileError
from dispatcher.tools.load import load

MODULE = "tools_of_test_load"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module of tools."""
    (tmp_path / f"{MODULE}.py").write_text(
        "def search(q: str) -> list[str]:\n    'Search.'\n    return [q]\ndef untyped(q):\n    return q\nnumber = 7\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


async def test_the_built_in_tools() -> None:
    registry = load(None)
    assert [tool.name for tool in registry.tools] == ["current_time", "calculate"]
    assert all(tool.description for tool in registry.tools)
    answer = await registry.run("calculate", '{"expression": "6 * 7"}')
    assert answer == ("OK", "42")


async def test_a_file(folder: Path) -> None:
    entry = f'[[tool]]\nname = "find"\nkind = "local"\nuse = "{MODULE}:search"\ntimeout_seconds = 2.5\n'
    registry = load(write(folder / "tools.toml", entry + '[[policy]]\nname = "another loader\'s"\n'))
    assert [(tool.name, tool.description) for tool in registry.tools] == [("find", "Search.")]
    assert registry.timeout("find") == 2.5
    assert await registry.run("find", '{"q": "x"}') == ("OK", '["x"]')


def test_a_folder_of_files(folder: Path) -> None:
    for name in ("b", "a"):
        write(folder / f"{name}.toml", f'[[tool]]\nname = "{name}"\nkind = "local"\nuse = "{MODULE}:search"\n')
    write(folder / "notes.txt", "no tools")
    assert [tool.name for tool in load(folder).tools] == ["a", "b"]
    assert load(folder).timeout("a") == 10


def test_an_entry_of_the_built_in_functions(folder: Path) -> None:
    entry = '[[tool]]\nname = "sums"\nkind = "local"\nuse = "dispatcher.tools.builtin:calculate"\n'
    assert load(write(folder / "tools.toml", entry)).knows("sums")


def test_all_errors_at_once(folder: Path) -> None:
    file = write(
        folder / "tools.toml",
        f"""
colour = 1
[[tool]]
name = "ok"
kind = "local"
use = "{MODULE}:search"
[[tool]]
name = "ok"
kind = "local"
use = "{MODULE}:search"
[[tool]]
name = "has space"
kind = "local"
use = "{MODULE}:missing"
timeout_seconds = 0
[[tool]]
kind = "http"
url = "x"
[[tool]]
name = "untyped"
kind = "local"
use = "{MODULE}:untyped"
[[tool]]
name = "number"
kind = "local"
use = "{MODULE}:number"
timeout_seconds = true
[[tool]]
name = "nowhere"
kind = "local"
use = "not_there_at_all:x"
approval = "boss"
approval_seconds = 0
[[tool]]
name = "unused"
kind = "local"
use = 7
approval_seconds = 60
""",
    )
    with pytest.raises(FileError) as raised:
        load(file)
    assert [str(fault) for fault in raised.value.faults] == [
        f'{file}: unknown key "colour"',
        f'{file}: tool 2 "ok": its name is taken by {file}: tool 1',
        f'{file}: tool 3 "has space": `name` has to be 1 to 64 letters, digits, _ or -',
        f'{file}: tool 3 "has space": `timeout_seconds` has to be a number above 0',
        f"{file}: tool 3 \"has space\": `use`: module '{MODULE}' has no 'missing'",
        f'{file}: tool 4: unknown key "url"',
        f"{file}: tool 4: `name` is missing",
        f"{file}: tool 4: unknown kind 'http'; kinds are local",
        f"{file}: tool 5 \"untyped\": `use`: {MODULE}:untyped its parameter 'q' has no type hint",
        f'{file}: tool 6 "number": `timeout_seconds` has to be a number above 0',
        f'{file}: tool 7 "nowhere": `approval_seconds` has to be a number above 0',
        f'{file}: tool 7 "nowhere": `approval` has to be one of operator, user',
        f"{file}: tool 7 \"nowhere\": `use`: no module 'not_there_at_all' (looked in {folder} too)",
        f'{file}: tool 8 "unused": `use` has to be a text, module:attribute',
        f'{file}: tool 8 "unused": `approval_seconds` is only for a tool with `approval`',
    ]
    assert str(raised.value) == "; ".join([str(fault) for fault in raised.value.faults])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[[tool", ": "),
        (b"tool = 7", ": tools are written as [[tool]]"),
        (b"tool = [7]", ": tool 1: is not a table"),
        (b"# \xff", ": not UTF-8"),
    ],
)
def test_a_file_that_is_none(folder: Path, content: bytes, reason: str) -> None:
    file = folder / "tools.toml"
    file.write_bytes(content)
    with pytest.raises(FileError) as raised:
        load(file)
    assert str(raised.value.faults[0]).startswith(f"{file}{reason}")
    assert len(raised.value.faults) == 1


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"tools\.toml: No such file or directory$"):
        load(tmp_path / "tools.toml")
    with pytest.raises(FileError, match=r"no \*\.toml file in this folder$"):
        load(tmp_path)


async def test_a_tool_that_wants_approval_does_not_run_by_itself(folder: Path) -> None:
    entry = f'[[tool]]\nname = "find"\nkind = "local"\nuse = "{MODULE}:search"\napproval = "user"\n'
    registry = load(write(folder / "tools.toml", entry))
    assert (await registry.run("find", '{"q": "x"}')).status == "DENIED"
