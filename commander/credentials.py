"""What the Commander shows a Dispatcher, and by what it knows one. Files are read again for each new stream."""

import re
from pathlib import Path
from typing import Self

import grpc
import structlog
from pydantic import SecretStr, model_validator

from shared import tls
from shared.addresses import is_loopback
from shared.channel import Options
from shared.config import Section
from shared.errors import ConfigError

logger = structlog.get_logger()

_HOST = re.compile(r"(?:(?:dns|ipv4|ipv6):(?://[^/]*/)?)?/*(?P<host>\[[^\]]*\]|[^:]*)(?::[0-9]+)?")


class ClientTls(Section):
    """ca: a PEM file, or `system` for those that the machine trusts; none: no TLS. server_name: that the Dispatcher's
    certificate has, where the target names it otherwise.
    """

    ca: str | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("CERT and KEY have to be given together")
        if not self.ca and (self.cert or self.server_name):
            raise ValueError("CA has to be given too, a file or `system`")
        return self


class Credentials:
    """Raises ConfigError where they cannot be used, or the token would be sent in the clear to another machine."""

    def __init__(
        self,
        target: str = "",
        files: ClientTls | None = None,
        token: SecretStr | None = None,
        token_file: Path | None = None,
    ) -> None:
        self._files, self._token, self._token_file = files or ClientTls(), token, token_file
        self._pems = tls.Pems()
        if token and token_file:
            raise ConfigError("COMMANDER_TOKEN: there is COMMANDER_TOKEN_FILE too; one of them")
        if self._files.ca:
            self._pems = self._read()
        elif (token or token_file) and not is_local(target):
            raise ConfigError(
                f"COMMANDER_TOKEN: would go to {target} in the clear; set COMMANDER_TLS__CA, to a file or to `system`"
            )
        self._bearer = self._read_token()

    def changed(self) -> bool:
        """Whether the files of TLS are others since they were last looked at. Broken ones count as unchanged."""
        if not self._files.ca:
            return False
        try:
            pems = self._read()
        except ConfigError as error:
            logger.error("tls_reload_failed", error=str(error))  # noqa: TRY400 # the operator's
            return False
        changed, self._pems = pems != self._pems, pems
        return changed

    def channel(self) -> grpc.ChannelCredentials | None:
        """None: no TLS."""
        pems = self._pems
        return grpc.ssl_channel_credentials(pems.ca, pems.key or None, pems.cert or None) if pems.ca else None

    @property
    def options(self) -> Options:
        name = self._files.server_name
        return [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)] if name else []

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of the next stream."""
        try:
            self._bearer = self._read_token()
        except ConfigError as error:
            logger.error("token_unreadable", error=str(error))  # noqa: TRY400 # the operator's; the one before is shown
        return (("authorization", f"Bearer {self._bearer}"),) if self._bearer else ()

    def _read_token(self) -> str:
        setting = "COMMANDER_TOKEN"
        token = self._token.get_secret_value() if self._token else ""
        if self._token_file:
            setting = "COMMANDER_TOKEN_FILE"
            try:
                token = self._token_file.read_text("ascii").strip()
            except (OSError, ValueError):
                raise ConfigError(f"{setting}: {self._token_file} cannot be read") from None
        wanted = bool(self._token or self._token_file)
        if wanted and not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token):  # RFC 6750, 2.1
            raise ConfigError(f"{setting}: is no key as `dispatcher keys new` prints it")
        return token

    def _read(self) -> tls.Pems:
        try:
            return tls.read(self._files.cert, self._files.key, self._files.ca)
        except tls.TlsError as error:
            raise ConfigError(f"COMMANDER_TLS__…: {error}") from None


def is_local(target: str) -> bool:
    """Whether the gRPC target is on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    found = _HOST.fullmatch(target)
    return found is not None and is_loopback(found["host"].strip("[]"))
