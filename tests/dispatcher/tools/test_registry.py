import asyncio
import contextlib
import functools
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
import structlog
from pydantic import BaseModel, Field, WithJsonSchema, model_serializer

from dispatcher.tools import running_on
from dispatcher.tools.breaker import FAILURES
from dispatcher.tools.context import Context
from dispatcher.tools.errors import (
    InvalidArgumentsError,
    ResultTooLargeError,
    ServiceError,
    ToolError,
    UnknownOutcomeError,
    UnreachableError,
)
from dispatcher.tools.local import LocalTool, Threads, UnusableFunctionError
from dispatcher.tools.ports import UNKNOWN_TIMEOUT, Spec
from dispatcher.tools.registry import (
    NOBODYS,
    UNKNOWN_OUTCOME,
    ApprovalRequest,
    Registry,
    ToolOutput,
    UnusableSchemaError,
    error_json,
)
from tests.dispatcher.tools.fakes import FakeTool, spec

MAIN_THREAD = threading.get_ident()


class Place(BaseModel):
    city: str
    country: str | None = None


def search(q: Annotated[str, Field(description="What to look for")], limit: int = 3) -> dict[str, object]:
    """Search the web.

    Returns hits, the best first.
    """
    return {"q": q, "limit": limit, "in_thread": threading.get_ident() != MAIN_THREAD}


async def visit(place: Place, times: tuple[int, ...] = ()) -> list[object]:
    """Go there."""
    await asyncio.sleep(0)
    return [place, times]


def registry_of(
    *functions: Callable[..., Any],
    timeout: float = 5,
    threads: Threads | None = None,
    **told: Any,
) -> Registry:
    threads = threads or Threads()
    tools = [LocalTool(Spec(each.__name__, "", {}, timeout_seconds=timeout), each, threads) for each in functions]
    return Registry(tools, **told)


def code_of(answer: ToolOutput) -> tuple[str, str, str]:
    error = json.loads(answer.result_json)["error"]
    return answer.status, error["code"], error["message"]


def test_description_and_schema_come_from_the_function() -> None:
    [tool] = registry_of(search).offered("")
    assert tool.name == "search"
    assert tool.description == "Search the web.\n\nReturns hits, the best first."
    assert json.loads(tool.parameters_json_schema) == {
        "type": "object",
        "properties": {
            "q": {"type": "string", "description": "What to look for"},
            "limit": {"type": "integer"},
        },
        "required": ["q"],
        "additionalProperties": False,
    }


async def test_a_sync_function_runs_in_a_thread() -> None:
    answer = await registry_of(search).run("search", '{"q": "é"}')
    assert answer == ToolOutput("OK", '{"q":"é","limit":3,"in_thread":true}')


async def test_an_async_function_gets_its_types_and_gives_models_back() -> None:
    answer = await registry_of(visit).run("visit", '{"place": {"city": "Rome"}, "times": [1, 2]}')
    assert answer == ToolOutput("OK", '[{"city":"Rome","country":null},[1,2]]')


async def test_a_coroutine_behind_a_decorator_runs_in_the_loop() -> None:
    @functools.wraps(visit)
    def decorated(**arguments: Any) -> Any:
        return visit(**arguments)

    answer = await registry_of(decorated).run("visit", '{"place": {"city": "Rome"}}')
    assert answer.status == "OK"


async def test_a_tool_that_takes_nothing() -> None:
    def ping() -> None:
        """Ping."""

    registry = registry_of(ping)
    assert await registry.run("ping", "{}") == ToolOutput("OK", "null")
    assert await registry.run("ping", "") == ToolOutput("OK", "null"), "no arguments are {} (protos/agent.proto)"
    assert (await registry.run("ping", '{"a": 1}')).status == "INVALID_ARGUMENTS"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("not JSON", "The arguments are no JSON that can be used: Expecting value at line 1, column 1."),
        (
            '{"q": ' + "[" * 70,
            "The arguments are no JSON that can be used: nested deeper than 64, at line 1, column 70.",
        ),
        ('{"q": "' + "x" * 65536 + '"}', "The arguments are no JSON that can be used: 65545 bytes, more than 65536."),
        ("[]", 'The arguments do not fit the tool\'s schema: [] is not of type "object".'),
        ("{}", 'The arguments do not fit the tool\'s schema: "q" is a required property.'),
        ('{"q": 1}', 'The arguments do not fit the tool\'s schema: /q: 1 is not of type "string".'),
        (
            '{"q": "", "limit": "3"}',
            'The arguments do not fit the tool\'s schema: /limit: "3" is not of type "integer".',
        ),
        (
            '{"q": "", "x": 1}',
            "The arguments do not fit the tool's schema: Additional properties are not allowed ('x' was unexpected).",
        ),
    ],
)
async def test_wrong_arguments_run_nothing(arguments: str, reason: str) -> None:
    ran: list[str] = []

    def search(q: str, limit: int = 3) -> None:
        ran.append(q)

    answer = await registry_of(search).run("search", arguments)
    assert code_of(answer) == ("INVALID_ARGUMENTS", "invalid_arguments", reason)
    assert not ran


