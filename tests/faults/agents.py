"""Agents whose whole text is known beforehand, and their tool: COMMANDER_BACKEND=tests.faults.agents:NAME.

A session's parameters are its Script. Words and calls are numbered; each word names the session's key, so that a word
in the wrong session would show.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass

from commander.agent import Thought, ToolError, Turn, continues

TOOL = "note"
SEEN = "seen"  # the step under which an agent thinks what it got: "NUMBER STATUS"


@dataclass(frozen=True)
class Script:
    """What an agent does: `words` words, one every `seconds`, and before every `every`th a tool call."""

    key: str
    words: int
    every: int
    seconds: float
    file: str  # where the tool writes

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
    try:
        answer = await turn.call_tool(TOOL, {"file": script.file, "line": line, "number": number})
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
