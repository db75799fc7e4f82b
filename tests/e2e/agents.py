"""Agents of the end-to-end tests, as their users would write them: COMMANDER_BACKEND=tests.e2e.agents:NAME."""

import asyncio
import contextlib
import os
import time
from pathlib import Path

from commander.agent import Thought, ToolError, Turn, continues


def word(number: int) -> str:
    return f"w{number} "


async def counting(turn: Turn):
    """Says `parameters.tokens` words, one every `parameters.seconds`. Notes in the file `parameters.made` each that it
    made, and there too when it was cancelled (Unix seconds)."""
    tokens, seconds = turn.parameters.get("tokens", 100), turn.parameters.get("seconds", 0.01)
    made = turn.parameters.get("made")
    number = 0
    try:
        for number in range(tokens):
            yield word(number)
            await asyncio.sleep(seconds)
        number = tokens
    finally:
        if made:
            Path(made).write_text(f"{number} {time.time()}")  # noqa: ASYNC240 - once, and the session is over


@continues
async def continuing(turn: Turn):
    """As `counting`, from where its predecessor was cut off, in the middle of a word if need be."""
    text = "".join(map(word, range(turn.parameters["tokens"])))
    position = len(turn.history.said)
    assert text.startswith(turn.history.said)
    while position < len(text):
        yield text[position : position + 3]
        position += 3
        await asyncio.sleep(turn.parameters["seconds"])


async def telling(turn: Turn):
    """Thinks, calls a tool, speaks, and perhaps fails; `parameters.canary` stands in all but the speech."""
    canary = turn.parameters["canary"]
    yield Thought(f"step {canary}", f"thinking of {canary}")
    await turn.call_tool("calculate", {"expression": f"1 + {int(canary, 36)}"})
    yield "Nothing to see."
    if turn.parameters.get("fail"):
        raise RuntimeError(f"it broke at {canary}")


async def failing(turn: Turn):
    """Calls the tool `broken` with `parameters.canary`, and breaks itself."""
    with contextlib.suppress(ToolError):
        await turn.call_tool("broken", {"text": turn.parameters["canary"]})
    yield "So far."
    raise RuntimeError(turn.parameters["canary"])


def broken(text: str) -> str:
    """Fails."""
    raise ValueError(text)


async def noting(turn: Turn):
    """Calls the tool `note` as often as `parameters.calls` says, each time with a line of its own."""
    for number in range(turn.parameters["calls"]):
        answer = await turn.call_tool("note", {"file": turn.parameters["file"], "line": f"{turn.session_id} {number}"})
        yield f"{number}:{answer} "


async def noting_once(turn: Turn):
    """Calls the tool `note` with what it was asked as the file's name, and says what that answers."""
    yield await turn.call_tool("note", {"file": turn.messages[-1].content, "line": "called"})


def note(file: str, line: str) -> str:
    """Append a line to a file: an effect that can be counted."""
    with open(file, "a") as out:  # noqa: PTH123 - one write of less than a block: lines stay whole
        out.write(line + "\n")
    time.sleep(0.02)
    return "noted"


async def sample(turn: Turn):
    """The agent of the README, with a tool whose effect can be counted; it is slow in the middle of its sentence."""
    yield Thought("Planning", "…")
    await turn.call_tool("note", {"file": turn.parameters["file"], "line": "called"})
    yield "It is "
    await asyncio.sleep(turn.parameters["seconds"])
    yield "sunny."


@continues
async def sample_continuing(turn: Turn):
    """As `sample`, but it skips what its predecessor has called and said."""
    if not turn.history.calls:
        yield Thought("Planning", "…")
        await turn.call_tool("note", {"file": turn.parameters["file"], "line": "called"})
    if not turn.history.said:
        yield "It is "
        await asyncio.sleep(turn.parameters["seconds"])
    yield "sunny."


async def forking(turn: Turn):
    """Lets the tool `fork` fork, and forks itself."""
    until = turn.parameters["until"]
    await turn.call_tool("fork", {"until": until, "file": turn.parameters["tool"]})
    fork(until, turn.parameters["agent"])
    yield "Forked."


def fork(until: str, file: str) -> str:
    """A child that lives as long as the file `until` is there, and a minute at most; its pid in the other file."""
    if os.fork():
        return "forked"
    for stream in (0, 1, 2):  # our output's reader shall not wait for it
        os.close(stream)
    Path(f"{file}.half").write_text(str(os.getpid()))
    Path(f"{file}.half").rename(file)
    for _ in range(1200):
        if not Path(until).exists():
            break
        time.sleep(0.05)
    os._exit(0)


async def acting(turn: Turn):
    """Calls the tool `act` once, and says what came of it: a result, or the error."""
    try:
        yield str(await turn.call_tool("act", {"what": turn.messages[-1].content}))
    except ToolError as error:
        yield str(error)
