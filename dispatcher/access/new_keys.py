"""Keys are made here: 256 random bits that are shown once, and an entry that holds their digest alone."""

import fcntl
import os
import secrets
from pathlib import Path

import msgspec

from dispatcher.access.load import load
from dispatcher.access.rules import AccessRole, digest_of
from dispatcher.files.document import FileError, quoted

PREFIX = "mst_"  # by which scanners of repositories and logs know one


class NewKey(msgspec.Struct, frozen=True):
    """tenant, agents, expires: as in the file; None: not given. expires: ISO 8601."""

    name: str
    role: AccessRole
    tenant: str | None = None
    agents: tuple[str, ...] | None = None
    expires: str | None = None

    def append_to(self, path: Path) -> str:
        """The key. The file is made if it is not there, readable by its owner only; else it is as before, and this at
        its end. Raises FileError, where the file would be wrong with it, and OSError.
        """
        key = PREFIX + secrets.token_urlsafe(32)
        with open(path, "a+b", opener=_private) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two that are made at once
            file.seek(0)
            before = file.read()
            entry = self._entry(digest_of(key.encode()).hex()).encode()
            separator = b"" if not before else b"\n" if before.endswith(b"\n") else b"\n\n"
            file.write(separator + entry)
            file.flush()
            try:
                load(path)
            except FileError:
                file.truncate(len(before))
                raise
        return key

    def _entry(self, digest: str) -> str:
        lines = ["[[key]]", f"name = {quoted(self.name)}", f"role = {quoted(self.role)}", f"sha256 = {quoted(digest)}"]
        if self.tenant is not None:
            lines.append(f"tenant = {quoted(self.tenant)}")
        if self.agents is not None:
            lines.append(f"agents = [{', '.join(map(quoted, self.agents))}]")
        if self.expires is not None:
            lines.append(f"expires = {self.expires}")
        return "\n".join(lines) + "\n"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
