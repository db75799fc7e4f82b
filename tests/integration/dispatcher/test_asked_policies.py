"""Policies that are asked, plugins and guardrails' servers, with a Commander on a real stream."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dispatcher.core.entries import Finished, StopEntry
from dispatcher.core.log import Request
from dispatcher.live import tool_starts
from dispatcher.policing.prompts import PromptRefused, PromptUnread
from shared.records import Content, Message, Stop, Stopped, Thought, ToolCall, ToolResult
from tests.dispatcher.gateway.fakes import eventually
from tests.dispatcher.policing import asked_plugins
from tests.dispatcher.policing.asked_plugins import guardrail
from tests.integration.dispatcher import waiting_tools
from tests.integration.dispatcher.peer import World, serving, sqlite

PLUGIN = """
[[policy]]
name = "birds"
kind = "plugin"
use = "tests.dispatcher.policing.asked_plugins:{use}"
{more}
"""

TOOLS = """
[[tool]]
name = "bird"
kind = "local"
use = "tests.integration.dispatcher.waiting_tools:bird"
"""


@pytest.fixture(autouse=True)
def _reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked_plugins.reset()
    waiting_tools.reset()


def files(folder: Path, rules: str) -> dict[str, Any]:
    (folder / "rules.toml").write_text(rules + TOOLS)
    return {"policies": folder / "rules.toml", "tools": folder / "rules.toml"}


def plugin(folder: Path, use: str, more: str = "") -> dict[str, Any]:
    return files(folder, PLUGIN.format(use=use, more=more))


async def shows(world: World, session_id: str, text: str) -> None:
    """Return when users see that."""
    with world.sessions.store.follow(session_id) as follower:
        async with asyncio.timeout(30):
            while await world.text(session_id) != text:
                await follower.wait(1)


async def test_a_plugin_lets_text_out_and_stops_before_what_it_forbids(tmp_path: Path) -> None:
    async with serving(**plugin(tmp_path, "no_birds")) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, "A robin. ")
        await shows(world, session_id, "A robin. ")
        await member.say(session_id, "A nightingale.")
        stop = await member.next(Stop)
        assert stop.reason == "PolicyViolation"
        await member.say(session_id, Stopped(stop.stop_id))
        await member.acked(session_id)
        assert await world.text(session_id) == "A robin. "
        metrics = await world.metrics()
        assert metrics['dispatcher_policy_hits_total{action="stop",policy="birds"}'] == 1
        assert metrics['dispatcher_policy_seconds_count{policy="birds"}'] >= 2
        assert {question.session_id for question in asked_plugins.asked} == {session_id}


async def test_an_end_waits_for_the_verdict_before_it(tmp_path: Path) -> None:
    async with serving(**plugin(tmp_path, "waits")) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, Content("A robin.", is_finish=True))
        await asked_plugins.asking.wait()
        assert await world.bodies(session_id, Finished) == []
        asked_plugins.answering.set()
        await world.becomes(session_id, "finished")
        assert await world.text(session_id) == "A robin."
        await member.acked(session_id)


@pytest.mark.parametrize("use", ["raises", "nonsense", "swallows_cancellation"])
async def test_a_broken_plugin_stops_its_session_and_says_why_to_operators(tmp_path: Path, use: str) -> None:
    async with serving(**plugin(tmp_path, use, "timeout_seconds = 0.1")) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, "A robin.")
        assert (await member.next(Stop)).reason == "RiskControl"
        (stop,) = await world.bodies(session_id, StopEntry)
        assert (stop.policy, stop.detail.split(":")[0]) == ("birds", "policy_unavailable")
        assert await world.text(session_id) == ""
        asked_plugins.answering.set()


async def test_calls_and_results_wait_for_their_verdicts(tmp_path: Path) -> None:
    more = 'action = "redact"\nreads = ["arguments", "results"]'
    async with serving(**plugin(tmp_path, "no_birds", more)) as world:
        member, session_id, _ = await world.served()
        for name, status in (("nightingale", "DENIED"), ("robin", "OK"), ("Philomela", "DENIED")):
            await member.say(
                session_id, ToolCall("bird", json.dumps({"name": name}), f"call {len(waiting_tools.begun)} {status}")
            )
            result = await member.next(ToolResult, session_id)
            assert result.status == status
        assert waiting_tools.begun == ["robin", "Philomela"]
        assert "ightingale" not in repr(await world.bodies(session_id, ToolResult))
        asked = [(question.channel, question.text, question.tool_name) for question in asked_plugins.asked]
        assert ("arguments", "name\nrobin", "bird") in asked
        assert ("results", "a robin", "bird") in asked
        await member.finish(session_id, "done")
        assert await world.text(session_id) == "done"


async def test_a_result_that_waits_for_its_verdict_keeps_no_call_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_starts, "MAX_HELD", 1)
    async with serving(**plugin(tmp_path, "waits", 'reads = ["results"]\ntimeout_seconds = 30')) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, ToolCall("bird", '{"name": "robin"}', "c1"))
        await asked_plugins.asking.wait()
        await member.say(session_id, ToolCall("bird", '{"name": "wren"}', "c2"))
        await eventually(lambda: waiting_tools.begun == ["robin", "wren"])
        asked_plugins.answering.set()
        results = [await member.next(ToolResult, session_id) for _ in range(2)]
        assert {(result.call_id, result.status) for result in results} == {("c1", "OK"), ("c2", "OK")}


async def test_a_stop_cancels_a_call_that_waits_for_its_verdict(tmp_path: Path) -> None:
    async with serving(**plugin(tmp_path, "waits", 'reads = ["arguments"]\ntimeout_seconds = 30')) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, ToolCall("bird", '{"name": "robin"}', "c"))
        await asked_plugins.asking.wait()
        await world.sessions.stop(session_id, "UserCancel", "user")
        assert (await member.next(ToolResult, session_id)).status == "CANCELLED"
        assert waiting_tools.begun == []


async def test_an_observer_stops_late(tmp_path: Path) -> None:
    more = 'mode = "observer"\nreads = ["content", "thoughts", "arguments"]'
    async with serving(**plugin(tmp_path, "no_birds", more)) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, "A robin.", Thought("Planning", "a nightingale"))
        stop = await member.next(Stop)
        await member.say(session_id, Stopped(stop.stop_id))
        await member.acked(session_id)
        assert await world.text(session_id) == "A robin."

        member, session_id, _ = await world.served()
        await member.say(session_id, ToolCall("bird", '{"name": "nightingale"}', "c"))
        assert (await member.next(Stop)).reason == "PolicyViolation"


async def test_prompts_wait_for_their_verdicts(tmp_path: Path) -> None:
    async with serving(**plugin(tmp_path, "no_birds", 'reads = ["prompt"]')) as world:
        with pytest.raises(PromptRefused):
            await world.create(prompt="a nightingale")
        await world.create(prompt="a robin")
    async with serving(**plugin(tmp_path, "raises", 'reads = ["prompt"]')) as world:
        with pytest.raises(PromptUnread):
            await world.create(prompt="a robin")
    async with serving(**plugin(tmp_path, "no_birds", 'reads = ["prompt"]\nmode = "observer"')) as world:
        session_id = await world.create(prompt="a nightingale")
        await world.becomes(session_id, "stopped")


async def test_after_a_restart_undecided_text_is_asked_about_again(tmp_path: Path) -> None:
    rules = plugin(tmp_path, "waits", "timeout_seconds = 30")
    async with serving(sqlite(tmp_path), clean=False, **rules) as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, "A robin.")
        await member.acked(session_id)
        await asked_plugins.asking.wait()
    asked_plugins.reset()
    asked_plugins.answering.set()
    async with serving(sqlite(tmp_path), **rules) as world:
        await shows(world, session_id, "A robin.")
    assert [question.text for question in asked_plugins.asked] == ["A robin."]


# ---- a guardrail's server

GUARDRAIL = """
[[policy]]
name = "guardrail"
kind = "http"
url = "{url}"
headers = {{ x-api-key = "$GUARDRAIL_KEY" }}
parameters = {{ language = "en" }}
reads = ["content", "arguments", "prompt"]
overlap = 12
"""


def presidio(body: dict[str, Any]) -> web.Response:
    """Masks names, blocks birds."""
    if any("ightingale" in text for text in body["texts"]):
        return web.json_response({"action": "BLOCKED", "blocked_reason": "a bird"})
    masked = [text.replace("Ann Miller", "<PERSON>") for text in body["texts"]]
    if masked == body["texts"]:
        return web.json_response({"action": "NONE"})
    return web.json_response({"action": "GUARDRAIL_INTERVENED", "texts": masked})


@pytest.fixture
async def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[World, list[Any]]]:
    monkeypatch.setenv("GUARDRAIL_KEY", "s3cret")
    async with guardrail(presidio) as (url, requests), serving(**files(tmp_path, GUARDRAIL.format(url=url))) as world:
        yield world, requests


async def test_a_guardrail_masks_what_is_split_over_packets(guarded: tuple[World, list[Any]]) -> None:
    world, requests = guarded
    member, session_id, _ = await world.served()
    await member.say(session_id, *"I met Ann Miller and Bob.")
    await member.finish(session_id)
    await world.becomes(session_id, "finished")
    assert await world.text(session_id) == "I met <PERSON> and Bob."
    headers, body = requests[-1]
    assert headers["x-api-key"] == "s3cret"
    assert body["litellm_call_id"] == session_id
    assert body["additional_provider_specific_params"] == {"language": "en"}


async def test_a_guardrail_blocks(guarded: tuple[World, list[Any]]) -> None:
    world, _ = guarded
    with pytest.raises(PromptRefused):
        await world.create(prompt="a nightingale")
    with pytest.raises(PromptRefused):
        await world.create(prompt="I am Ann Miller")
    member, session_id, _ = await world.served()
    await member.say(session_id, ToolCall("bird", '{"name": "Ann Miller"}', "c"))
    assert (await member.next(ToolResult, session_id)).status == "DENIED"
    await member.say(session_id, "A robin, and then a nightingale.")
    assert (await member.next(Stop)).reason == "PolicyViolation"
    assert await world.text(session_id) == ""


async def test_a_guardrail_sees_a_prompts_images(guarded: tuple[World, list[Any]]) -> None:
    world, requests = guarded
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = json.dumps([{"type": "text", "text": "What is it?"}, image])
    messages = (Message("user", "What is it?", parts_json=parts),)
    await world.sessions.create(Request("default", messages, time.time()))
    assert requests[-1][1]["images"] == ["data:image/png;base64,AA=="]
    await world.create(prompt="no image")
    assert "images" not in requests[-1][1]


async def test_a_guardrail_that_is_away_stops_the_session(tmp_path: Path) -> None:
    async with guardrail(presidio) as (url, _):
        pass
    rules = GUARDRAIL.format(url=url).replace('headers = { x-api-key = "$GUARDRAIL_KEY" }', "")
    async with serving(**files(tmp_path, rules)) as world:
        with pytest.raises(PromptUnread):
            await world.create()
        member, session_id = await world.own()
        await member.say(session_id, "A robin, and more than the overlap.")
        assert (await member.next(Stop)).reason == "RiskControl"


async def test_many_sessions_at_once(guarded: tuple[World, list[Any]]) -> None:
    world, _ = guarded

    async def one(number: int) -> str:
        member, session_id = await world.own(f"session-{number}-0123456789")
        await member.say(session_id, *f"{number}: I met Ann Miller.")
        await member.finish(session_id)
        await world.becomes(session_id, "finished")
        return await world.text(session_id)

    assert await asyncio.gather(*map(one, range(20))) == [f"{number}: I met <PERSON>." for number in range(20)]
