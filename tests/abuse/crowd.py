"""`python -m tests.abuse.crowd HTTP_PORT SIZE UNTIL`: so many honest users, in a process of their own.

Each reads one answer that lasts until the file UNTIL is there. Lines of JSON say how many words all have got so far
(`words`) and when that was (`at`, monotonic seconds); the last one, who did not get all of its own (`trouble`).
"""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

from tests.abuse.user import ask, wrong
from tests.faults.reader import FINAL, events

TELL_SECONDS = 0.5


class Crowd:
    def __init__(self, http: int, until: Path) -> None:
        self._http, self._until = http, until
        self.words = 0
        self.reading = 0
        self.trouble: list[str] = []

    async def read(self) -> None:
        body = {"agent": "strolling", "prompt": "go", "parameters": {"until": str(self._until)}}
        _, created = await ask(self._http, "POST", "/v1/sessions", body)
        text, end = "", ""
        async for event in events(self._http, created["events"], "0"):
            if event.name in FINAL:
                end = event.name
                break
            self.reading += not text
            self.words += event.data["text"].count(" ")
            text += event.data["text"]
        if (found := wrong(text)) or end != "finished":
            self.trouble.append(f"{end} {found}")

    async def tell(self, size: int) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            if self.reading == size:
                print(json.dumps({"event": "pace", "words": self.words, "at": time.monotonic()}), flush=True)


async def main(http: str, size: str, until: str) -> None:
    crowd = Crowd(int(http), Path(until))
    telling = asyncio.create_task(crowd.tell(int(size)))
    await asyncio.gather(*(crowd.read() for _ in range(int(size))))
    telling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await telling
    print(json.dumps({"event": "over", "trouble": crowd.trouble}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
