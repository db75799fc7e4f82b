"""The Dispatcher's settings: environment variables with the prefix `DISPATCHER_`."""

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from shared.channel import ServerKeepalive
from shared.config import Address, CommaSeparated, Count, LogLevel, Seconds, Section, Settings
from shared.records import MAX_HISTORY_BYTES, MAX_MESSAGE_BYTES

MAX_BODY_BYTES = MAX_MESSAGE_BYTES - MAX_HISTORY_BYTES  # 8 MiB: an assignment has what was asked, and the history

# As browsers send it (RFC 6454, 6.2): no path, not even its slash, in lower case.
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+")
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")  # as the header `Host` has it, an IPv6 address in brackets


def _checked_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"must be * or origins like https://a.example, got {origin!r}")
    return origins


def _checked_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"must be names like api.example, in lower case and without a port, got {host!r}")
    return hosts


class ServerTls(Section):
    """PEM files of what an edge shows; none: it speaks no TLS."""

    cert: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("CERT and KEY have to be given together")
        return self


class MutualTls(ServerTls):
    """client_ca: of which whoever connects has to show a certificate."""

    client_ca: Path | None = None

    @model_validator(mode="after")
    def _shown(self) -> Self:
        if self.client_ca and not self.cert:
            raise ValueError("CLIENT_CA needs CERT and KEY")
        return self


class DispatcherSettings(Settings):
    """Times in seconds. What the names mean stands in `docs/reference/settings.md`."""

    model_config = SettingsConfigDict(env_prefix="DISPATCHER_")

    grpc_address: Address = "127.0.0.1:50051"
    http_address: Address = "127.0.0.1:8080"
    operator_address: Address = "127.0.0.1:9464"
    access: Annotated[str, Field(min_length=1)] | None = None
    audit_log: Annotated[str, Field(min_length=1)] | None = None
    key: SecretStr | None = None  # of the commands, which read it themselves: with `--url` they ask for no settings
    grpc_tls: MutualTls = MutualTls()
    http_tls: ServerTls = ServerTls()
    operator_tls: MutualTls = MutualTls()
    store: str = Field(default="sqlite:///./data/sessions.db", repr=False)  # Redis's has a password in it
    grace_seconds: Seconds = 20
    takeovers: Annotated[int, Field(ge=0)] = 2
    stop_seconds: Seconds = 5
    queue_limit: Annotated[int, Field(ge=0)] = 1000
    queue_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    queue_seconds: Seconds = 60
    retention_seconds: Seconds = 86400
    drain_seconds: Seconds = 30
    max_unacked_packets: Annotated[int, Field(ge=1, le=2**32 - 1)] = 256
    max_unacked_bytes: Annotated[int, Field(ge=1, le=2**32 - 1)] = 262144
    max_log_bytes: Count = 64 * 1024 * 1024
    policies: Path | None = None
    policy_reload_running: bool = False
    tools: Path | None = None
    receipt_key: Path | None = None
    max_body_bytes: Annotated[Count, Field(le=MAX_BODY_BYTES)] = MAX_BODY_BYTES
    early_headers: bool = False
    http_head_seconds: Seconds = 10
    http_idle_seconds: Seconds = 75
    page: bool = True
    cors_origins: Annotated[CommaSeparated, AfterValidator(_checked_origins)] = ()
    allowed_hosts: Annotated[CommaSeparated, AfterValidator(_checked_hosts)] = ()
    log_thoughts: bool = False
    log_json: bool | None = None
    log_level: LogLevel = "INFO"
    log_exception_text: bool = False
    keepalive: ServerKeepalive = ServerKeepalive()
    status_timeout_seconds: Seconds = 10
    tokenless_opens: bool = False
    write_timeout_seconds: Seconds = 10
