"""Nothing but content reaches users: canaries in all else, searched in the bytes of every user route."""

import asyncio
import json

import httpx2
import pytest

from dispatcher.events import Failed, StopEntry
from shared.records import Stopped, Thought, Unknown
from tests.dispatcher.gateway.fakes import Commander, FakeSessions

CANARY = "CANARY with a space"


async def chirp(commander: Commander) -> None:
    """One of each, each holding the canary where a Commander, a tool or a policy may write."""
    await commander.think(CANARY, step=CANARY)
    await commander.say("clean ")
    await commander.hold(CANARY)
    await commander.call(CANARY, json.dumps({CANARY: CANARY}), CANARY)
    await commander.answer(CANARY, json.dumps({CANARY: CANARY}), CANARY, CANARY)
    await commander.call("search", CANARY, "call-2")
    await commander.answer("search", CANARY, "call-2")
    await commander.log(Unknown())
    await commander.say("text")


async def end(commander: Commander, how: str) -> None:
    match how:
        case "finished":
            await commander.finish(CANARY)
        case "failed":
            await commander.fail(CANARY, CANARY)
        case "lost":
            await commander.log(Failed(CANARY, CANARY))
        case "stopped":
            await commander.settle(StopEntry(CANARY, CANARY, CANARY, CANARY, CANARY))
            await commander.hold(CANARY)
            await commander.log(Thought(CANARY, CANARY))
            await commander.log(Stopped(CANARY))


@pytest.mark.parametrize("how", ["finished", "failed", "lost", "stopped"])
async def test_no_canary_on_any_user_route(http: httpx2.AsyncClient, sessions: FakeSessions, how: str) -> None:
    seen: list[httpx2.Response] = []
    for stream in (True, False):
        body = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        commander = await sessions.begin(await sessions.created.get())
        await chirp(commander)
        await end(commander, how)
        seen.append(await asking)
        path = f"/v1/sessions/{commander.session_id}"
        seen.append(await http.get(path))
        seen += [await http.get(f"{path}/events?after={n}") for n in range(commander.head.offset + 2)]
        seen.append(await http.post(f"{path}/stop"))
    seen += [await http.get(path) for path in ("/v1/models", "/healthz", "/readyz", "/v1/sessions/x/events")]
    texts = 0
    for answer in seen:
        everything = f"{answer.headers} {answer.text}"
        assert "CANARY" not in everything, answer.request.url
        texts += "clean " in answer.text
    assert texts >= 4