async def test_what_the_schema_cannot_say_is_checked_too() -> None:
    import datetime

    def on(day: datetime.date) -> str:
        return day.isoformat()

    registry = registry_of(on)
    assert await registry.run("on", '{"day": "2026-01-02"}') == ToolOutput("OK", '"2026-01-02"')
    status, _, reason = code_of(await registry.run("on", '{"day": "tomorrow"}'))
    assert status == "INVALID_ARGUMENTS"
    assert reason.startswith("at /day: Input should be a valid date")


async def test_a_huge_wrong_value_is_not_repeated_whole() -> None:
    answer = await registry_of(search).run("search", json.dumps({"q": "x", "limit": "y" * 60000}))
    assert answer.status == "INVALID_ARGUMENTS"
    assert len(answer.result_json) < 1000


async def test_an_unknown_tool() -> None:
    registry = registry_of(search)
    assert code_of(await registry.run("nope", "{}"))[:2] == ("UNKNOWN_TOOL", "unknown_tool")
    assert registry.knows("search")
    assert not registry.knows("nope")
    assert registry.timeout("search") == 5
    assert registry.timeout("nope") == UNKNOWN_TIMEOUT


async def test_a_tools_own_words_reach_the_agent() -> None:
    async def fail() -> None:
        raise ToolError("no such \ud800 city")

    answer = await registry_of(fail).run("fail", "{}")
    assert code_of(answer) == ("TOOL_ERROR", "tool_error", "no such \ufffd city")


class Wordless(ToolError):
    def __str__(self) -> str:
        raise ValueError("canary")


async def test_own_words_that_cannot_be_had() -> None:
    async def fail() -> None:
        raise Wordless

    answer = await registry_of(fail).run("fail", "{}")
    assert code_of(answer) == ("TOOL_ERROR", "tool_error", "Wordless")


async def raises_async(q: str) -> None:
    raise ValueError(f"secret {q}")


def raises(q: str) -> None:
    raise ValueError(f"secret {q}")


def raises_timeout(q: str) -> None:
    raise TimeoutError("its own")


def exits(q: str) -> None:
    raise SystemExit(3)


async def exits_async(q: str) -> None:
    raise SystemExit(3)


class OwnEnd(BaseException):
    """As some frameworks have for what must not be caught."""


def ends(q: str) -> None:
    raise OwnEnd(q)


async def ends_async(q: str) -> None:
    raise OwnEnd(q)


async def ends_in_a_group(q: str) -> None:
    raise BaseExceptionGroup("several", [OwnEnd(q)])


async def generator_exit(q: str) -> None:
    raise GeneratorExit(q)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("canary")


async def unprintable(q: str) -> None:
    raise Unprintable


async def cancels_itself(q: str) -> None:
    raise asyncio.CancelledError


def stops(q: str) -> None:
    raise StopIteration


async def not_json(q: str) -> object:
    return {"secret": float("nan")}


def unknown_type(q: str) -> object:
    return object()


@pytest.mark.parametrize(
    "function",
    [
        raises,
        raises_async,
        raises_timeout,
        exits,
        exits_async,
        ends,
        ends_async,
        ends_in_a_group,
        generator_exit,
        unprintable,
        cancels_itself,
        stops,
        not_json,
        unknown_type,
    ],
    ids=lambda function: function.__name__,
)
async def test_faults_leak_nothing(function: Callable[..., Any]) -> None:
    with structlog.testing.capture_logs() as records:
        answer = await registry_of(function).run(function.__name__, '{"q": "canary"}')
    assert code_of(answer) == ("TOOL_ERROR", "tool_error", "The tool failed.")
    warnings = [record for record in records if record["log_level"] == "warning"]
    assert [(record["event"], record["tool"]) for record in warnings] == [("tool_failed", function.__name__)]
    assert "canary" not in str([{**record, "exc_info": ""} for record in warnings])


