"""The Commander's settings: environment variables `COMMANDER_…`, nested ones with `__`."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from commander.backends.settings import LocalSettings, OpenAISettings, ScriptedSettings
from commander.credentials import ClientTls
from shared.channel import ClientKeepalive
from shared.config import Address, Count, LogLevel, Seconds, Settings

# What C-core resolves. It takes any other scheme for a part of a host's name, and looks for that for ever.
SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds")


def _checked_target(target: str) -> str:
    scheme, separator, _ = target.partition("://")
    if (separator and scheme not in SCHEMES) or target.endswith(("/", ":")):
        raise ValueError(f"must be a gRPC target as host:port or dns:///host:port, got {target!r}")
    return target


class CommanderSettings(Settings):
    """
    dispatcher       any gRPC target; all addresses of it in turn
    tls              how it knows the Dispatcher, and what it shows
    token, token_file  its key, or the file of it; never logged
    backend          local, openai, scripted, or `module:attribute` of an agent
    agent            the name under which its agent is asked for
    capacity         sessions at once
    drain_seconds    what running sessions get at SIGTERM before they are handed over
    legacy_seconds   how long `commander run` waits for a sign that the Dispatcher knows all of the contract
    flush_ms         no message sooner than that after the last one
    metrics_address  host:port of /metrics
    log_…            what is logged: `shared.logs.configure`
    grpc_proxy       to the Dispatcher through the environment's HTTP proxy
    """

    model_config = SettingsConfigDict(env_prefix="COMMANDER_")

    dispatcher: Annotated[str, AfterValidator(_checked_target)] = "dns:///127.0.0.1:50051"
    tls: ClientTls = ClientTls()
    token: SecretStr | None = None
    token_file: Path | None = None
    backend: Annotated[str, Field(min_length=1)] = "local"
    agent: Annotated[str, Field(min_length=1)] = "default"
    capacity: Count = 4
    drain_seconds: Seconds = 30
    legacy_seconds: Seconds = 2
    flush_ms: Annotated[float, Field(ge=0)] = 1
    metrics_address: Address = "127.0.0.1:9465"
    log_level: LogLevel = "INFO"
    log_exception_text: bool = False
    grpc_proxy: bool = False
    keepalive: ClientKeepalive = ClientKeepalive()
    local: LocalSettings = LocalSettings()
    openai: OpenAISettings = OpenAISettings()
    scripted: ScriptedSettings = ScriptedSettings()
