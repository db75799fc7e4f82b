"""What the drivers share. A driver is a program in the clients' own environment: it does with one client what its users
do, case by case, and prints a line of JSON for each, as `Outcome` has it (`driver.mjs` does the same for Node).

It imports nothing but the standard library and its client.
"""

import asyncio
import base64
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

CASES: dict[str, str] = {
    "plain": "asks, and has the answer, why it ended and what it cost",
    "stream": "the same word by word",
    "auto": "a tool is offered, and called",
    "required": "a call is required; of a named tool too",
    "parallel": "two calls at once, or one where that was asked for",
    "rounds": "two rounds of calls and results, then an answer from them",
    "structured": "an answer in the form of a schema",
    "history": "a conversation with calls and results in it",
    "image": "an image beside the text",
    "abort": "lets go in mid-stream, and the agent stops",
    "error": "an agent that fails, before the first word and after it",
    "refused": "a field that is not honoured, and says so",
    "filtered": "a rule stops the answer",
    "resume": "reads on where a stream broke",
}

_ASKED = json.loads((Path(__file__).parent / "questions.json").read_text())
SAID, BANNED, LET_OUT, FAILS, FAILS_LATE = (_ASKED[n] for n in ("said", "banned", "let_out", "fails", "fails_late"))
QUESTION = _ASKED["question"]  # the agent takes a quotation for an argument
WEATHER, IMAGE = _ASKED["weather"], _ASKED["image"]
NOW = {"type": "object", "properties": {}}  # parameters of a tool that takes none


class Outcome(NamedTuple):
    """why: of what is refused, as the client's user is told; of a failure, the traceback."""

    case: str
    result: str  # works, refused, fails
    why: str = ""


def endless(name: str) -> str:
    """A question that only a stop answers. The session is found by it."""
    return f"Count without end for {name}."


def image_bytes(url: str) -> bytes:
    """What a data URL holds."""
    return base64.b64decode(url.partition(",")[2])


def run(package: str, routes: Mapping[str, Callable[[str, str], Any]]) -> None:
    """`python -m DRIVER URL ROUTE NAME`. routes: makes the object whose methods are the cases, each async or not: it
    returns None, or what the user is told where something is refused clearly. One that is not there: the client has no
    such thing.
    """
    url, route, name = sys.argv[1:]
    say({"version": version(package)})
    asyncio.run(try_cases(routes[route](url, name)))


def say(line: Mapping[str, Any]) -> None:
    print(json.dumps(line), flush=True)


async def try_cases(client: object) -> None:
    for case in CASES:
        if method := getattr(client, case, None):
            try:
                why = method()
                if inspect.isawaitable(why):
                    why = await why
                outcome = Outcome(case, "refused" if why else "works", why or "")
            except Exception:
                outcome = Outcome(case, "fails", traceback.format_exc()[-3000:])
            say(outcome._asdict())


def raises(expected: type[BaseException] | tuple[type[BaseException], ...], ask: Callable[[], Any]) -> Any:
    """What it raised."""
    try:
        ask()
    except expected as error:
        return error
    raise AssertionError("it was answered")


async def raises_async(expected: type[BaseException] | tuple[type[BaseException], ...], asked: Any) -> Any:
    try:
        await asked
    except expected as error:
        return error
    raise AssertionError("it was answered")