async def test_a_parameter_of_type_context_is_given_the_call_and_is_no_argument() -> None:
    async def note(text: str, call: Context) -> list[str]:
        return [text, call.session_id, call.call_id, call.agent, call.conversation_id]

    def other(call: Context | None = None) -> str:
        return call.call_id if call else "nobody's"

    registry = registry_of(note, other)
    schema = json.loads(registry.offered("")[0].parameters_json_schema)
    assert (list(schema["properties"]), schema["required"]) == (["text"], ["text"])
    context = Context("s1", "c1", "default", "talk")
    assert await registry.run("note", '{"text": "x"}', context) == ("OK", '["x","s1","c1","default","talk"]')
    assert await registry.run("other", "{}", context) == ("OK", '"c1"')
    assert (await registry.run("note", '{"text": "x", "call": {}}', context)).status == "INVALID_ARGUMENTS"


async def test_a_fault_is_logged_with_its_session_and_call() -> None:
    with structlog.testing.capture_logs() as records:
        await registry_of(raises).run("raises", '{"q": "canary"}', Context("s1", "c1", "default"))
    (record,) = records
    assert (record["session_id"], record["call_id"], record["traceback"]) == ("s1", "c1", True)


async def test_a_result_that_is_too_large() -> None:
    def repeat(times: int) -> str:
        return "é" * times

    registry = registry_of(repeat)
    limit = (256 * 1024 - 2) // 2
    assert (await registry.run("repeat", json.dumps({"times": limit}))).status == "OK"
    status, code, _ = code_of(await registry.run("repeat", json.dumps({"times": limit + 1})))
    assert (status, code) == ("TOOL_ERROR", "result_too_large")


class Written(BaseModel):
    """Says in which thread it was written."""

    @model_serializer
    def write(self) -> dict[str, bool]:
        return {"in_loop": threading.get_ident() == MAIN_THREAD}


async def test_a_result_is_written_outside_the_loop() -> None:
    async def one() -> Written:
        return Written()

    @functools.wraps(one)
    def other(**arguments: Any) -> Any:
        return one(**arguments)

    for function in (one, other):
        assert await registry_of(function).run("one", "{}") == ToolOutput("OK", '{"in_loop":false}')


async def test_another_kind_of_tool_is_measured_too() -> None:
    class Verbose:
        spec = Spec("verbose", "", {"type": "object"}, "http")

        async def call(self, arguments: dict[str, Any], context: Context) -> str:
            return '"' + "x" * (256 * 1024) + '"'

    assert code_of(await Registry([Verbose()]).run("verbose", "{}"))[1] == "result_too_large"


async def test_an_async_tool_beyond_its_time_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def sleep() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    answer = await registry_of(sleep, timeout=0.05).run("sleep", "{}")
    assert code_of(answer) == ("TIMEOUT", "timeout", "The tool took longer than 0.05 seconds.")
    async with asyncio.timeout(30):
        await cancelled.wait()


async def test_a_tool_that_swallows_its_cancellation_holds_nobody_up() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    registry = registry_of(stubborn, timeout=0.05)
    async with asyncio.timeout(30):
        assert (await registry.run("stubborn", "{}")).status == "TIMEOUT"
        release.set()


async def test_calls_that_run_on_are_named_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_on, "END_SECONDS", 0.01)
    monkeypatch.setattr(running_on, "MAX_RUNNING_ON", 2)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    told: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    registry = registry_of(stubborn, timeout=0.01, runs_on=lambda *each: told.put_nowait(each))
    with structlog.testing.capture_logs() as records:
        async with asyncio.timeout(30):
            for _ in range(2):
                assert (await registry.run("stubborn", "{}")).status == "TIMEOUT"
            assert [await told.get(), await told.get()] == [("stubborn", 1), ("stubborn", 2)]
            answer = await registry.run("stubborn", "{}")
            assert code_of(answer) == ("TOOL_ERROR", "tool_busy", "Too many earlier calls of the tool have not ended.")
            release.set()
            assert [await told.get(), await told.get()] == [("stubborn", 1), ("stubborn", 0)]
            assert (await registry.run("stubborn", "{}")).status == "OK"
    assert [(record["event"], record["calls"]) for record in records] == [("tool_runs_on", 1), ("tool_runs_on", 2)]


