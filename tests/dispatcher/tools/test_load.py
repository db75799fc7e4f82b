from pathlib import Path

import pytest

from dispatcher.files.document import FileError
from dispatcher.tools.load import load
from dispatcher.tools.registry import ApprovalRequest, Registry

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


def registry_of(path: Path | None) -> Registry:
    return Registry(load(path).tools.values())


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


async def test_the_built_in_tools() -> None:
    registry = registry_of(None)
    assert [tool.name for tool in registry.offered("")] == ["current_time", "calculate"]
    assert all(tool.description for tool in registry.offered(""))
    answer = await registry.run("calculate", '{"expression": "6 * 7"}')
    assert answer == ("OK", "42")


async def test_a_file(folder: Path) -> None:
    entry = f'[[tool]]\nname = "find"\nkind = "local"\nuse = "{MODULE}:search"\ntimeout_seconds = 2.5\n'
    registry = registry_of(write(folder / "tools.toml", entry + '[[policy]]\nname = "another loader\'s"\n'))
    assert [(tool.name, tool.description) for tool in registry.offered("")] == [("find", "Search.")]
    assert registry.timeout("find") == 2.5
    assert await registry.run("find", '{"q": "x"}') == ("OK", '["x"]')


def test_a_folder_of_files(folder: Path) -> None:
    for name in ("b", "a"):
        write(folder / f"{name}.toml", f'[[tool]]\nname = "{name}"\nkind = "local"\nuse = "{MODULE}:search"\n')
    write(folder / "notes.txt", "no tools")
    assert [tool.name for tool in registry_of(folder).offered("")] == ["a", "b"]
    assert registry_of(folder).timeout("a") == 10


def test_an_entry_of_the_built_in_functions(folder: Path) -> None:
    entry = '[[tool]]\nname = "sums"\nkind = "local"\nuse = "dispatcher.tools.builtin:calculate"\n'
    assert registry_of(write(folder / "tools.toml", entry)).knows("sums")


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
kind = "httpx"
agents = []
approval = "boss"
concurrency = 0
idempotent = 1
[[tool]]
name = "waits"
kind = "local"
use = "{MODULE}:search"
approval_seconds = 5
concurrency = 3
prefix = "my_"
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
[[tool]]
name = "unused"
kind = "local"
use = 7
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
        f"{file}: tool 4: `name` has to be a text that is not empty",
        f"{file}: tool 4: `agents` has to be a list of texts that is not empty",
        f'{file}: tool 4: unknown approval \'boss\'; approvals are "operator", "user"',
        f"{file}: tool 4: `concurrency` has to be a whole number, 1 to 1000",
        f"{file}: tool 4: `idempotent` has to be true or false",
        f'{file}: tool 4: unknown kind \'httpx\'; kinds are "local", "http"',
        f'{file}: tool 5 "waits": `approval_seconds` is for `approval`',
        f'{file}: tool 5 "waits": unknown key "concurrency" for kind "local"',
        f'{file}: tool 5 "waits": unknown key "prefix" for kind "local"',
        f"{file}: tool 6 \"untyped\": `use`: {MODULE}:untyped its parameter 'q' has no type hint",
        f'{file}: tool 7 "number": `timeout_seconds` has to be a number above 0',
        f'{file}: tool 7 "number": `use`: {MODULE}:number is not a function',
        f"{file}: tool 8 \"nowhere\": `use`: no module 'not_there_at_all' (looked in {folder} too)",
        f'{file}: tool 9 "unused": `use` has to be a text that is not empty',
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


def test_the_terms_of_a_tool(folder: Path) -> None:
    entry = f"""
[[tool]]
name = "find"
kind = "local"
use = "{MODULE}:search"
agents = ["support", "sales"]
approval = "user"
approval_seconds = 60
"""
    registry = registry_of(write(folder / "tools.toml", entry))
    spec = registry.spec("find", "support")
    assert spec
    assert (spec.approval, spec.approval_seconds) == ("user", 60)
    assert registry.spec("find", "other") is None
    assert registry.spec("other", "support") is None
    assert [tool.name for tool in registry.offered("sales")] == ["find"]
    assert registry.offered("other") == ()


def test_a_toolset_of_an_unknown_kind(folder: Path) -> None:
    with pytest.raises(FileError, match=r"toolset 1 \"docs\": unknown kind 'mcpx'; kinds are "):
        load(write(folder / "tools.toml", '[[toolset]]\nname = "docs"\nkind = "mcpx"\n'))


@pytest.mark.parametrize(("more", "seconds"), [("", 600), ("approval_seconds = 2.5\n", 2.5)])
async def test_a_tool_whose_calls_have_to_be_approved(folder: Path, more: str, seconds: float) -> None:
    entry = f'[[tool]]\nname = "find"\nkind = "local"\nuse = "{MODULE}:search"\n'
    registry = registry_of(write(folder / "tools.toml", f'{entry}approval = "user"\n{more}'))
    assert registry.approval("find", "default") == "user"
    request = await registry.request("find", '{"q": "x"}', "default")
    assert isinstance(request, ApprovalRequest)
    assert request.seconds == seconds
    assert registry_of(write(folder / "tools.toml", entry)).approval("find", "default") == ""
