"""Nothing but content reaches users: canaries in all else, searched in the bytes of every user route."""

import asyncio
import json
import re

import httpx2
import pytest

from dispatcher.core.entries import Failed, StopEntry
from dispatcher.gateway.response_events import STRIDE
from shared.records import Stopped, Thought, ToolResult, Unknown
from tests.dispatcher.gateway.fakes import Commander, FakeSessions
from tests.gateway_routes import routes

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
    await commander.ask_approval(json.dumps({CANARY: CANARY}), "call-3", "operator")
    await commander.settle(ToolResult("search", CANARY, "call-3", "CANCELLED"))
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
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    for route, asked in (("chat/completions", chat), ("responses", {"input": "hi"})):
        for stream in (True, False):
            asking = asyncio.create_task(http.post(f"/v1/{route}", json={"model": "default", "stream": stream} | asked))
            commander = await sessions.begin(await sessions.created.get())
            await chirp(commander)
            await end(commander, how)
            seen.append(await asking)
            path = f"/v1/sessions/{commander.session_id}"
            seen.append(await http.get(path))
            seen += [await http.get(f"{path}/events?after={n}") for n in range(commander.head.offset + 2)]
            seen.append(await http.post(f"{path}/stop"))
            decision = {"decision": "approve", "arguments_sha256": "0"}
            seen += [await http.post(f"{path}/calls/call-{n}/decision", json=decision) for n in (2, 3)]
            path = f"/v1/responses/resp_{commander.session_id}"
            seen += [await http.get(path), await http.get(f"{path}/input_items")]
            numbers = range(0, (commander.head.offset + 1) * STRIDE, STRIDE)
            seen += [await http.get(f"{path}?stream=true&starting_after={number}") for number in numbers]
            seen.append(await http.post(f"{path}/cancel"))
    seen.append(await http.post("/v1/sessions", json={"prompt": "hi"}))
    commander = await sessions.begin(await sessions.created.get())
    await chirp(commander)
    await end(commander, how)
    seen.append(await http.delete(f"/v1/responses/resp_{commander.session_id}"))
    seen.append(await http.delete(f"/v1/sessions/{commander.session_id}"))
    seen.append(await http.post("/v1/responses/compact"))
    paths = ("/", "/page/user.js", "/v1/models", "/v1/models/default", "/v1/responses", "/healthz", "/readyz")
    seen += [await http.get(path) for path in (*paths, "/v1/sessions/x/events")]
    texts = 0
    for answer in seen:
        everything = f"{answer.headers} {answer.text}"
        assert "CANARY" not in everything, answer.request.url
        texts += "clean " in answer.text
    assert texts >= 16
    reached = {(answer.request.method, answer.request.url.path) for answer in seen}
    for method, path in routes("operator.py", "holds.py"):
        pattern = re.sub(r"{[^}]*}", "[^/]+", path)
        assert any(method == by and re.fullmatch(pattern, at) for by, at in reached), f"{method} {path} was not asked"
