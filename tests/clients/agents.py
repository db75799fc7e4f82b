"""What the clients ask: `obedient`, which also counts without end, fails, says what came beside the text, and who said
something, where the newest message wants that.
"""

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

from commander.agent import ClientCall, Finish, Message, Turn, Yielded, supports
from commander.testing import obedient


@supports("tools", "structured", "sampling", "reasoning", "images", "audio", "files")
async def agent(turn: Turn) -> AsyncGenerator[Yielded, None]:
    """Raises ValueError where it is to fail."""
    newest = turn.messages[-1]
    if newest.role == "user" and "without end" in newest.content:
        for number in itertools.count():
            yield f"{number} "
            await asyncio.sleep(0.01)
    if newest.role == "user" and "Fail" in newest.content:
        if "mid-sentence" in newest.content:
            yield "So far "
        raise ValueError("as it was asked to")
    if newest.role == "user" and newest.content.startswith("Say: "):
        yield newest.content.partition("\n\n")[0]  # aider reminds of its rules below
        return
    if newest.role == "user" and (asked := re.match("Who said '(.+?)'", newest.content)):
        yield " and ".join(each.role for each in turn.messages[:-1] if asked[1] in each.content)
        return
    if beside := [part["type"] for each in turn.messages for part in each.parts if part["type"] != "text"]:
        yield "I see " + " and ".join(beside)
        return
    async for item in obedient(turn):
        yield replace(item, calls=_meant(item.calls, newest)) if isinstance(item, Finish) else item


def _meant(calls: Sequence[ClientCall], newest: Message) -> tuple[ClientCall, ...]:
    """Those that the newest message says to call, or all where it says nothing of that."""
    named = re.findall(r"[Cc]all (\w+)", newest.content)
    meant = [call for call in calls if call.name in named] or calls
    return tuple(_read(call, newest) for call in meant)


def _read(call: ClientCall, newest: Message) -> ClientCall:
    """With the first number and the first quotation that the newest message has, where it takes such."""
    numbers, quotations = re.findall(r"\d+", newest.content), re.findall(r"'(.+?)'", newest.content)

    def read(value: Any) -> Any:
        if type(value) is int and numbers:
            return int(numbers[0])
        return quotations[0] if value == "text" and quotations else value  # what `obedient` says of any text

    arguments: Any = call.arguments
    return replace(call, arguments={name: read(value) for name, value in arguments.items()})
