"""What honest agents with a bug do, with a Commander of their own."""

import asyncio

from tests.abuse.house import House
from tests.abuse.user import CREATED, ask
from tests.faults.reader import FINAL, events

SECONDS = 60.0  # for a session to end
ENDLESS_SECONDS = 4.0


async def _asked(house: House, agent: str, **parameters: object) -> tuple[str, str]:
    """A session's text and how it ended."""
    status, created = await ask(
        house.http, "POST", "/v1/sessions", {"agent": agent, "prompt": "go", "parameters": parameters}
    )
    assert status == CREATED, created
    text = ""
    async with asyncio.timeout(SECONDS):
        async for event in events(house.http, created["events"], "0"):
            if event.name in FINAL:
                return text, event.name
            text += event.data.get("text", "")
    raise AssertionError("no end")


async def gathered(house: House) -> None:
    """8,000 tool calls at once, of each of two sessions."""
    async with house.commander("gatherer"):
        assert await asyncio.gather(*(_asked(house, "gatherer") for _ in range(2))) == [("all", "finished")] * 2


async def _endless(house: House, agent: str) -> None:
    """Eight sessions, until a budget or their users end them."""
    async with house.commander(agent), asyncio.TaskGroup() as asking:
        sessions = [asking.create_task(_asked(house, agent)) for _ in range(8)]
        await asyncio.sleep(ENDLESS_SECONDS)
        _, answer = await ask(house.operator, "GET", f"/operator/sessions?agent={agent}")
        for session in answer["sessions"]:
            await ask(house.operator, "POST", f"/operator/sessions/{session['session_id']}/stop", {})
    assert {session.result()[1] for session in sessions} == {"stopped"}


async def thoughts(house: House) -> None:
    """Thinking without end."""
    await _endless(house, "thinker")


async def talk(house: House) -> None:
    """Talking without end."""
    await _endless(house, "talker")


async def results(house: House) -> None:
    """Results of 120 MB, and exceptions that nobody catches."""
    async with house.commander("caller"):
        for tool, times in (("huge", 2), ("own_exception", 20)):
            text, end = await _asked(house, "caller", tool=tool, times=times)
            assert (set(text.split()), end) == ({"TOOL_ERROR"}, "finished")


async def hanging(house: House) -> None:
    """64 calls of a synchronous tool that hangs; another tool that is synchronous still answers."""
    async with house.commander("caller"):
        hung, other = await asyncio.gather(
            _asked(house, "caller", tool="hang", times=64), _asked(house, "caller", tool="current_time", times=4)
        )
        assert set(hung[0].split()) <= {"TIMEOUT", "TOOL_ERROR"}, hung
        assert other == ("OK OK OK OK", "finished")
