"""What the environment says to HTTP clients, checked at start: else each of them fails with a traceback of its own."""

import importlib.util
import os
import ssl
from urllib.parse import unquote

import httpx2

from shared.errors import ConfigError

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def check() -> None:
    """Raises ConfigError: a proxy's variable, or SSL_CERT_FILE, cannot be used. No value is quoted: one may hold a
    password."""
    for name, value in sorted(os.environ.items()):
        if name.lower() in _PROXIES and value:
            _check_proxy(name, value)
    if file := os.environ.get("SSL_CERT_FILE"):
        try:
            ssl.create_default_context(cafile=file)
        except OSError as error:
            raise ConfigError(f"SSL_CERT_FILE: {error.strerror or 'holds no certificates'}: {file}") from error


def _check_proxy(name: str, value: str) -> None:
    try:
        url = httpx2.URL(value if "://" in value else f"http://{value}")
    except httpx2.InvalidURL as error:
        raise ConfigError(f"{name}: must be a proxy's URL, as http://host:3128") from error
    if url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise ConfigError(f"{name}: a SOCKS proxy needs the package socksio")
    known = url.scheme in ("http", "https", "socks5", "socks5h")
    if not known or not url.host or " " in unquote(url.host) or not 0 < (url.port or 1) < 65536:
        raise ConfigError(f"{name}: must be a proxy's URL, as http://host:3128")
