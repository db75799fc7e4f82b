"""What honest agents with a bug do, with a Commander of their own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.abuse.house import House
from tests.abuse.user import CREATED, ask
from tests.faults.reader import FINAL, events
from tests.sockets import listening

SECONDS = 60.0  # for a session to end
ENDLESS_SECONDS = 4.0
GATHERING_SECONDS = 20.0
BUDGET, STOPPED = {"PolicyViolation"}, {"RiskControl"}  # why a session ended: of what an agent may say, by an operator


async def _asked(house: House, agent: str, **parameters: object) -> tuple[str, str]:
    """A session's text and how it ended: of a stop its reason."""
    status, created = await ask(
        house.http, "POST", "/v1/sessions", {"agent": agent, "prompt": "go", "parameters": parameters}
    )
    assert status == CREATED, created
    text = ""
    async with asyncio.timeout(SECONDS):
        async for event in events(house.http, created["events"], "0"):
            if event.name in FINAL:
                return text, event.data.get("reason", event.name)
            text += event.data.get("text", "")
    raise AssertionError("no end")


async def _stop_all(house: House, agent: str) -> None:
    _, answer = await ask(house.operator, "GET", f"/operator/sessions?agent={agent}")
    for session in answer["sessions"]:
        await ask(house.operator, "POST", f"/operator/sessions/{session['session_id']}/stop", {})


async def gathered(house: House) -> None:
    """8,000 tool calls at once. Each is answered, sooner or later: how soon is the machine's."""
    async with house.commander("gatherer"), asyncio.TaskGroup() as asking:
        session = asking.create_task(_asked(house, "gatherer"))
        await asyncio.wait([session], timeout=GATHERING_SECONDS)
        if not session.done():
            await _stop_all(house, "gatherer")
    assert session.result() in (("all", "finished"), *(("", end) for end in STOPPED))


async def _endless(house: House, agent: str, ends: set[str], **settings: str) -> int:
    """Eight users, each with one session after the other, until a budget or an operator ends it. ends: how they may;
    characters that were said.
    """
    found, characters, over = set[str](), 0, asyncio.Event()

    async def ask_on() -> None:
        nonlocal characters
        while not over.is_set():
            text, end = await _asked(house, agent)
            found.add(end)
            characters += len(text)

    async with house.commander(agent, **settings), asyncio.TaskGroup() as asking:
        users = {asking.create_task(ask_on()) for _ in range(8)}
        await asyncio.sleep(ENDLESS_SECONDS)
        over.set()
        while users:  # one may just have asked again
            await _stop_all(house, agent)
            _, users = await asyncio.wait(users, timeout=1)
    assert found <= ends, found
    return characters


async def thoughts(house: House) -> None:
    """Thinking without end."""
    await _endless(house, "thinker", BUDGET | STOPPED)


async def talk(house: House) -> None:
    """Talking without end."""
    assert await _endless(house, "talker", BUDGET | STOPPED)


async def adversary(house: House) -> None:
    """What patterns stand in at many places at once. None is found, or the session would end by that."""
    await _endless(house, "adversary", STOPPED)


@contextlib.asynccontextmanager
async def _dripping() -> AsyncIterator[int]:
    """The port of a provider that sends comments, and chunks without content, as fast as they are taken."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    chunk = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": null}]}\n\n'

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        while True:
            writer.write((b": keep-alive\n\n" * 50 + chunk) * 10)
            await writer.drain()

    async with listening(drip) as port:
        yield port


async def drips(house: House) -> None:
    """A provider that never says anything, as fast as it can: stops reach the Commander all the same."""
    log = house.folder / "dispatcher.log"
    before = log.stat().st_size
    async with _dripping() as port:
        provider = {"OPENAI__BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI__MODEL": "m"}
        await _endless(house, "dripped", STOPPED, BACKEND="openai", **provider)
    with log.open() as lines:
        lines.seek(before)
        assert "commander_did_not_stop" not in lines.read()


async def results(house: House) -> None:
    """Results of 300 MB, and exceptions that nobody catches."""
    async with house.commander("caller"):
        for tool, times in (("huge", 8), ("many", 8), ("own_exception", 20)):
            text, end = await _asked(house, "caller", tool=tool, times=times)
            codes = text.split()
            assert ("OK" not in codes, len(codes), end) == (True, times, "finished"), (tool, text, end)


async def hanging(house: House) -> None:
    """64 calls of a synchronous tool that hangs; another tool that is synchronous still answers."""
    async with house.commander("caller"):
        hung, other = await asyncio.gather(
            _asked(house, "caller", tool="hang", times=64), _asked(house, "caller", tool="current_time", times=4)
        )
        codes = hung[0].split()
        assert ("TIMEOUT" in codes, len(codes), hung[1]) == (True, 64, "finished"), hung
        assert set(codes) <= {"TIMEOUT", "TOOL_ERROR"}, hung
        assert other == ("OK OK OK OK", "finished")