async def test_what_hangs_takes_from_its_own_tool_alone_and_is_told() -> None:
    release = threading.Event()

    def block() -> None:
        release.wait(10)

    def quick() -> int:
        return 1

    told: list[tuple[str, int]] = []
    threads = Threads(2, 2, lambda tool, threads: told.append((tool, threads)))
    registry, others = registry_of(block, timeout=0.1, threads=threads), registry_of(quick, timeout=30, threads=threads)
    with structlog.testing.capture_logs() as records:
        answers = await asyncio.gather(*(registry.run("block", "{}") for _ in range(40)))
    assert {answer.status for answer in answers} == {"TIMEOUT"}
    assert told == [("block", 1), ("block", 2)], "the others never ran"
    assert [(record["event"], record["tool"], record["threads"]) for record in records] == [
        ("tool_runs_on", "block", 1),
        ("tool_runs_on", "block", 2),
    ]
    assert await others.run("quick", "{}") == ToolOutput("OK", "1"), "only its own places are taken"
    assert (await registry.run("block", "{}")).status == "TIMEOUT"
    release.set()
    async with asyncio.timeout(30):
        while (await registry.run("block", "{}")).status != "OK":
            pass
        while told[-1] != ("block", 0):  # noqa: ASYNC110 - the other thread ends when it likes
            await asyncio.sleep(0)


