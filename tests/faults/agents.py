"""Agents whose whole text is known beforehand, and what they call: COMMANDER_BACKEND=tests.faults.agents:NAME.

A session's parameters are its Script. Words and calls are numbered; each word names the session's key, so that a word
in the wrong session would show.
"""

import asyncio
import os
import random
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass

from commander.agent import Thought, ToolError, Turn, continues

TOOL = "note"
TOOLSETS = ("crm_act", "mcp_act", "stdio_act", "grpc_act")
SERVICES_TOOLS = ("http_act", *TOOLSETS)
APPROVALS = {"ask_user": "user", "ask_operator": "operator"}  # tools of kind http, and who has to approve their calls
DYING = 0.05  # of the calls of a service, from which that dies
LONG_CALL = 10_000  # milliseconds of the call that a session's user stops
SEEN = "seen"  # the step under which an agent thinks what it got: "NUMBER STATUS"


@dataclass(frozen=True)
class Script:
    """What an agent does: `words` words, one every `seconds`, and before every `every`th a tool call."""

    key: str
    words: int
    every: int
    seconds: float
    file: str  # where the local tool writes
    seed: int = 0
    waits: int = -1  # the call that acts for long

    def planned(self, number: int) -> tuple[str, dict[str, object]]:
        """Which tool is called, and what its service is told."""
        chance = random.Random(f"call {self.seed} {self.key} {number}")
        tool = chance.choice((TOOL, *SERVICES_TOOLS, *APPROVALS))
        dies = chance.choice(("before", "while", "after")) if chance.random() < DYING else ""
        millis = chance.choice((0, 20, 200, 1500))
        if number == self.waits:
            tool, dies, millis = chance.choice(SERVICES_TOOLS), "", LONG_CALL
        return tool, {"millis": millis, "dies": dies}

    def word(self, number: int) -> str:
        return f"{self.key}.{number} "

    @property
    def text(self) -> str:
        return "".join(map(self.word, range(self.words)))

    @property
    def calls(self) -> int:
        return len(range(0, self.words, self.every))

    @property
    def parameters(self) -> dict[str, object]:
        return asdict(self)


async def naive(turn: Turn) -> AsyncGenerator[str | Thought, None]:
    """Begins at the beginning, whatever was said before."""
    script = Script(**turn.parameters)
    for number in range(script.words):
        if number % script.every == 0:
            yield await _call(turn, script, number // script.every)
        yield script.word(number)
        await asyncio.sleep(script.seconds)


@continues
async def continuing(turn: Turn) -> AsyncGenerator[str | Thought, None]:
    """Goes on where its predecessor was cut off, in the middle of a word if need be."""
    script = Script(**turn.parameters)
    made = {call.arguments["number"] for call in turn.history.calls}
    position = len(turn.history.said)
    end = 0
    for number in range(script.words):
        begin, end = end, end + len(script.word(number))
        if number % script.every == 0 and position <= begin and number // script.every not in made:
            yield await _call(turn, script, number // script.every)
        if position >= end:
            continue
        word = script.word(number)[max(0, position - begin) :]
        half = len(word) // 2
        yield word[:half]  # two packets, so that a word can be torn
        await asyncio.sleep(script.seconds)
        yield word[half:]


async def _call(turn: Turn, script: Script, number: int) -> Thought:
    line = f"{turn.session_id} {number}"
    tool, told = script.planned(number)
    more = {"file": script.file} if tool == TOOL else told
    try:
        answer = await turn.call_tool(tool, {"line": line, "number": number, **more})
        answer = answer["line"] if isinstance(answer, dict) else answer  # gRPC's is a message
        status = "OK" if answer == line else f"wrong answer {answer!r}"
    except ToolError as error:
        status = error.code
    return Thought(SEEN, f"{number} {status}")


async def note(file: str, line: str, number: int) -> str:
    """An effect that can be counted: one more line in a file, some time after the call and before its answer."""
    await asyncio.sleep(0.05 * (number % 4))
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(out, f"{line}\n".encode())  # one write of less than a page: lines stay whole
    finally:
        os.close(out)
    await asyncio.sleep(0.05)
    return line
