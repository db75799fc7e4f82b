"""Agents as users write them, good ones and bad ones, for `commander check`. Importing them is cheap."""

import asyncio
import contextlib
import json
import os
import threading
import time
import urllib.request
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from commander.agent import Thought, Turn, Yielded

Words = AsyncGenerator[Yielded, None]


def chat(turn: Turn) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content} for message in turn.messages]
    return {"model": "any", "messages": messages, "stream": True}


def said(line: str) -> str:
    """The words of one line of a stream."""
    data = line.removeprefix("data: ").strip()
    if not line.startswith("data: ") or data == "[DONE]":
        return ""
    return "".join(choice["delta"].get("content") or "" for choice in json.loads(data)["choices"])


# ---- good ones


async def plain(turn: Turn) -> Words:
    """Asks no provider; long enough to be stopped on its own."""
    for number in range(10_000):
        yield f"{number} "
        await asyncio.sleep(0.001)


async def short(turn: Turn) -> Words:
    """Never awaits, and has finished after four words."""
    yield Thought("Planning", "Four words.")
    for word in ("The", "answer", "is", "391."):
        yield word + " "


async def asks_a_tool(turn: Turn) -> Words:
    """Says what the tool found, for ever."""
    found = await turn.call_tool("weather", {"city": "Oslo"})
    while True:
        yield f"{found['forecast']} "
        await asyncio.sleep(0.001)


# ---- bad ones


async def never_ends(turn: Turn) -> Words:
    """Swallows every cancellation, and waits on."""
    for _ in range(20):
        yield "word "
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


def _lines(url: str, body: bytes) -> Iterator[str]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 # http
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        yield from (line.decode() for line in response)


async def in_a_thread(turn: Turn) -> Words:
    """Reads with a blocking client in a thread, which nobody stops."""
    loop = asyncio.get_running_loop()
    words: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in _lines(f"{os.environ['OPENAI_BASE_URL']}/chat/completions", json.dumps(chat(turn)).encode()):
            loop.call_soon_threadsafe(words.put_nowait, said(line))

    threading.Thread(target=read, name="the-reader", daemon=True).start()
    while True:
        yield await words.get()


async def blocks(turn: Turn) -> Words:
    """Waits with a call that blocks the event loop."""
    for number in range(10_000):
        yield f"{number} "
        time.sleep(0.6)  # noqa: ASYNC251 # that is what is wrong with it
        await asyncio.sleep(0)


async def spins(turn: Turn) -> Words:
    """Computes for ever, and never gives the loop a turn."""
    for number in range(20):
        yield f"{number} "
    while True:
        pass


async def slow_to_close(turn: Turn) -> Words:
    """Its clean-up takes longer than it may."""
    try:
        while True:
            yield "word "
            await asyncio.sleep(0.001)
    finally:
        await asyncio.sleep(60)


_kept: list[Any] = []


async def leaves_a_task(turn: Turn) -> Words:
    """Stops, but for the task that it started."""
    _kept.append(asyncio.create_task(background_work(), name="mine"))
    while True:
        yield "word "
        await asyncio.sleep(0.001)


async def background_work() -> None:
    await asyncio.Event().wait()


# ---- such as cannot be checked


async def raises(turn: Turn) -> Words:
    yield "one word, "
    raise ValueError("as written")


async def says_nothing(turn: Turn) -> Words:
    await asyncio.Event().wait()
    yield "never"


async def says_all_at_once(turn: Turn) -> Words:
    yield "This is the whole answer."


async def exits(turn: Turn) -> Words:
    yield "word "
    os._exit(7)


# ---- of other uses


async def prints(turn: Turn) -> Words:
    print("for the terminal", flush=True)
    while True:
        yield "word "
        await asyncio.sleep(0.001)


async def tells_its_pid(turn: Turn) -> Words:
    """To whoever reads the pipe; then waits."""
    with open(os.environ["PIDS"], "w") as pids:  # noqa: ASYNC230, PTH123 # opened at once: the reader waits
        pids.write(str(os.getpid()))
    await asyncio.Event().wait()
    yield "never"
