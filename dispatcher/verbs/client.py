"""What the client verbs share: requests with clear errors, and event streams that survive a break."""

import argparse
import json
import re
import ssl
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx2
import msgspec

from dispatcher.settings import DispatcherSettings
from dispatcher.verbs.servers import RequestFailed, base_url, is_local, pinned, refusal, setting, unreachable
from shared import http_environment
from shared.config import load
from shared.errors import ConfigError
from shared.tls import Pems, TlsError, read

RECONNECT_SECONDS = 1.0  # as the server's `retry:` says
GIVE_UP_SECONDS = 60.0  # without a connection
ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 45.0  # three keep-alives: the connection is dead


def add_key_file(parser: argparse.ArgumentParser) -> argparse.Action:
    return parser.add_argument("--key-file", type=Path, help="of the key to show (default: DISPATCHER_KEY is the key)")


def add_operators(parser: argparse.ArgumentParser, *verbs: argparse.ArgumentParser) -> None:
    """Their address, and what they show. verbs: of that parser, after which these may stand as well as before."""
    for each in (parser, *verbs):
        added = [
            each.add_argument("--url", help="the operator's address (default: from DISPATCHER_OPERATOR_ADDRESS)"),
            add_key_file(each),
            each.add_argument(
                "--cert", type=Path, help="a certificate to show instead of a key, over HTTPS: its PEM file"
            ),
            each.add_argument("--key", type=Path, help="the file of the certificate's private key"),
        ]
        for option in added if each is not parser else ():
            option.default = argparse.SUPPRESS  # what stands before the verb counts


def _certificate(options: argparse.Namespace) -> Pems | None:
    """Raises ConfigError."""
    cert, key = getattr(options, "cert", None), getattr(options, "key", None)
    if (cert is None) != (key is None):
        raise ConfigError("--cert and --key have to be given together")
    if cert is None:
        return None
    if options.key_file:
        raise ConfigError("either --key-file or --cert: where a key is shown, no certificate counts")
    try:
        return read(cert, key)
    except TlsError as error:
        raise ConfigError(str(error)) from None


def _key(file: Path | None) -> str:
    """Raises ConfigError."""
    try:
        key = file.read_text("ascii").strip() if file else setting("DISPATCHER_KEY")
    except (OSError, ValueError):
        raise ConfigError(f"--key-file: {file} cannot be read") from None
    if (file or key) and not (key.isascii() and key.isprintable() and key and " " not in key):
        raise ConfigError(f"{'--key-file' if file else 'DISPATCHER_KEY'}: is no key as `dispatcher keys new` prints it")
    return key


class NotFound(RequestFailed):
    """There is no such session (any more)."""


class Event(msgspec.Struct, frozen=True):
    name: str
    data: dict[str, Any]


