"""Where a server is."""

from dataclasses import dataclass, field
from pathlib import Path

from dispatcher.tools.http.tool import Connecting


@dataclass(frozen=True, slots=True)
class McpUrl:
    """A server over streamable HTTP."""

    url: str
    connecting: Connecting


@dataclass(frozen=True, slots=True)
class McpProcess:
    """A server that is a process, started in that folder. environment may hold secrets."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    folder: Path
