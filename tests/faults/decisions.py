"""Whoever decides on calls that wait for an approval: users and operators, at any replica, while things break."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

Wish = Literal["approve", "approve twice", "approve and deny", "deny", "wrong hash", "nothing"]
WISHES: dict[Wish, int] = {
    "approve": 5, "approve twice": 2, "approve and deny": 2, "deny": 1, "wrong hash": 1, "nothing": 1,
}  # fmt: skip
PAUSE_SECONDS = 2.0  # at most, before they decide
WRONG = "0" * 64
Answer = tuple[int, str]  # status, and the error's code


@dataclass
class Asked:
    """One call on which somebody is to decide. event: what users were shown of it."""

    event: dict[str, Any]
    wish: Wish
    by: str
    answers: list[tuple[str, str, Answer]] = field(default_factory=list)  # (decision, arguments_sha256, answer)


Post = Callable[[str, str, dict[str, Any]], Awaitable[Answer]]  # (who, path, body), asked again until it is answered


async def decide(session_id: str, asked: Asked, chance: random.Random, post: Post) -> None:
    """As they wish."""
    await asyncio.sleep(chance.uniform(0, PAUSE_SECONDS))
    path = f"/sessions/{session_id}/calls/{asked.event['call_id']}/decision"

    async def say(decision: str, sha256: str = asked.event["arguments_sha256"]) -> None:
        answer = await post(asked.by, path, {"decision": decision, "arguments_sha256": sha256})
        asked.answers.append((decision, sha256, answer))

    match asked.wish:
        case "approve twice":
            await asyncio.gather(say("approve"), say("approve"))
        case "approve and deny":
            await asyncio.gather(say("approve"), say("deny"))
        case "wrong hash":
            await say("approve", WRONG)
            await say("approve")
        case "approve" | "deny":
            await say(asked.wish)


def asked(event: dict[str, Any], chance: random.Random) -> Asked:
    """What somebody makes of it. An operator may decide on what a user is asked, too; who is asked shows in the event,
    which has the arguments for users only.
    """
    (wish,) = chance.choices(list(WISHES), list(WISHES.values()))
    user = "arguments" in event and chance.random() < 0.7
    return Asked(event, wish, "user" if user else "operator")
