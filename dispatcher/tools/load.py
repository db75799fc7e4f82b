"""`[[tool]]` and `[[toolset]]` entries of the operators' files, checked and made into tools.

[[tool]]
name = "search"
kind = "local"
use = "my_tools:search"
timeout_seconds = 10
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from dispatcher.files.document import Fault, FileError, Where, entries, quoted
from dispatcher.files.entry import listed
from dispatcher.tools import builtin
from dispatcher.tools.entry import COMMON, Terms, ToolEntry, terms
from dispatcher.tools.http.entry import http_tool
from dispatcher.tools.local import LocalTool, Threads, UnusableFunctionError
from dispatcher.tools.mcp.entry import mcp_toolset
from dispatcher.tools.openapi.toolset import OpenApiToolset, openapi_toolset
from dispatcher.tools.pins import Pin, read_pin
from dispatcher.tools.ports import Spec, Tool, Toolset
from dispatcher.tools.registry import UnusableSchemaError, check_schema
from dispatcher.tools.rpc.entry import grpc_toolset
from shared.config import import_attribute
from shared.errors import ConfigError

MadeT = TypeVar("MadeT")


class Given(NamedTuple):
    """A toolset as an entry has it. pin: the tools as they were approved, if the entry asks for that: in pin_file."""

    toolset: Toolset
    pin: Pin | None = None
    pin_file: Path | None = None


class Loaded(NamedTuple):
    """What the files say, by the entries' fingerprints, in the files' order."""

    tools: Mapping[str, Tool]
    toolsets: Mapping[str, Given]


def load(
    path: Path | None,
    threads: Threads | None = None,
    reading: Callable[[Path], None] = lambda file: None,
    *,
    pins: bool = True,
) -> Loaded:
    """The tools of a TOML file, of all *.toml files in a folder, or, for None, the built-in ones. Raises FileError
    with all that is wrong.

    threads  for synchronous functions
    reading  told of each other file that an entry names, before it is read
    pins     False: as if no entry named one, for that is to be written
    """
    threads = threads or Threads()
    if path is None:
        functions = (builtin.current_time, builtin.calculate)
        made = [LocalTool(Spec(function.__name__, "", {}), function, threads) for function in functions]
        return Loaded({tool.spec.name: tool for tool in made}, {})
    faults: list[Fault] = []
    loaded = Loaded(tools := {}, toolsets := {})
    names: dict[str, Where] = {}
    for where, table in entries(path, faults, "tool", "toolset"):
        entry = ToolEntry(where, table, faults, reading)
        if where.kind == "tool":
            tool = _made(entry, {"local": lambda entry, terms: _local(entry, terms, threads)} | TOOLS)
            if tool:
                tools[entry.fingerprint] = tool
                names[tool.spec.name] = where
            continue
        pin_file = entry.path("pin") if "pin" in entry and entry.text("pin") else None
        pin = read_pin(entry) if pins and pin_file else None
        if toolset := _made(entry, TOOLSETS):
            toolsets[entry.fingerprint] = Given(toolset, pin, pin_file)
        if isinstance(toolset, OpenApiToolset):  # of others the tools are known only when they are connected to
            for tool in toolset.tools:
                taken = names.setdefault(tool.spec.name, where)
                entry.check(taken is where, f"its tool {quoted(tool.spec.name)} has the name of {taken}'s", "prefix")
    if faults:
        raise FileError(faults)
    return loaded


def _made(entry: ToolEntry, kinds: "Mapping[str, Callable[[ToolEntry, Terms], MadeT | None]]") -> MadeT | None:
    """None: something is wrong with it."""
    kind = entry.get("kind")
    on = terms(entry, str(kind))
    make = kinds.get(kind) if isinstance(kind, str) else None
    if make is None:
        wrong = f"unknown kind {kind!r}" if "kind" in entry else "`kind` is missing"
        entry.wrong(f"{wrong}; kinds are {listed(kinds)}", "kind")
        return None
    made = make(entry, on)
    return made if entry.faultless else None


def _local(entry: ToolEntry, terms: Terms, threads: Threads) -> Tool | None:
    entry.only((*COMMON, "use"), 'kind "local"')
    use = entry.text("use")
    try:
        tool = LocalTool(terms.spec, import_attribute(use), threads) if use else None
        if tool:
            check_schema(tool.spec.schema)
    except ConfigError as error:
        entry.wrong(f"`use`: {error}", "use")
    except UnusableFunctionError as error:
        entry.wrong(f"`use`: {use} {error}", "use")
    except UnusableSchemaError as error:
        entry.wrong(f"`use`: the schema of {use} cannot be used: {error}", "use")
    else:
        return tool
    return None


# By kind: what is wrong is said to the entry. A kind of toolset takes the keys `entry.TOOLSET` beside its own.
TOOLS: dict[str, Callable[[ToolEntry, Terms], Tool | None]] = {"http": http_tool}
TOOLSETS: dict[str, Callable[[ToolEntry, Terms], Toolset | None]] = {
    "openapi": openapi_toolset,
    "mcp": mcp_toolset,
    "grpc": grpc_toolset,
}
