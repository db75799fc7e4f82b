"""No banned character gets out, no clean one is lost: the property of `tests/dispatcher/policies/test_leaks.py`, with
hundreds of sessions on a real stream.
"""

import asyncio
import random
from pathlib import Path

from dispatcher.files.document import quoted
from shared.records import Content
from tests.dispatcher.policies import oracle
from tests.dispatcher.policies.oracle import Wanted
from tests.dispatcher.policies.strategies import disguises
from tests.integration.dispatcher.peer import World, serving

SESSIONS = 300
WANTED = [
    Wanted("fi가", "stop"),
    Wanted("straße", "stop", words=True),
    Wanted("abis", "redact"),
    Wanted("is a", "redact"),
    Wanted("bis", "observe"),
    Wanted("á", "redact", words=True),
]
PARTS = ["a", "b", "is", " ", "s", "fi", "ﬁ", "가", "\u1100", "\u1161", "\u0301", "\u200d", "stra", "ß", "e", "x"]


def rules() -> str:
    policies = [
        f'[[policy]]\nname = "{number}"\nkind = "phrases"\nphrases = [{quoted(each.phrase)}]\n'
        f'action = "{each.action}"\nwords = {str(each.words).lower()}\nreads = ["content"]\n'
        for number, each in enumerate(WANTED)
    ]
    return "\n".join(policies)


def text_of(chance: random.Random) -> str:
    whole = [disguise for each in WANTED for disguise in disguises(each.phrase)]
    return "".join(chance.choice(whole if chance.random() < 0.2 else PARTS) for _ in range(chance.randrange(1, 12)))


def pieces_of(text: str, chance: random.Random) -> list[str]:
    cuts = sorted(chance.sample(range(1, len(text)), chance.randrange(0, len(text)))) if len(text) > 1 else []
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


async def test_hundreds_of_sessions_on_a_real_stream(tmp_path: Path) -> None:
    (tmp_path / "policies.toml").write_text(rules())
    async with serving(policies=tmp_path / "policies.toml", grace_seconds=60, status_timeout_seconds=300) as world:
        member = await world.join(slots=SESSIONS)
        stopped = 0
        for seed in range(SESSIONS):
            chance = random.Random(seed)
            text = text_of(chance)
            await world.create()
            session_id = (await member.serve()).session_id
            await member.say(session_id, *pieces_of(text, chance), Content("", is_finish=True))
            state = await ended(world, session_id)
            expected = oracle.outcome(text, WANTED)
            assert await world.text(session_id) == expected.shown, (seed, text)
            assert (state == "stopped") == (expected.stopped is not None), (seed, text)
            stopped += state == "stopped"
        assert SESSIONS // 10 < stopped < SESSIONS, "of both sorts"


async def ended(world: World, session_id: str) -> str:
    with world.sessions.store.follow(session_id) as follower:
        async with asyncio.timeout(30):
            while not (record := await world.record(session_id)).head.final:
                await follower.wait(1)
    return record.head.state
