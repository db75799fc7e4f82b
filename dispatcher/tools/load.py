"""Tool files: TOML, one file or a folder of them, checked whole, so that one run names every error.

[[tool]]
name = "search"
kind = "local"
use = "my_tools:search"
timeout_seconds = 10
"""

import math
import re
import tomllib
from pathlib import Path
from typing import Any

from dispatcher.tools import builtin
from dispatcher.tools.local import LocalTool, Threads, UnusableFunctionError
from dispatcher.tools.registry import DEFAULT_TIMEOUT, Registry, Tool, UnusableSchemaError
from shared.config import import_attribute
from shared.errors import ConfigError

KINDS = ("local",)
KEYS = ("name", "kind", "use", "timeout_seconds")
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what the OpenAI API takes as a function's name


class ToolFileError(ConfigError):
    """errors: one line each, with the file, the entry and the reason."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def load(path: Path | None) -> Registry:
    """The tools of a TOML file, of all *.toml files in a folder, or, for None, the built-in ones. Raises ToolFileError
    with all that is wrong.
    """
    threads = Threads()
    if path is None:
        functions = (builtin.current_time, builtin.calculate)
        return Registry(LocalTool(function.__name__, function, DEFAULT_TIMEOUT, threads) for function in functions)
    errors: list[str] = []
    tools: list[Tool] = []
    names: dict[str, str] = {}
    for file in _files(path, errors):
        for number, entry in enumerate(_entries(file, errors), 1):
            where = f"{file}: tool {number}"
            if not isinstance(entry, dict):
                errors.append(f"{where}: is not a table")
                continue
            name = entry.get("name")
            if isinstance(name, str):
                if name in names:
                    errors.append(f'{where} "{name}": its name is taken by {names[name]}')
                names.setdefault(name, where)
                where += f' "{name}"'
            reasons = _wrong(entry)
            tool = _tool(entry, threads, reasons)
            errors += [f"{where}: {reason}" for reason in reasons]
            if tool:
                tools.append(tool)
    if errors:
        raise ToolFileError(errors)
    return Registry(tools)


def _files(path: Path, errors: list[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.toml"))
    if not files:
        errors.append(f"{path}: no *.toml file in this folder")
    return files


def _entries(file: Path, errors: list[str]) -> list[Any]:
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        errors.append(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        errors.append(f"{file}: not UTF-8")
    except tomllib.TOMLDecodeError as error:
        errors.append(f"{file}: {error}")
    else:
        # Policies may stand in the same file; their loader reads them.
        errors += [f'{file}: unknown key "{key}"' for key in document if key not in ("tool", "policy")]
        entries = document.get("tool", [])
        if isinstance(entries, list):
            return entries
        errors.append(f"{file}: tools are written as [[tool]]")
    return []


def _wrong(entry: dict[str, Any]) -> list[str]:
    """What is wrong with the entry as it is written."""
    reasons = [f'unknown key "{key}"' for key in entry if key not in KEYS]
    reasons += [f"`{key}` is missing" for key in ("name", "kind") if key not in entry]
    name, kind, timeout = entry.get("name", ""), entry.get("kind", "local"), entry.get("timeout_seconds", 1)
    if "name" in entry and not (isinstance(name, str) and NAME.fullmatch(name)):
        reasons.append("`name` has to be 1 to 64 letters, digits, _ or -")
    if kind not in KINDS:
        reasons.append(f"unknown kind {kind!r}; kinds are {', '.join(KINDS)}")
    elif "use" not in entry:
        reasons.append("`use` is missing")
    elif not isinstance(entry["use"], str):
        reasons.append("`use` has to be a text, module:attribute")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        reasons.append("`timeout_seconds` has to be a number above 0")
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
        tool = LocalTool(entry["name"], function, float(entry.get("timeout_seconds", DEFAULT_TIMEOUT)), threads)
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
