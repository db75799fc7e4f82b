"""`python -m tests.abuse.user HTTP_PORT OPERATOR_PORT UNTIL USER_KEY OPERATOR_KEY`: an honest user, in a process of its
own. The keys are empty where access is open.

It reads one answer that lasts until the file UNTIL is there, and all the while asks for others, which an operator stops
at their first word. It says `reading` once the long answer has begun, and at its end how long it ever waited: for the
next word (`gap`), for a first one (`first`), for a stop's answer (`stop`), and for its own process (`late`), which is
not the Dispatcher's doing.
"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from tests.faults.reader import FINAL, Refused, events

EVERY_SECONDS = 0.25  # another short answer
TICK_SECONDS = 0.01
AGENT = "steady"
OK, CREATED, ACCEPTED, TOO_MANY = 200, 201, 202, 429


async def ask(port: int, method: str, path: str, body: object = None, key: str = "") -> tuple[int, Any]:
    """Status and JSON, over a connection of its own."""
    data = b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {key}\r\n" if key else ""
        head += f"Content-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        head, _, answer = (await reader.read()).decode().partition("\r\n\r\n")
        return int(head.split(" ", 2)[1]), json.loads(answer or "null")
    finally:
        writer.transport.abort()


def wrong(text: str) -> str:
    """What is wrong with an honest agent's text; empty: nothing."""
    words = text.count(" ") - 1
    whole = "".join(f"{number} " for number in range(words)) + f"of {words}"
    return "" if text == whole else f"the text is …{text[-200:]!r}"


class User:
    def __init__(self, http: int, operator: int, until: Path, key: str, operator_key: str) -> None:
        self._http, self._operator, self._until = http, operator, until
        self._key, self._operator_key = key, operator_key
        self.words = 0
        self.gap = self.first = self.stop = self.late = 0.0
        self.trouble: list[str] = []

    async def run(self) -> None:
        others = asyncio.ensure_future(asyncio.gather(self._ask_again_and_again(), self._tick()))
        await self._read()
        others.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await others

    async def _create(self) -> dict[str, Any]:
        body = {"agent": AGENT, "prompt": "go", "parameters": {"until": str(self._until)}}
        status, answer = await ask(self._http, "POST", "/v1/sessions", body, self._key)
        if status != CREATED:
            raise Refused(status)
        return dict(answer)

    async def _read(self) -> None:
        text, end, last = "", "", None
        created = await self._create()
        async for event in events(self._http, created["events"], "0", self._key):
            now = asyncio.get_running_loop().time()
            if event.name in FINAL:
                end = event.name
                continue
            if last is None:
                print(json.dumps({"event": "reading"}), flush=True)
            self.gap = max(self.gap, now - (last or now))
            last = now
            text += event.data["text"]
        self.words = text.count(" ") - 1
        if (found := wrong(text)) or end != "finished":
            self.trouble.append(f"{end} {found}")

    async def _ask_again_and_again(self) -> None:
        while True:
            try:
                await self._ask()
            except (OSError, EOFError, ValueError, Refused) as error:
                self.trouble.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(EVERY_SECONDS)

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        created = await self._create()
        async with contextlib.aclosing(events(self._http, created["events"], "0", self._key)) as stream:
            await anext(stream)
            self.first = max(self.first, loop.time() - asked)
            asked = loop.time()
            path = f"/operator/sessions/{created['session_id']}/stop"
            status, _ = await ask(self._operator, "POST", path, {}, self._operator_key)
            self.stop = max(self.stop, loop.time() - asked)
            ends = [event.name async for event in stream if event.name in FINAL]
        if status != ACCEPTED or (ends != ["stopped"] and not self._until.exists()):
            self.trouble.append(f"a stop was answered {status}, its session ended {ends}")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.late = max(self.late, loop.time() - due)


async def main(http: str, operator: str, until: str, key: str, operator_key: str) -> None:
    user = User(int(http), int(operator), Path(until), key, operator_key)
    await user.run()
    said = {name: getattr(user, name) for name in ("words", "gap", "first", "stop", "late", "trouble")}
    print(json.dumps({"event": "seen", **said}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
