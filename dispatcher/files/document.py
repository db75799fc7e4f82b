"""The operators' files: TOML, one file or a folder of them, checked whole, so that one run names every error."""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shared.errors import ConfigError

KINDS = {
    "policy": "policies",
    "tool": "tools",
    "toolset": "toolsets",
    "case": "cases",
}  # in one file, if one likes; each loader reads its own


@dataclass(frozen=True)
class Where:
    """An entry of a file: the number-th `[[kind]]` in it, and its name if it has one. 0: the file itself."""

    file: Path
    kind: str = ""
    number: int = 0
    name: str = ""

    def __str__(self) -> str:
        entry = f": {self.kind} {self.number}" if self.number else ""
        return f"{self.file}{entry}" + (f" {quoted(self.name)}" if self.name else "")


@dataclass(frozen=True)
class Fault:
    """What is wrong with an entry. key: of what in it; item: of the key's list, counted from 1."""

    where: Where
    reason: str
    key: str = ""
    item: int = 0

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class FileError(ConfigError):
    """Its text is all faults on one line."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


def entries(path: Path, faults: list[Fault], *kinds: str) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Each `[[kind]]` table of the file, or of all *.toml files in the folder, with where it stands. What is wrong with
    the files, and a name that comes twice in a kind, is added to `faults`.
    """
    names: dict[tuple[str, str], Where] = {}
    for file in _files(path, faults):
        for where, entry in _tables(file, kinds, faults):
            if where.name:
                place = replace(where, name="")
                taken = names.setdefault((where.kind, where.name), place)
                if taken != place:
                    faults.append(Fault(where, f"its name is taken by {taken}", "name"))
            yield where, entry


def quoted(text: str) -> str:
    """As in TOML, on one line."""
    return json.dumps(text, ensure_ascii=False)


def _files(path: Path, faults: list[Fault]) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.toml"))
    if not files:
        faults.append(Fault(Where(path), "no *.toml file in this folder"))
    return files


def _tables(file: Path, kinds: Sequence[str], faults: list[Fault]) -> Iterator[tuple[Where, dict[str, Any]]]:
    found = document(file, faults)
    if found is not None:
        faults += [Fault(Where(file), f"unknown key {quoted(key)}") for key in found if key not in KINDS]
        for kind in kinds:
            yield from listed_tables(file, found, kind, faults)


def document(file: Path, faults: list[Fault]) -> dict[str, Any] | None:
    """The file's, as it is. None: it cannot be read, which is added to `faults`."""
    where = Where(file)
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        faults.append(Fault(where, error.strerror or "cannot be read"))
    except UnicodeDecodeError:
        faults.append(Fault(where, "not UTF-8"))
    except tomllib.TOMLDecodeError as error:
        faults.append(Fault(where, str(error)))
    except RecursionError:
        faults.append(Fault(where, "values stand too deep in each other"))
    return None


def listed_tables(
    file: Path, found: dict[str, Any], kind: str, faults: list[Fault]
) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Each `[[kind]]` table of a document, with where it stands and its name. What is none is added to `faults`."""
    tables = found.get(kind, [])
    if not isinstance(tables, list):
        faults.append(Fault(Where(file), f"{KINDS.get(kind, kind + 's')} are written as [[{kind}]]"))
        return
    for number, table in enumerate(tables, 1):
        where = Where(file, kind, number)
        if isinstance(table, dict):
            name = table.get("name")
            yield replace(where, name=name) if isinstance(name, str) else where, table
        else:
            faults.append(Fault(where, "is not a table"))
