"""The agent of every system that is measured: a user's own `module:attribute`, and the token server's model.

What it says can be checked to the letter. A flood counts, `0000000 0000001 …`, 8 characters a token; a paced session
says `IIIIIISSSSSSSSS ` 16 characters a token: a number, and when it was said (microseconds of the machine's monotonic
clock, modulo 10^9). The last token ends with a full stop.
"""

import array
import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, Protocol, cast

import msgspec

FLOOD_WIDTH = 8
PACED_WIDTH = 16
CLOCK_MODULO = 10**9  # microseconds: a thousand seconds, longer than any session here

# What one read of a provider's stream brings in a flood: a real agent awaits its socket again after that.
TOKENS_IN_A_READ = 16

# Times that are kept of a session's last tokens, and so the most that can be counted after a stop.
STAMPS = 8192
REPORT_SOCKET = "BENCH_REPORT"  # environment: path of the Unix datagram socket that hears of stopped sessions


class Spec(msgspec.Struct):
    """What a session shall do; its prompt, as JSON. Times are seconds of the machine's monotonic clock."""

    kind: Literal["flood", "paced", "idle", "tool"]
    begin: float = 0.0
    seconds: float = 0.0
    rate: float = 50.0
    report: str = ""
    """Not empty: tell under this name when the generator has ended, and when its last tokens were made."""

    phrase: str = ""
    """Said once, `phrase_after` seconds after the begin; then it goes on as before."""

    phrase_after: float = 0.0
    tool: str = ""
    """The tool that is called with these `arguments`."""

    arguments: dict[str, Any] = {}


class Report(msgspec.Struct):
    """Times are nanoseconds of the machine's monotonic clock; `clock`: what to add for Unix time."""

    name: str
    ended: int
    stamps: bytes
    clock: int
    phrase: int = 0
    """When the phrase was yielded; 0: it was not."""

    def made_after(self, moment: int) -> int:
        """Tokens made after that time: at most STAMPS, as far back as the report goes."""
        return sum(stamp > moment for stamp in array.array("q", self.stamps))


class Said(Protocol):
    @property
    def content(self) -> str: ...


class Turn(Protocol):
    @property
    def messages(self) -> Sequence[Said]: ...


class CallingTurn(Turn, Protocol):
    """Of the pair alone."""

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any: ...


async def agent(turn: Turn) -> AsyncGenerator[str, None]:
    """Says what its prompt, a Spec, asks for."""
    spec = msgspec.json.decode(turn.messages[-1].content, type=Spec)
    if spec.kind == "tool":
        yield str(await cast("CallingTurn", turn).call_tool(spec.tool, spec.arguments))
        return
    if not spec.report:
        async for token in _say(spec):
            yield token
        return
    stamps = array.array("q", bytes(8 * STAMPS))
    made = phrase = 0
    try:
        async for token in _say(spec):
            stamps[made % STAMPS] = now = time.monotonic_ns()
            made += 1
            if token is spec.phrase:
                phrase = now
            yield token
    finally:
        ended = time.monotonic_ns()
        tell(Report(spec.report, ended, stamps.tobytes(), time.time_ns() - time.monotonic_ns(), phrase))


def tell(report: Report) -> None:
    """The benchmark hears of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(msgspec.msgpack.encode(report), os.environ[REPORT_SOCKET])


def _say(spec: Spec) -> AsyncGenerator[str, None]:
    return {"flood": _flood, "paced": _paced, "idle": _idle}[spec.kind](spec)


async def _flood(spec: Spec) -> AsyncGenerator[str, None]:
    await asyncio.sleep(spec.begin - time.monotonic())
    number = 0
    begin = max(spec.begin, time.monotonic())
    end = begin + spec.seconds
    phrase_at = begin + spec.phrase_after if spec.phrase else end
    while (now := time.monotonic()) < end:
        if now >= phrase_at:
            yield spec.phrase
            phrase_at = end
        for _ in range(TOKENS_IN_A_READ):
            yield f"{number:07d} "
            number += 1
        await asyncio.sleep(0)
    yield f"{number:07d}."


async def _paced(spec: Spec) -> AsyncGenerator[str, None]:
    tokens = max(1, round(spec.seconds * spec.rate))
    phrase_before = round(spec.phrase_after * spec.rate) if spec.phrase else -1
    for number in range(tokens):
        await asyncio.sleep(spec.begin + number / spec.rate - time.monotonic())
        if number == phrase_before:
            yield spec.phrase
            continue
        now = time.monotonic_ns() // 1000 % CLOCK_MODULO
        yield f"{number:06d}{now:09d}{'.' if number == tokens - 1 else ' '}"


async def _idle(spec: Spec) -> AsyncGenerator[str, None]:  # as the others
    yield f"{0:07d} "
    await asyncio.Event().wait()
