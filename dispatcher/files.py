"""The operators' files: TOML, one file or a folder of them, checked whole, so that one run names every error."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import ConfigError

KINDS = {"policy": "policies", "tool": "tools", "case": "cases"}  # in one file, if one likes; each loader reads its own


class FileError(ConfigError):
    """errors: each with the file, the entry and the reason. Its text is all of them on one line."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


def entries(path: Path, kind: str, errors: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each `[[kind]]` table of the file, or of all *.toml files in the folder, with where it stands: `FILE: kind N`,
    and its name if it has one. What is wrong with the files, and a name that comes twice, is added to `errors`.
    """
    names: dict[str, str] = {}
    for file in _files(path, errors):
        for number, entry in enumerate(_tables(file, kind, errors), 1):
            where = f"{file}: {kind} {number}"
            if not isinstance(entry, dict):
                errors.append(f"{where}: is not a table")
                continue
            name = entry.get("name")
            if isinstance(name, str) and name:
                where += f" {quoted(name)}"
                if name in names:
                    errors.append(f"{where}: its name is taken by {names[name]}")
                names.setdefault(name, f"{file}: {kind} {number}")
            yield where, entry


def quoted(text: str) -> str:
    """As in TOML, on one line."""
    return json.dumps(text, ensure_ascii=False)


def _files(path: Path, errors: list[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.toml"))
    if not files:
        errors.append(f"{path}: no *.toml file in this folder")
    return files


def _tables(file: Path, kind: str, errors: list[str]) -> list[Any]:
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        errors.append(f"{file}: {error.strerror}")
    except UnicodeDecodeError:
        errors.append(f"{file}: not UTF-8")
    except tomllib.TOMLDecodeError as error:
        errors.append(f"{file}: {error}")
    else:
        errors += [f"{file}: unknown key {quoted(key)}" for key in document if key not in KINDS]
        tables = document.get(kind, [])
        if isinstance(tables, list):
            return tables
        errors.append(f"{file}: {KINDS[kind]} are written as [[{kind}]]")
    return []
