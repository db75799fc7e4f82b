"""A `[[tool]]` or `[[toolset]]` while it is checked: what stands in variables and files that it names, and the terms on
which its tools are offered.
"""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dispatcher.files.document import Fault, Where, quoted
from dispatcher.files.entry import FileEntry
from dispatcher.tools.ports import APPROVERS, DEFAULT_APPROVAL_SECONDS, DEFAULT_CONCURRENCY, DEFAULT_TIMEOUT, Spec

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what the OpenAI API takes as a function's name
NAMED = "has to be 1 to 64 letters, digits, _ or -"
PREFIX = re.compile(r"[a-zA-Z0-9_-]{0,63}")
MAX_CONCURRENCY = 1000
MAX_FILE_BYTES = 16 * 1024 * 1024  # of a file that an entry names
MAX_SECRET_BYTES = 16 * 1024  # of a file that `${file:…}` names

COMMON = ("name", "kind", "timeout_seconds", "agents", "approval", "approval_seconds")
REMOTE = (*COMMON, "concurrency", "idempotent", "forward_token")
TOOLSET = (*REMOTE, "allow", "prefix", "pin")

_REFERENCE = re.compile(r"\$\{(?:(env|file):([^{}]*))?\}?")


class ToolEntry(FileEntry):
    """reading: told of each file that it names, before that is read."""

    def __init__(
        self, where: Where, table: dict[str, Any], faults: list[Fault], reading: Callable[[Path], None]
    ) -> None:
        super().__init__(where, table, faults)
        self._reading = reading
        self._digest = hashlib.sha256(repr((where.kind, table)).encode())

    @property
    def fingerprint(self) -> str:
        """Of all that it says, and of what stood in the files and variables that it names: the same where nothing has
        changed.
        """
        return self._digest.hexdigest()

    def path(self, key: str) -> Path:
        """Of the file that the key names, seen from the entry's own."""
        return self._path(str(self.get(key)))

    def content(self, key: str) -> bytes | None:
        """Of the file that the key names; None: it is wrong."""
        written = self.text(key)
        if not written:
            return None
        path = self._path(written)
        try:
            return self._read(path, MAX_FILE_BYTES)
        except (OSError, ValueError) as error:
            self.wrong(f"`{key}`: {path}: {_why(error)}", key)
            return None

    def filled(self, key: str, name: str, text: object) -> str:
        """A text of that table with the variables and files for which `${env:NAME}` and `${file:PATH}` stand; a line
        end at a file's end is none of it. What stands there is never shown. Empty: something is wrong with it.
        """
        if not isinstance(text, str):
            self.wrong(f"`{key}`: {quoted(name)} is not a text", key)
            return ""
        values = [self._referred(key, name, found) for found in _REFERENCE.finditer(text)]
        if None in values:
            return ""
        filled = iter(values)
        return _REFERENCE.sub(lambda _: str(next(filled)), text)

    def _referred(self, key: str, name: str, found: "re.Match[str]") -> str | None:
        kind, of = found[1], found[2]
        if kind is None or not of or not found[0].endswith("}"):
            self.wrong(f"`{key}`: {quoted(name)}: ${{…}} is written ${{env:NAME}} or ${{file:PATH}}", key)
            return None
        try:
            value = os.environ[of] if kind == "env" else self._secret(self._path(of))
        except KeyError:
            self.wrong(f"`{key}`: {quoted(name)}: the variable {of} is not set", key)
            return None
        except (OSError, ValueError) as error:
            self.wrong(f"`{key}`: {quoted(name)}: {of}: {_why(error)}", key)
            return None
        self._digest.update(repr(value).encode())
        return value

    def _secret(self, path: Path) -> str:
        return self._read(path, MAX_SECRET_BYTES).decode().removesuffix("\n").removesuffix("\r")

    def _read(self, path: Path, most: int) -> bytes:
        """Raises OSError, and ValueError for one that is too large."""
        self._reading(path)
        with path.open("rb") as file:
            found = file.read(most + 1)
        if len(found) > most:
            raise ValueError(f"has more than {most} bytes")
        self._digest.update(hashlib.sha256(found).digest())
        return found

    def _path(self, written: str) -> Path:
        return self.where.file.parent / written


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms the tools of an entry are offered. spec: of each of them, but name, description and schema."""

    spec: Spec
    allow: tuple[str, ...] = ("*",)
    prefix: str = ""

    def allows(self, name: str) -> bool:
        """By the name that the server has for it."""
        return any(fnmatchcase(name, pattern) for pattern in self.allow)

    def offered(self, name: str, description: str, schema: dict[str, Any]) -> Spec:
        """The tool of that name of the server's, as agents see it."""
        return replace(self.spec, name=self.prefix + name, description=description, schema=schema)


def terms(entry: ToolEntry, kind: str) -> Terms:
    """Of the keys that are common to all kinds."""
    name = entry.text("name")
    entry.check(not name or bool(NAME.fullmatch(name)), f"`name` {NAMED}", "name")
    agents = entry.texts("agents", "agent") if "agents" in entry else []
    spec = Spec(
        name,
        "",
        {},
        kind,
        entry.seconds("timeout_seconds", DEFAULT_TIMEOUT),
        frozenset(agents),
        entry.choice("approval", APPROVERS, "operator") if "approval" in entry else None,
        entry.seconds("approval_seconds", DEFAULT_APPROVAL_SECONDS),
        entry.count("concurrency", DEFAULT_CONCURRENCY, least=1, most=MAX_CONCURRENCY),
        entry.flag("idempotent"),
        entry.flag("forward_token"),
    )
    entry.check("approval" in entry or "approval_seconds" not in entry, "`approval_seconds` is for `approval`")
    allow = entry.texts("allow", "pattern") if "allow" in entry else ["*"]
    prefix = entry.text("prefix") if "prefix" in entry else ""
    entry.check(bool(PREFIX.fullmatch(prefix)), "`prefix` has to be letters, digits, _ or -, 63 at most", "prefix")
    return Terms(spec, tuple(allow), prefix)