async def test_a_thread_that_cannot_be_begun_costs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def quick() -> int:
        return 1

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    registry = registry_of(quick, timeout=5, threads=Threads(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        assert (await registry.run("quick", "{}")).status == "TOOL_ERROR"
    assert await registry.run("quick", "{}") == ToolOutput("OK", "1")


async def test_a_cancelled_call_cancels_its_tool() -> None:
    running, cancelled = asyncio.Event(), asyncio.Event()

    async def sleep() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    call = asyncio.create_task(registry_of(sleep).run("sleep", "{}"))
    async with asyncio.timeout(30):
        await running.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await cancelled.wait()


async def generates() -> AsyncIterator[int]:
    yield 1


class Hidden:
    pass


def no_hint(q) -> None:  # type: ignore[no-untyped-def]
    """Untyped."""


def no_schema(q: Hidden) -> None:
    """Untyped."""


def unknown_name(q: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Untyped."""


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (7, "is not a function"),
        (Place, "is not a function"),
        (generates, "is a generator; a tool returns one result"),
        (no_hint, "its parameter 'q' has no type hint"),
        (lambda *words: words, "its parameter *words cannot be given by name"),
        (no_schema, "its type hints cannot be used: Unable to generate pydantic-core schema for "),
        (unknown_name, "its type hints cannot be read: name 'Nowhere' is not defined"),
    ],
)
def test_what_cannot_be_a_tool(function: object, reason: str) -> None:
    with pytest.raises(UnusableFunctionError) as raised:
        LocalTool(Spec("x", "", {}), function, Threads())
    assert str(raised.value).startswith(reason)


def test_a_schema_fetches_nothing() -> None:
    def remote(q: Annotated[str, WithJsonSchema({"$ref": "http://127.0.0.1:9/schema.json"})]) -> None:
        """Remote."""

    with pytest.raises(UnusableSchemaError, match=r"may not refer to http://127\.0\.0\.1:9/schema"):
        registry_of(remote)


def test_an_errors_json() -> None:
    assert json.loads(error_json("code", 'a "message"')) == {"error": {"code": "code", "message": 'a "message"'}}


# ---- another service's tools


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is asked has no event
            await asyncio.sleep(0)


async def answer_of(registry: Registry, name: str = "x", context: Context = NOBODYS) -> tuple[str, str, str]:
    answer = await registry.run(name, "{}", context)
    return code_of(answer) if answer.status != "OK" else ("OK", "", answer.result_json)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServiceError("http_404", "no such city"), ("TOOL_ERROR", "http_404", "no such city")),
        (UnreachableError(), ("TOOL_ERROR", "unreachable", "The tool's service cannot be reached.")),
        (UnknownOutcomeError(), ("UNKNOWN_OUTCOME", "unknown_outcome", UNKNOWN_OUTCOME)),
        (InvalidArgumentsError("no"), ("INVALID_ARGUMENTS", "invalid_arguments", "no")),
        (ResultTooLargeError(), ("TOOL_ERROR", "result_too_large", "The result is larger than 256 KiB.")),
    ],
)
async def test_what_an_agent_learns_of_another_services_failure(
    error: Exception, expected: tuple[str, str, str]
) -> None:
    assert await answer_of(Registry([FakeTool(spec("x"), error)])) == expected


async def test_a_fault_around_another_service_is_told_without_its_words() -> None:
    registry = Registry([FakeTool(spec("x"), RuntimeError("https://host/?key=s3cret"))])
    with structlog.testing.capture_logs() as logs:
        assert await answer_of(registry) == ("TOOL_ERROR", "tool_error", "The tool failed.")
    told = [entry for entry in logs if entry["log_level"] != "debug"]
    assert [(entry["event"], entry["error"]) for entry in told] == [("tool_failed", "RuntimeError")]
    assert "s3cret" not in repr(told)


async def test_only_its_agents_see_and_call_a_tool() -> None:
    tool = FakeTool(spec("x", agents=frozenset({"support"})))
    registry = Registry([tool])
    assert [each.name for each in registry.offered("support")] == ["x"]
    assert registry.offered("sales") == ()
    assert (await answer_of(registry, context=Context(agent="sales")))[0] == "UNKNOWN_TOOL"
    assert not tool.calls
    assert (await answer_of(registry, context=Context(agent="support")))[0] == "OK"


async def test_calls_beyond_the_concurrency_wait_within_their_time() -> None:
    free = asyncio.Event()
    tool = FakeTool(spec("x", concurrency=2), free)
    running: list[int] = []
    registry = Registry([tool], lambda name, change: running.append(change))
    calls = [asyncio.create_task(answer_of(registry)) for _ in range(5)]
    await until(lambda: tool.running == 2 and sum(running) == 5)
    free.set()
    assert await asyncio.gather(*calls) == [("OK", "", "true")] * 5
    assert tool.most_running == 2
    assert sum(running) == 0
    late = FakeTool(spec("x", concurrency=1, timeout_seconds=0.05), asyncio.Event())
    registry = Registry([late])
    assert {status for status, _, _ in await asyncio.gather(*(answer_of(registry) for _ in range(3)))} == {"TIMEOUT"}
    assert len(late.calls) == 1


async def test_a_service_that_fails_again_and_again_is_left_alone() -> None:
    tool = FakeTool(spec("x"), UnreachableError())
    registry = Registry([tool])
    for _ in range(FAILURES):
        assert (await answer_of(registry))[1] == "unreachable"
    assert (await answer_of(registry))[1] == "unavailable"
    assert len(tool.calls) == FAILURES
    again = FakeTool(tool.spec)
    registry.use([again])
    assert (await answer_of(registry))[1] == "unavailable", "it is the same tool, which was made anew"
    registry.use([FakeTool(spec("x", description="another"))])
    assert (await answer_of(registry))[0] == "OK"


@pytest.mark.parametrize(
    "error",
    [ServiceError("http_404", ""), ToolError("no"), InvalidArgumentsError("no"), ValueError(), ResultTooLargeError()],
)
async def test_what_does_not_speak_against_the_service(error: Exception) -> None:
    tool = FakeTool(spec("x"), error)
    registry = Registry([tool])
    for _ in range(FAILURES + 2):
        assert (await answer_of(registry))[1] != "unavailable"
    assert len(tool.calls) == FAILURES + 2


@pytest.mark.parametrize(
    "outcome", [UnknownOutcomeError(), ServiceError("http_503", "", failing=True), asyncio.Event()]
)
async def test_what_does(outcome: Exception | asyncio.Event) -> None:
    registry = Registry([FakeTool(spec("x", timeout_seconds=0.01), outcome)])
    for _ in range(FAILURES):
        await answer_of(registry)
    assert (await answer_of(registry))[1] == "unavailable"


async def test_a_stop_says_nothing_of_the_service() -> None:
    tool = FakeTool(spec("x"), asyncio.Event())
    registry = Registry([tool])
    for number in range(1, FAILURES + 2):
        call = asyncio.create_task(registry.run("x", "{}"))
        await until(lambda: len(tool.calls) == number)  # noqa: B023
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: tool.cancelled == number)  # noqa: B023


@pytest.mark.parametrize("error", [UnreachableError(), UnknownOutcomeError()])
async def test_a_call_is_made_once_more_only_where_that_is_allowed(error: Exception) -> None:
    once = FakeTool(spec("x"), error, "true")
    assert (await answer_of(Registry([once])))[0] != "OK"
    assert len(once.calls) == 1
    twice = FakeTool(spec("x", idempotent=True), error, "true")
    call = Context("session", "call")
    with structlog.testing.capture_logs() as logs:
        assert (await answer_of(Registry([twice]), context=call))[0] == "OK"
    assert twice.calls == [call, call]
    assert [entry["event"] for entry in logs] == ["tool_tried_again"]
    still = FakeTool(spec("x", idempotent=True), error)
    assert (await answer_of(Registry([still])))[0] != "OK"
    assert len(still.calls) == 2
    answered = FakeTool(spec("x", idempotent=True), ServiceError("http_503", "", failing=True), "true")
    assert (await answer_of(Registry([answered])))[1] == "http_503"
    assert len(answered.calls) == 1


async def test_tools_that_change_while_a_call_runs() -> None:
    free = asyncio.Event()
    old, new = FakeTool(spec("x"), free), FakeTool(spec("x", description="new"), '"new"')
    registry = Registry([old])
    call = asyncio.create_task(answer_of(registry))
    await until(lambda: old.running)
    registry.use([new])
    assert (await answer_of(registry))[2] == '"new"'
    registry.use([new], down={"x"})
    assert (registry.offered(""), registry.up) == ((), {"x": False})
    assert (await answer_of(registry))[2] == '"new"', "its server may be back already"
    registry.use([])
    assert (await answer_of(registry))[0] == "UNKNOWN_TOOL"
    assert registry.knows("x"), "what was said of its calls stays as it was said"
    free.set()
    assert (await call)[2] == "true"


async def asked_about(arguments_json: str) -> ApprovalRequest | ToolOutput:
    tool = FakeTool(spec("pay", approval="operator", approval_seconds=60, agents=frozenset({"support"})))
    return await Registry([tool]).request("pay", arguments_json, "support")


@pytest.mark.parametrize(
    "arguments_json",
    ['{"b":[1e2,1.50,-0.0],"a":"\\u20ac\\n"}', ' { "a" : "€\\n", "b" : [ 100, 1.5, 0 ] } '],
)
async def test_what_has_to_be_approved_is_canonical(arguments_json: str) -> None:
    canonical = '{"a":"€\\n","b":[100,1.5,0]}'
    assert await asked_about(arguments_json) == (canonical, hashlib.sha256(canonical.encode()).hexdigest(), 60)


async def test_the_vector_of_rfc_8785() -> None:
    """Of its section 3.2.3: keys by UTF-16 code units, so that U+1F600 stands before U+FB33."""
    given = '{"\\u20ac":"Euro Sign","\\r":"Carriage Return","\\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",'
    given += (
        '"\\ud83d\\ude00":"Emoji: Grinning Face","\\u0080":"Control","\\u00f6":"Latin Small Letter O With Diaeresis"}'
    )
    request = await asked_about(given)
    assert isinstance(request, ApprovalRequest)
    assert list(json.loads(request.arguments_json)) == ["\r", "1", "\x80", "ö", "€", "😀", "\ufb33"]


@pytest.mark.parametrize(
    ("arguments_json", "reason"),
    [
        ('{"id": 9007199254740993}', "cannot be approved as they are: 9007199254740993"),
        ("[1]", "do not fit"),
        ('{"a": 1, "a": 2}', "no JSON that can be used"),
    ],
)
async def test_what_cannot_be_approved_is_not_asked_about(arguments_json: str, reason: str) -> None:
    """Two integers beyond 2**53 have one canonical form: who approves the one would approve the other."""
    answer = await asked_about(arguments_json)
    assert isinstance(answer, ToolOutput)
    assert answer.status == "INVALID_ARGUMENTS"
    assert reason in code_of(answer)[2]


async def test_a_tool_that_the_agent_does_not_have_is_not_asked_about() -> None:
    registry = Registry([FakeTool(spec("pay", approval="operator", agents=frozenset({"support"})))])
    assert [registry.approval("pay", agent) for agent in ("support", "sales")] == ["operator", ""]
    for name, agent in (("pay", "sales"), ("gone", "support")):
        answer = await registry.request(name, "{}", agent)
        assert isinstance(answer, ToolOutput)
        assert answer.status == "UNKNOWN_TOOL"
