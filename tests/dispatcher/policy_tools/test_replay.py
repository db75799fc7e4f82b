"""`dispatcher policy replay` over a real gateway: what today's rules would have done."""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.access.watch import Access
from dispatcher.core.log import Request
from dispatcher.gateway.app import operator_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.metrics import Metrics
from dispatcher.verbs import policy as policy_cli
from shared.records import Message
from tests.dispatcher.gateway.fakes import Commander, FakeSessions

RULES = """
[[policy]]
name = "names"
kind = "phrases"
phrases = ["Nightingale"]
reads = ["content", "arguments", "thoughts", "prompt", "results"]

[[policy]]
name = "mail"
kind = "phrases"
phrases = ["a@b.c"]
action = "redact"
reads = ["content", "arguments", "prompt", "results"]

[[policy]]
name = "cats"
kind = "phrases"
phrases = ["cat"]
action = "observe"

[[policy]]
name = "time"
kind = "budget"
max_seconds = 3600
reason = "Timeout"
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


@pytest.fixture
async def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
async def url(sessions: FakeSessions) -> AsyncIterator[str]:
    registry = CollectorRegistry()
    app = operator_app(sessions, registry, Metrics(registry), Access(None))
    server = HttpServer(app, bind("TEST", "127.0.0.1:0"))
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    sessions.closing.set()
    await server.close()


async def replay(rules: Path, url: str, *options: str) -> int:
    """In a thread, for it blocks."""
    parser = argparse.ArgumentParser()
    policy_cli.add_arguments(parser)
    parsed = parser.parse_args(["replay", str(rules), "--url", url, *options])
    return await asyncio.to_thread(policy_cli.run, parsed)


async def one(rules: Path, url: str, commander: Commander, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What is found in that session."""
    assert await replay(rules, url, f"--session={commander.session_id}", "--json", "--show-text") == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert found["session_id"] == commander.session_id
    return found


async def test_a_session_that_is_as_today_s_rules_have_it(
    rules: Path, url: str, sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    commander = await sessions.begin()
    await commander.think("a cat?")
    await commander.say("a cat ", "and a cat.")
    await commander.call(arguments='{"q": "cat"}')
    await commander.answer(result='"none"')
    await commander.finish()
    found = await one(rules, url, commander, capfd)
    assert not found["differs"]
    assert (found["then"], found["stop"], found["denials"], found["hits"]) == ("finished", None, [], {"cats": 3})
    assert found["let_out_then"] == found["let_out_today"] == len("a cat and a cat.")


async def test_where_it_would_have_been_stopped(
    rules: Path, url: str, sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    commander = await sessions.begin()
    await commander.say("It is ", "Nightin", "gale, really.")
    await commander.finish()
    found = await one(rules, url, commander, capfd)
    assert found["differs"]
    stop = found["stop"]
    assert (stop["offset"], stop["channel"], stop["policy"]) == (4, "content", "names")
    assert (stop["reason"], stop["detail"]) == ("PolicyViolation", "phrase 1 in content")
    assert (stop["before"], stop["after"]) == ("It is ", "Nightingale, really.")
    assert (found["let_out_then"], found["let_out_today"]) == (26, 6)


@pytest.mark.parametrize("channel", ["thoughts", "arguments", "results", "prompt"])
async def test_every_channel_is_read(
    rules: Path, url: str, sessions: FakeSessions, channel: str, capfd: pytest.CaptureFixture[str]
) -> None:
    prompt = Request("default", (Message("user", "of Nightingale" if channel == "prompt" else "hi"),), time.time())
    commander = await sessions.begin((await sessions.create(prompt)).record.session_id)
    await commander.say("words ")
    if channel == "thoughts":
        await commander.think("Nightin")
        await commander.think("gale")
    await commander.call(arguments='["Nightingale"]' if channel == "arguments" else "[]")
    await commander.answer(result='"Nightingale"' if channel == "results" else "1")
    await commander.say("more")
    await commander.finish()
    found = await one(rules, url, commander, capfd)
    expected = {"thoughts": 4, "arguments": 3, "results": 4, "prompt": 0}[channel]
    assert (found["stop"]["channel"], found["stop"]["offset"]) == (channel, expected)
    assert found["let_out_today"] == (0 if channel == "prompt" else 6)


async def test_what_would_have_been_redacted_and_denied(
    rules: Path, url: str, sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    commander = await sessions.begin()
    await commander.call(arguments='{"to": "a@b.c"}')
    await commander.answer(result='"a@b.c"')
    await commander.say("a@b.", "c it is")
    await commander.finish()
    found = await one(rules, url, commander, capfd)
    assert found["differs"]
    assert found["stop"] is None
    denials = [(denial["offset"], denial["channel"], denial["policy"]) for denial in found["denials"]]
    assert denials == [(2, "arguments", "mail"), (3, "results", "mail")]
    assert (found["let_out_then"], found["let_out_today"]) == (11, len("[redacted] it is"))


async def test_what_was_stopped_then(
    rules: Path, url: str, sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    commander = await sessions.begin()
    await commander.say("It is ")
    await commander.hold("Dragon!")
    await commander.stop("PolicyViolation", policy="dragons")
    await commander.hold("Nightingale, after the stop")
    found = await one(rules, url, commander, capfd)
    assert (found["then"], found["then_policy"], found["stop"]) == ("stopped (PolicyViolation)", "dragons", None)
    assert (found["differs"], found["let_out_today"]) == (True, len("It is Dragon!"))


async def test_what_was_held_when_a_user_stopped_it_is_no_difference(
    rules: Path, url: str, sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    commander = await sessions.begin()
    await commander.say("It is Night")
    await commander.stop("UserCancel", author="user")
    found = await one(rules, url, commander, capfd)
    assert (found["differs"], found["let_out_then"], found["let_out_today"]) == (False, 11, 6)


async def test_a_live_session_is_read_as_far_as_it_goes(
    rules: Path, url: str, sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    commander = await sessions.begin()
    await commander.say("Night", "ingale")
    found = await one(rules, url, commander, capfd)
    assert (found["then"], found["stop"]["offset"]) == ("running", 3)


async def test_all_of_them_for_people(
    rules: Path, url: str, sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    clean = await sessions.begin()
    await clean.say("nothing to see")
    await clean.finish()
    dirty = await sessions.begin()
    await dirty.say("SECRET: Nightingale")
    await dirty.fail()
    waiting = (await sessions.create(Request("default", (Message("user", "hi"),), time.time()))).record
    assert await replay(rules, url, "--all") == 0
    out = capfd.readouterr().out
    head, where, count = out.splitlines()
    assert head == f"{dirty.session_id}  failed (agent_error); characters let out: 19, today 8"
    assert where == '  entry 2, content: stopped by "names" (PolicyViolation, phrase 1 in content)'
    assert count == "3 sessions read; today's rules would have done otherwise in 1"
    assert "SECRET" not in out
    assert await replay(rules, url, f"--session={dirty.session_id}", "--show-text") == 0
    assert '    "SECRET: " ▮ "Nightingale"' in capfd.readouterr().out
    assert await replay(rules, url, "--all", "--json") == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {line["session_id"] for line in lines} == {clean.session_id, dirty.session_id, waiting.session_id}
    assert "before" not in lines[-1]["stop"]


async def test_what_cannot_be_replayed(
    rules: Path, url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await replay(rules, url, "--session", "nope") == 1
    assert capfd.readouterr().err == "dispatcher policy: No such session.\n"
    assert await replay(tmp_path / "nothing.toml", url, "--all") == 2
    assert capfd.readouterr().err == f"{tmp_path}/nothing.toml: No such file or directory\n"
