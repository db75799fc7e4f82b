"""Where a server is, and what its refusals say. Imports no HTTP library, for `health` is asked every few seconds."""

import json
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from shared.addresses import is_loopback, split_address
from shared.errors import ConfigError

_END_OF_CERTIFICATE = "-----END CERTIFICATE-----"


class RequestFailed(Exception):
    """The server refused, or cannot be reached. Its text is for the user."""


def setting(wanted: str) -> str:
    """One alone, as `shared.config.load` reads it; empty: it is not set."""
    return next((value for name, value in os.environ.items() if name.upper() == wanted and value), "")


def base_url(address: str, tls: bool = False) -> str:
    """Where a client on this machine reaches what listens on `host:port`."""
    scheme = "https" if tls else "http"
    host, port = split_address(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - listening everywhere is reached here
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def pinned(cert: Path) -> ssl.SSLContext:
    """For a client on the server's own machine: it knows the certificate that it has to be shown, whatever its name. Of
    a file with several that is the first: those behind it have issued others too. Raises ConfigError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        first, end, _ = cert.read_text("ascii").partition(_END_OF_CERTIFICATE)
        context.load_verify_locations(cadata=first + end)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not PEM"
        raise ConfigError(f"{cert}: cannot be read as a certificate: {reason}") from None
    return context


def is_local(url: str) -> bool:
    """Whether it is on this machine: no proxy of the environment reaches that. Raises ValueError."""
    return is_loopback(urlsplit(url).hostname or "")


def unreachable(url: str, error: Exception) -> RequestFailed:
    return RequestFailed(f"cannot reach {url}: {str(error) or type(error).__name__}")


def refusal(status: int, body: bytes) -> str:
    """What an answer that is an error says."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}"
