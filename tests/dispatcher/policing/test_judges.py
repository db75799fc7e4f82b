"""Who is asked always answers in time, or counts as not available; what they say means what it says."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from dispatcher.metrics import Metrics
from dispatcher.policies.questions import AskedPolicy, Question, Verdict
from dispatcher.policing.judges import Judges
from dispatcher.policing.plugins import plugin
from shared import logs
from shared.errors import ConfigError
from tests.dispatcher.policing import asked_plugins
from tests.dispatcher.policing.asked_plugins import guardrail

PLUGINS = "tests.dispatcher.policing.asked_plugins"


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked_plugins.reset()


@pytest.fixture
async def judges() -> AsyncIterator[Judges]:
    judges = Judges(Metrics(CollectorRegistry()))
    yield judges
    asked_plugins.answering.set()
    await judges.close()


def policy(target: str, **more: Any) -> AskedPolicy:
    return AskedPolicy("asked", "http" if "://" in target else "plugin", target, **more)


def question(of: AskedPolicy, *texts: str, **more: Any) -> Question:
    texts = texts or ("some secret text",)
    return Question(**{"policy": of, "number": 1, "channel": "content", "texts": texts, **more})


# ---- plugins


@pytest.mark.parametrize(
    ("name", "text", "verdict"),
    [
        ("no_birds", "a robin", Verdict("pass")),
        ("no_birds", "a nightingale", Verdict("violation")),
        ("masks_birds", "a nightingale", Verdict("replace", ("a <BIRD>",))),
        ("instance", "any", Verdict("pass")),
    ],
)
async def test_what_a_plugin_says(judges: Judges, name: str, text: str, verdict: Verdict) -> None:
    assert await judges.ask(question(policy(f"{PLUGINS}:{name}"), text)) == verdict


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("waits", "no answer within 0.05 seconds"),
        ("swallows_cancellation", "no answer within 0.05 seconds"),
        ("raises", "RuntimeError"),
        ("cancels_itself", "it cancelled itself"),
        ("exits", "RuntimeError"),
        ("nonsense", "it answered with dict, neither True nor False nor a text"),
        ("forgets_to_return", "it answered with NoneType, neither True nor False nor a text"),
    ],
)
async def test_a_broken_plugin_is_not_available_and_quotes_nothing(judges: Judges, name: str, why: str) -> None:
    with capture_logs() as captured:
        seconds = 0.05 if why.startswith("no answer") else 30
        verdict = await judges.ask(question(policy(f"{PLUGINS}:{name}", timeout_seconds=seconds)))
    assert verdict == Verdict("unavailable", why=why)
    said = [entry for entry in captured if entry["event"] == "policy_unavailable"]
    assert [(entry["policy"], entry["why"]) for entry in said] == [("asked", why)]
    assert "secret" not in repr(said)


def policy_failures(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """As they stand in the log."""
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return [line for line in lines if line["event"] == "policy_failed"]


@pytest.mark.parametrize("text", [False, True])
async def test_an_author_sees_what_their_plugin_raised(
    judges: Judges, capsys: pytest.CaptureFixture[str], text: bool
) -> None:
    logs.configure(json=True, exception_text=text)
    asking = question(policy(f"{PLUGINS}:raises"), session_id="s1", channel="arguments", call_id="c" * 200)
    await judges.ask(asking)
    (failed,) = policy_failures(capsys)
    assert (failed["policy"], failed["session_id"], failed["call_id"]) == ("asked", "s1", "c" * 100)
    assert (failed["level"], failed["exception"]) == ("warning", "RuntimeError")
    assert "asked_plugins.py" in failed["traceback"]
    assert "in raises" in failed["traceback"]
    assert ("some secret text" in failed["traceback"]) == text


async def test_what_a_plugin_raises_after_its_time_is_seen_too(
    judges: Judges, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(json=True)
    await judges.ask(question(policy(f"{PLUGINS}:raises_when_cancelled", timeout_seconds=0.01)))
    async with asyncio.timeout(30):
        while not (late := policy_failures(capsys)):  # noqa: ASYNC110 - the loop's next turns
            await asyncio.sleep(0)
    assert "in raises_when_cancelled" in late[0]["traceback"]


async def test_a_slow_plugin_delays_no_other(judges: Judges) -> None:
    slow = asyncio.create_task(judges.ask(question(policy(f"{PLUGINS}:waits", timeout_seconds=30))))
    await asked_plugins.asking.wait()
    assert await judges.ask(question(policy(f"{PLUGINS}:no_birds"))) == Verdict("pass")
    asked_plugins.answering.set()
    assert await slow == Verdict("pass")


@pytest.mark.parametrize("name", ["not_async", "number", "missing", "Approving"])
def test_what_is_no_async_callable_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        plugin(f"{PLUGINS}:{name}")


# ---- guardrails


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"action": "NONE"}, Verdict("pass")),
        ({"action": "BLOCKED", "blocked_reason": "secret"}, Verdict("violation")),
        ({"action": "GUARDRAIL_INTERVENED", "texts": ["a", "c"], "images": None}, Verdict("replace", ("a", "c"))),
        ({"action": "GUARDRAIL_INTERVENED"}, Verdict("pass")),
        ({"action": "GUARDRAIL_INTERVENED", "texts": ["a"]}, "its answer has another number of texts"),
        ({"action": "ALLOW"}, "its answer has an unknown action"),
        ({"actions": "NONE"}, "its answer is not of the Generic Guardrail API"),
        ({"action": "NONE", "texts": "a"}, "its answer is not of the Generic Guardrail API"),
        (["NONE"], "its answer is not of the Generic Guardrail API"),
        (web.Response(text="NONE"), "its answer is not of the Generic Guardrail API"),
        (web.Response(status=500, text="secret"), "HTTP 500"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1/"}), "HTTP 302"),
        (web.Response(body=b" " * (5 * 1024 * 1024)), "its answer is too large"),
    ],
)
async def test_what_a_guardrail_says(judges: Judges, answer: Any, verdict: Verdict | str) -> None:
    expected = verdict if isinstance(verdict, Verdict) else Verdict("unavailable", why=verdict)
    given = answer if isinstance(answer, web.Response) else web.json_response(answer)
    async with guardrail(lambda body: given) as (url, _):
        assert await judges.ask(question(policy(url), "a", "b")) == expected


async def test_what_a_guardrail_is_asked(judges: Judges) -> None:
    async with guardrail(lambda body: web.json_response({"action": "NONE"})) as (url, requests):
        asking = policy(url, headers=(("x-api-key", "k"),), parameters_json='{"threshold": 0.5}')
        for channel in ("content", "thoughts", "arguments", "prompt", "results"):
            await judges.ask(question(asking, "a", "b", channel=channel, session_id="s1"))
    headers, body = requests[0]
    assert (headers["x-api-key"], headers["content-type"]) == ("k", "application/json")
    assert body == {
        "texts": ["a", "b"],
        "request_data": {},
        "input_type": "response",
        "litellm_call_id": "s1",
        "litellm_trace_id": "s1",
        "additional_provider_specific_params": {"threshold": 0.5},
    }
    assert [body["input_type"] for _, body in requests] == ["response"] * 3 + ["request"] * 2


@pytest.mark.parametrize(
    ("images", "verdict"),
    [(["data:x", "https://y"], Verdict("replace", ("b",))), (["data:x"], Verdict("violation"))],
)
async def test_a_guardrail_gets_images_and_changes_none(judges: Judges, images: list[str], verdict: Verdict) -> None:
    answer = {"action": "GUARDRAIL_INTERVENED", "texts": ["b"], "images": images}
    async with guardrail(lambda body: web.json_response(answer)) as (url, requests):
        asked = question(policy(url), "a", channel="prompt", images=("data:x", "https://y"))
        assert await judges.ask(asked) == verdict
    assert requests[0][1]["images"] == ["data:x", "https://y"]


async def test_a_guardrail_that_is_not_there(judges: Judges) -> None:
    async with guardrail(lambda body: web.json_response({"action": "NONE"})) as (url, _):
        pass
    assert await judges.ask(question(policy(url))) == Verdict("unavailable", why="ConnectError")
