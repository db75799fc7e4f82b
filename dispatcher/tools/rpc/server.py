"""What an entry says of a gRPC server."""

import re
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc

from shared.addresses import split_address

Metadata: TypeAlias = tuple[tuple[str, str], ...]
_DNS = re.compile(r"dns:(///)?(?!/)")
_UNIX = re.compile(r"unix:(//)?(?=/)")


@dataclass(frozen=True, slots=True)
class Target:
    """host and port, or the path of a Unix socket. Raises ValueError."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parsed(cls, text: str) -> "Target":
        if text.startswith("unix:"):
            path = _UNIX.sub("", text, count=1)
            if not path.startswith("/"):
                raise ValueError("a Unix socket is written unix:/PATH")
            return cls(path=path)
        try:
            host, port = split_address(_DNS.sub("", text, count=1))
        except ValueError:
            host, port = "", 0
        if not port or not re.fullmatch(r"[\w.:-]+", host, re.ASCII):
            raise ValueError("a target is written HOST:PORT, dns:///HOST:PORT or unix:/PATH")
        return cls(host, port)

    @property
    def authority(self) -> str:
        """As the server is told whom it was taken for."""
        if self.path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class GrpcServer:
    """metadata may hold secrets; credentials: None where it is spoken to without TLS. told: metadata that say who
    asked, each with what of them, as `who_asked` takes it.
    """

    target: Target
    private: bool
    metadata: Metadata = field(repr=False)
    credentials: grpc.ChannelCredentials | None = field(repr=False)
    told: Metadata = ()
