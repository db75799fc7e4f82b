"""`[[tool]]` entries of the operators' files, checked and made into a registry.

[[tool]]
name = "search"
kind = "local"
use = "my_tools:search"
timeout_seconds = 10
approval = "operator"
approval_seconds = 600
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dispatcher.files import Fault, FileError, entries
from dispatcher.tools import builtin
from dispatcher.tools.local import LocalTool, Threads, UnusableFunctionError
from dispatcher.tools.registry import (
    APPROVERS,
    DEFAULT_APPROVAL_SECONDS,
    DEFAULT_TIMEOUT,
    Registry,
    Tool,
    UnusableSchemaError,
)
from shared.config import import_attribute
from shared.errors import ConfigError

KINDS = ("local",)
KEYS = ("name", "kind", "use", "timeout_seconds", "approval", "approval_seconds")
SECONDS = ("timeout_seconds", "approval_seconds")
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what the OpenAI API takes as a function's name


def load(path: Path | None, abandoned: Callable[[str, int], None] = lambda tool, threads: None) -> Registry:
    """The tools of a TOML file, of all *.toml files in a folder, or, for None, the built-in ones. Raises FileError
    with all that is wrong.

    abandoned  told how many threads of a tool outlived their calls and still run
    """
    threads = Threads(abandoned=abandoned)
    if path is None:
        functions = (builtin.current_time, builtin.calculate)
        return Registry(LocalTool(function.__name__, function, DEFAULT_TIMEOUT, threads) for function in functions)
    faults: list[Fault] = []
    tools: list[Tool] = []
    for where, entry in entries(path, "tool", faults):
        reasons = _wrong(entry)
        tool = _tool(entry, threads, reasons)
        faults += [Fault(where, reason) for reason in reasons]
        if tool:
            tools.append(tool)
    if faults:
        raise FileError(faults)
    return Registry(tools)


def _wrong(entry: dict[str, Any]) -> list[str]:
    """What is wrong with the entry as it is written."""
    reasons = [f'unknown key "{key}"' for key in entry if key not in KEYS]
    reasons += [f"`{key}` is missing" for key in ("name", "kind") if key not in entry]
    name, kind = entry.get("name", ""), entry.get("kind", "local")
    if "name" in entry and not (isinstance(name, str) and NAME.fullmatch(name)):
        reasons.append("`name` has to be 1 to 64 letters, digits, _ or -")
    if kind not in KINDS:
        reasons.append(f"unknown kind {kind!r}; kinds are {', '.join(KINDS)}")
    elif "use" not in entry:
        reasons.append("`use` is missing")
    elif not isinstance(entry["use"], str):
        reasons.append("`use` has to be a text, module:attribute")
    for key in SECONDS:
        seconds = entry.get(key, 1)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            reasons.append(f"`{key}` has to be a number above 0")
    if "approval" in entry and entry["approval"] not in APPROVERS:
        reasons.append(f"`approval` has to be one of {', '.join(APPROVERS)}")
    if "approval_seconds" in entry and "approval" not in entry:
        reasons.append("`approval_seconds` is only for a tool with `approval`")
    return reasons


def _tool(entry: dict[str, Any], threads: Threads, reasons: list[str]) -> Tool | None:
    """The tool, if nothing is wrong; what else is found to be wrong is added to the reasons."""
    use = entry.get("use")
    if entry.get("kind") != "local" or not isinstance(use, str):
        return None
    try:
        function = import_attribute(use)
        if reasons:
            return None
        tool = LocalTool(
            entry["name"],
            function,
            float(entry.get("timeout_seconds", DEFAULT_TIMEOUT)),
            threads,
            entry.get("approval"),
            float(entry.get("approval_seconds", DEFAULT_APPROVAL_SECONDS)),
        )
        Registry([tool])  # compiles its schema
    except ConfigError as error:
        reasons.append(f"`use`: {error}")
    except UnusableFunctionError as error:
        reasons.append(f"`use`: {use} {error}")
    except UnusableSchemaError as error:
        reasons.append(f"`use`: the schema of {use} cannot be used: {error}")
    else:
        return tool
    return None