class Client:
    """Requests to one address. Use as a context manager. Methods raise RequestFailed."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None, key: str = "") -> None:
        """tls: by what it knows the server; None: by the machine's own certificates. key: shown with each request."""
        self.url = url
        if not is_local(url):
            http_environment.check()
        self._http = httpx2.Client(
            base_url=url,
            timeout=ANSWER_SECONDS,
            trust_env=not is_local(url),
            verify=True if tls is None else tls,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    @staticmethod
    def of(options: argparse.Namespace, edge: Literal["http", "operator"]) -> "Client":
        """Of the server that `--url` names, or that the settings describe. Raises ConfigError."""
        certificate = _certificate(options)
        key = "" if certificate else _key(options.key_file)
        if options.url:
            url, tls = options.url, httpx2.create_ssl_context()
        else:
            settings = load(DispatcherSettings)
            address = settings.http_address if edge == "http" else settings.operator_address
            cert = (settings.http_tls if edge == "http" else settings.operator_tls).cert
            url, tls = base_url(address, tls=cert is not None), pinned(cert) if cert else httpx2.create_ssl_context()
        try:
            if key and not (url.startswith("https://") or is_local(url)):
                raise ConfigError(f"the key would go to {url} in the clear: say https")
            if certificate:
                if not url.startswith("https://"):
                    raise ConfigError(f"--cert: a certificate is shown over https, and {url} is not")
                certificate.show_in(tls)
            return Client(url, tls, key)
        except (ValueError, httpx2.InvalidURL) as error:
            raise ConfigError(f"--url: {url} is none: {error}") from None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        return self._json("GET", path, params=params)

    def post(self, path: str, body: object) -> Any:
        return self._json("POST", path, json=body)

    def delete(self, path: str) -> None:
        self._answer("DELETE", path)

    def sessions(self, **asked: Any) -> Iterator[dict[str, Any]]:
        """An operator's list, the newest first."""
        return self.pages("/operator/sessions", "sessions", **asked)

    def pages(self, path: str, key: str, **asked: Any) -> Iterator[dict[str, Any]]:
        """What an operator's list has under that key, page by page."""
        while True:
            page = self.get(path, **asked)
            yield from page[key]
            if page["cursor"] is None:
                return
            asked["cursor"] = page["cursor"]

    def _json(self, method: str, path: str, **how: Any) -> Any:
        return self._answer(method, path, **how).json()

    def _answer(self, method: str, path: str, **how: Any) -> httpx2.Response:
        try:
            response = self._http.request(method, path, **how)
        except httpx2.TransportError as error:
            raise unreachable(self.url, error) from error
        if response.is_error:
            raise _refused(response)
        return response

    def told(self, path: str, body: object) -> Generator[Event, None, None]:
        """The events with which a POST is answered, over its one connection."""
        try:
            with self._http.stream("POST", path, json=body, timeout=SILENCE_SECONDS) as response:
                if response.is_error:
                    response.read()
                    raise _refused(response)
                for event in httpx2.EventSource(response, max_event_size=None):
                    if event.data:
                        yield Event(event.event, json.loads(event.data))
        except httpx2.TransportError as error:
            raise unreachable(self.url, error) from error

    def events(self, path: str, after: str = "0") -> Generator[tuple[str, Event], None, None]:
        """Events with their ids after that id, over as many connections as it takes, until the server says 204."""
        connected, lost_at = False, 0.0
        while True:
            trouble: RequestFailed | None = None
            headers = {"Last-Event-ID": after}
            try:
                with self._http.stream("GET", path, headers=headers, timeout=SILENCE_SECONDS) as response:
                    if response.status_code == httpx2.codes.NO_CONTENT:
                        return
                    if response.is_error:
                        response.read()
                        trouble = _refused(response)
                        if response.is_client_error:
                            raise trouble
                    else:
                        connected, lost_at = True, 0.0
                        for event in httpx2.EventSource(response, max_event_size=None):
                            if event.data:
                                after = event.id
                                yield after, Event(event.event, json.loads(event.data))
            except httpx2.TransportError as error:
                trouble = unreachable(self.url, error)
            if trouble:
                lost_at = lost_at or time.monotonic()
                if not connected or time.monotonic() - lost_at > GIVE_UP_SECONDS:
                    raise trouble
            time.sleep(RECONNECT_SECONDS)


def _refused(response: httpx2.Response) -> RequestFailed:
    kind = NotFound if response.status_code == httpx2.codes.NOT_FOUND else RequestFailed
    return kind(refusal(response.status_code, response.content))


_BEGINS_WITH_A_DASH = re.compile(r"-[\w-]{31}")  # a session's id is 24 bytes in URL-safe base64


def shielded(arguments: Sequence[str]) -> list[str]:
    """Arguments of which argparse takes no session's id for an option; `as_session_id` takes the shield off again."""
    return [f" {each}" if _BEGINS_WITH_A_DASH.fullmatch(each) else each for each in arguments]


def as_session_id(argument: str) -> str:
    """The `type` of an argument that is a session's id."""
    return argument.strip()


def as_count(given: str) -> int:
    """The `type` of an argument that is a number of things."""
    if not (given.isascii() and given.isdigit() and int(given)):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {given!r}")
    return int(given)


def shown_json(value: object) -> str:
    """On one line, for somebody who is to decide on it: nothing is hidden, or turns the text around."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
