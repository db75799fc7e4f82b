"""A user's reader over HTTP: goes on with Last-Event-ID whatever breaks, and keeps the text as the user saw it."""

import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from dispatcher.verbs.client import Client, Event
from dispatcher.verbs.servers import RequestFailed

FINAL = ("finished", "stopped", "failed")


@dataclass
class Reader(threading.Thread):
    """Reads one session to its end. `text` grows; `final` is (event, data) once there."""

    url: str
    session: str
    key: str = ""
    text: str = ""
    final: tuple[str, dict[str, Any]] = ("", {})
    final_at: float = 0.0
    ids: list[int] = field(default_factory=list)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.start()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        try:
            with Client(self.url, key=self.key) as client:
                for offset, event in self._events(client):
                    self.ids.append(int(offset))
                    if event.name == "content":
                        self.text += event.data["text"]
                    elif event.name == "reset":
                        self.text = event.data["text"]
                    elif event.name in FINAL:
                        self.final, self.final_at = (event.name, event.data), time.time()
                        return
        except BaseException as error:
            self.error = error

    def _events(self, client: Client) -> Iterator[tuple[str, Event]]:
        """Over a first connection that fails, too."""
        while True:
            try:
                yield from client.events(f"/v1/sessions/{self.session}/events", str(self.ids[-1] if self.ids else 0))
            except RequestFailed as error:
                if "cannot reach" not in str(error):
                    raise
                time.sleep(0.2)
            else:
                return

    def ended(self, seconds: float) -> "Reader":
        """Itself, once the session has ended. Raises what broke the reader, or TimeoutError."""
        self.join(seconds)
        if self.error:
            raise self.error
        if not self.final[0]:
            raise TimeoutError(f"no end after {seconds} s; the text so far: {self.text[-200:]!r}")
        return self


def ask(url: str, prompt: str = "go", shown: Mapping[str, str] | None = None, **parameters: Any) -> str:
    """A new session's id. With a key, it waits where no Commander has come yet. shown: headers that say who asks."""
    headers = {"Idempotency-Key": secrets.token_urlsafe(), **(shown or {})}
    body = {"prompt": prompt, "parameters": parameters}
    answer = httpx2.post(f"{url}/v1/sessions", json=body, headers=headers, timeout=30)
    answer.raise_for_status()
    return str(answer.json()["session_id"])
