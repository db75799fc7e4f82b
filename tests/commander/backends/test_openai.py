"""The back-end `openai` against a real HTTP server on loopback."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import pytest

from commander.agent import (
    Call,
    ClientCall,
    Finish,
    History,
    Message,
    Thought,
    Tool,
    ToolError,
    Turn,
    User,
    Yielded,
    supported,
)
from commander.backends import handed_over
from commander.backends.calls import CallDelta, CallParts, Calls, FunctionDelta
from commander.backends.errors import ProviderError
from commander.backends.openai import OpenAIAgent
from commander.backends.settings import OpenAISettings
from commander.backends.texts import TextJoiner
from commander.loading import ready
from commander.turn import from_assignment
from shared import records
from tests.commander.backends.provider import KEY, Connection, Provider, Script, serving
from tests.otlp import receiver

PROMPT = (Message("user", "hello"),)
SEARCH = Tool("search", "Searches.", {"type": "object", "properties": {"q": {"type": "string"}}})


async def answered(provider: Provider, turn: Turn | None = None, **settings: Any) -> list[Yielded]:
    agent = OpenAIAgent(provider.settings(**settings))
    try:
        return [piece async for piece in agent(turn or Turn(PROMPT))]
    finally:
        await agent.close()


def call(index: int, name: str | None, arguments: str, call_id: str | None = None) -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


# ---- traces

TRACE, CALLER = "a" * 32, "b" * 16
ASKED = Turn(PROMPT, session_id="s", conversation_id="thread", trace=f"00-{TRACE}-{CALLER}-01", tracestate="a=1")


async def finishing(connection: Connection) -> None:
    await connection.begin()
    await connection.token("word")
    await connection.end("length", 7, 2)


async def test_the_trace_goes_on_to_the_server() -> None:
    async with serving(finishing) as provider:
        await answered(provider, ASKED)
        await answered(provider)
    for name, asked in (("traceparent", ASKED.trace), ("tracestate", ASKED.tracestate)):
        assert [connection.headers.get(name) for connection in provider.connections] == [asked, None]


async def test_each_request_is_a_span_that_the_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaking(connection: Connection) -> None:
        await connection.begin()
        await connection.token("word")

    with receiver() as received:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.url)
        for script in (finishing, breaking, finishing):
            async with serving(script) as provider:
                agent = OpenAIAgent(provider.settings())
                async with ready(agent), aclosing(agent(ASKED)) as pieces:
                    with contextlib.suppress(ProviderError):
                        async for _ in pieces:
                            if len(received.spans) == 2:
                                break  # a stop
            traceparent = provider.connections[0].headers["traceparent"]
            assert traceparent == f"00-{TRACE}-{received.spans[-1].span}-01"
            assert provider.connections[0].headers["tracestate"] == "a=1"
    finished, broken, stopped = received.spans
    assert {(s.name, s.trace, s.parent, s.service) for s in received.spans} == {
        ("chat tested", TRACE, CALLER, "midsentence-commander")
    }
    asked = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "tested",
        "gen_ai.conversation.id": "thread",
    }
    ended = {"gen_ai.response.finish_reasons": ["length"], "gen_ai.usage.input_tokens": 7}
    assert finished.attributes == {**asked, **ended, "gen_ai.usage.output_tokens": 2}
    assert (broken.failed, broken.attributes) == (True, {**asked, "error.type": "ProviderError"})
    assert (stopped.failed, stopped.attributes) == (False, asked)


# ---- words


async def test_streams_words_and_counts() -> None:
    async def script(connection: Connection) -> None:
        await connection.begin()
        await connection.raw(b": a comment\n\n")
        await connection.chunk({"role": "assistant", "content": None})
        for word in ("Hel", "lo", ""):
            await connection.token(word)
        await connection.end("length", 7, 2)

    async with serving(script) as provider:
        parameters = {"temperature": 0.5, "max_tokens": 2, "unknown": 1}
        assert await answered(provider, Turn(PROMPT, parameters)) == ["Hel", "lo", Finish("length", 7, 2)]
        request = provider.connections[0]
        assert request.headers["path"] == "/v1/chat/completions"
        assert request.headers["authorization"] == f"bearer {KEY}"
        assert request.body == {
            "model": "tested",
            "messages": [{"role": "user", "content": "hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "max_tokens": 2,
        }


async def test_a_character_may_be_split_anywhere() -> None:
    data = (
        'data: {"choices":[{"delta":{"content":"gr\u00fc\u00df \U0001f30d"},"finish_reason":"stop"}]}\r\n\r\n'.encode()
    )

    async def script(connection: Connection) -> None:
        await connection.begin()
        for byte in data:
            await connection.raw(bytes([byte]))
            await asyncio.sleep(0)
        await connection.raw(b"data: [DONE]\n\n")

    async with serving(script) as provider:
        assert await answered(provider) == ["gr\u00fc\u00df \U0001f30d", Finish("stop")]


async def test_half_characters_in_json_are_joined_or_replaced() -> None:
    async def script(connection: Connection) -> None:
        await connection.begin()
        for text in ("a\ud83c", "\udf0db", "\ud83c", "c\ud83c"):
            await connection.token(text)
        await connection.end()

    async with serving(script) as provider:
        said = await answered(provider)
        assert "".join(piece for piece in said if isinstance(piece, str)) == "a\U0001f30db\ufffdc\ufffd"


def test_joiner_never_lets_a_lone_surrogate_out() -> None:
    joiner = TextJoiner()
    pieces = [joiner.add(piece) for piece in ("\udf0d", "x\ud83c", "\ud83c", "\udf0d")]
    assert [*pieces, joiner.end()] == ["\ufffd", "x", "\ufffd", "\U0001f30d", ""]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_is_thoughts(name: str) -> None:
    async def script(connection: Connection) -> None:
        await connection.begin()
        await connection.chunk({name: "Hm. "})
        await connection.chunk({name: "So."})
        await connection.token("Yes.")
        await connection.end()

    async with serving(script) as provider:
        said = await answered(provider)
    assert said[:3] == [Thought("Reasoning", "Hm. "), Thought("Reasoning", "So."), "Yes."]


# ---- stop


async def flood(connection: Connection) -> None:
    await connection.begin()
    while True:
        await connection.token("word ")
        await asyncio.sleep(0.002)


async def test_cancelling_closes_the_connection() -> None:
    async with serving(flood) as provider:
        agent = OpenAIAgent(provider.settings())
        begun = asyncio.Event()

        async def consume() -> None:
            async for _ in agent(Turn(PROMPT)):
                if provider.connections[0].tokens >= 10:
                    begun.set()

        task = asyncio.create_task(consume())
        await asyncio.wait_for(begun.wait(), 30)
        connection = provider.connections[0]
        before = connection.tokens
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert connection.tokens - before <= 1
        await asyncio.wait_for(connection.closed.wait(), 30)
        assert connection.tokens - before <= 2
        await agent.close()


async def test_closing_it_between_two_words_closes_the_connection() -> None:
    async with serving(flood) as provider:
        agent = OpenAIAgent(provider.settings())
        async with aclosing(agent(Turn(PROMPT))) as pieces:
            async for _ in pieces:
                if provider.connections[0].tokens >= 3:
                    break
            before = provider.connections[0].tokens
        await asyncio.wait_for(provider.connections[0].closed.wait(), 30)
        assert provider.connections[0].tokens - before <= 2
        await agent.close()


async def test_a_stop_before_the_first_word_closes_the_connection() -> None:
    asked = asyncio.Event()

    async def script(connection: Connection) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving(script) as provider:
        agent = OpenAIAgent(provider.settings())
        task = asyncio.create_task(anext(agent(Turn(PROMPT))))
        await asyncio.wait_for(asked.wait(), 30)
        task.cancel()
        await asyncio.wait_for(provider.connections[0].closed.wait(), 30)
        await asyncio.wait({task})
        await agent.close()


async def test_a_stop_does_not_touch_another_session() -> None:
    release = asyncio.Event()

    async def patient(connection: Connection) -> None:
        await connection.begin()
        await connection.token("a")
        await release.wait()
        await connection.token("b")
        await connection.end()

    async with serving(patient) as provider:
        agent = OpenAIAgent(provider.settings())
        first, second = agent(Turn(PROMPT)), agent(Turn(PROMPT))
        assert [await anext(first), await anext(second)] == ["a", "a"]
        await first.aclose()
        await asyncio.wait_for(provider.connections[0].closed.wait(), 30)
        release.set()
        assert [piece async for piece in second] == ["b", Finish("stop", 0, 0)]
        await agent.close()


# ---- tools


async def test_tools_run_at_once_and_their_results_go_back() -> None:
    together = asyncio.Barrier(2)

    async def tool(name: str, arguments: Mapping[str, Any]) -> Any:
        await asyncio.wait_for(together.wait(), 30)
        if arguments["q"] == "b":
            raise ToolError("TIMEOUT", "too slow")
        return {"hits": [arguments["q"]]}

    async def asks(connection: Connection) -> None:
        await connection.begin()
        await connection.token("Let me see. ")
        await connection.chunk({"tool_calls": [call(0, "search", "", "id0")]})
        await connection.chunk({"tool_calls": [call(1, "search", '{"q":', "id1")]})
        await connection.chunk({"tool_calls": [call(0, None, '{"q": "a"}'), call(1, None, '"b"}')]})
        await connection.end("tool_calls", 10, 5)

    async def answers(connection: Connection) -> None:
        await connection.begin()
        await connection.token("Found.")
        await connection.end("stop", 20, 1)

    async with serving(asks, answers) as provider:
        said = await answered(provider, Turn(PROMPT, tools=(SEARCH,), tool_caller=tool))
        assert said == ["Let me see. ", "Found.", Finish("stop", 30, 6)]
        first, second = (connection.body for connection in provider.connections)
        assert first["tools"] == [
            {
                "type": "function",
                "function": {"name": "search", "description": "Searches.", "parameters": SEARCH.parameters},
            }
        ]
        assert second["messages"][1:] == [
            {
                "role": "assistant",
                "content": "Let me see. ",
                "tool_calls": [
                    {"id": "id0", "type": "function", "function": {"name": "search", "arguments": '{"q": "a"}'}},
                    {"id": "id1", "type": "function", "function": {"name": "search", "arguments": '{"q":"b"}'}},
                ],
            },
            {"role": "tool", "tool_call_id": "id0", "content": '{"hits": ["a"]}'},
            {
                "role": "tool",
                "tool_call_id": "id1",
                "content": '{"error": {"code": "TIMEOUT", "message": "too slow"}}',
            },
        ]


@pytest.mark.parametrize("arguments", ['{"q": ', "[1]", "[" * 10_000])
async def test_arguments_that_are_no_object_go_back_to_the_model(arguments: str) -> None:
    async def asks(connection: Connection) -> None:
        await connection.begin()
        await connection.chunk({"tool_calls": [call(0, "search", arguments, "id0")]})
        await connection.end("tool_calls")

    async def answers(connection: Connection) -> None:
        await connection.begin()
        await connection.end()

    async with serving(asks, answers) as provider:
        await answered(provider, Turn(PROMPT, tools=(SEARCH,)))
        result = json.loads(provider.connections[1].body["messages"][-1]["content"])
        assert result["error"]["code"] == "INVALID_ARGUMENTS"


async def test_the_rounds_are_limited() -> None:
    async def asks(connection: Connection) -> None:
        await connection.begin()
        await connection.chunk({"tool_calls": [call(0, "search", "{}", "id")]})
        await connection.end("tool_calls")

    async def tool(name: str, arguments: Mapping[str, Any]) -> Any:
        return None

    async with serving(asks) as provider:
        with pytest.raises(ProviderError, match="after 3 rounds"):
            await answered(provider, Turn(PROMPT, tools=(SEARCH,), tool_caller=tool), max_rounds=3)
        choices = [connection.body.get("tool_choice") for connection in provider.connections]
        assert choices == [None, None, "none"]


async def test_an_answer_that_was_cut_by_its_limit_calls_nothing() -> None:
    async def asks(connection: Connection) -> None:
        await connection.begin()
        await connection.chunk({"tool_calls": [call(0, "search", '{"q', "id")]})
        await connection.end("length")

    async with serving(asks) as provider:
        assert await answered(provider, Turn(PROMPT, tools=(SEARCH,))) == [Finish("length", 0, 0)]


# ---- the client's tools

WEATHER = Tool("weather", "Tells the weather.", {"type": "object"}, client=True)
MAIL = Tool("mail", "", {"type": "object"}, client=True, strict=True)
NAMED = {"type": "function", "function": {"name": "mail"}}


def says(*calls: dict[str, Any], text: str = "", finish: str = "tool_calls") -> Script:
    """A script: the words, then the calls."""

    async def script(connection: Connection) -> None:
        await connection.begin()
        await connection.token(text)
        await connection.chunk({"tool_calls": list(calls)})
        await connection.end(finish, 1, 1)

    return script


async def test_an_answer_ends_with_the_calls_of_the_clients_tools() -> None:
    script = says(call(0, "weather", '{"city":"Oslo"}', "a"), call(1, "mail", "", "b"), text="Let me see.")
    async with serving(script) as provider:
        said = await answered(provider, Turn(PROMPT, tools=(WEATHER, MAIL)))
        calls = (ClientCall("weather", '{"city":"Oslo"}', "a"), ClientCall("mail", "{}", "b"))
        assert said == ["Let me see.", Finish("tool_calls", 1, 1, calls)]
        functions = [tool["function"] for tool in provider.connections[0].body["tools"]]
        assert [(function["name"], function.get("strict")) for function in functions] == [
            ("weather", None),
            ("mail", True),
        ]


@pytest.mark.parametrize(
    ("parameters", "own", "shown", "choice"),
    [
        ({}, True, ["search", "weather", "mail"], None),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, True, ["search", "weather", "mail"], None),
        ({"tool_choice": "none", "parallel_tool_calls": False}, True, ["search"], None),
        ({"tool_choice": "none"}, False, ["weather", "mail"], "none"),
        ({"tool_choice": "required"}, True, ["search", "weather", "mail"], "required"),
        ({"tool_choice": NAMED}, True, ["search", "mail"], NAMED),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}},
            True,
            ["search", "mail"],
            None,
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}},
            False,
            ["mail"],
            "required",
        ),
    ],
)
async def test_the_choice_is_among_the_clients_tools(
    parameters: dict[str, Any], own: bool, shown: list[str], choice: object
) -> None:
    tools = (*((SEARCH,) if own else ()), WEATHER, MAIL)
    async with serving(says(text="no", finish="stop")) as provider:
        await answered(provider, Turn(PROMPT, parameters, tools))
        body = provider.connections[0].body
    assert [tool["function"]["name"] for tool in body["tools"]] == shown
    assert body.get("tool_choice") == choice
    parallel = parameters.get("parallel_tool_calls") if parameters.get("tool_choice") != "none" else None
    assert body.get("parallel_tool_calls") == parallel


@pytest.mark.parametrize(
    "choice",
    [
        "sometimes",
        {"type": "function", "function": {"name": "search"}},
        {"type": "function", "function": {"name": ["mail"]}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": ["mail"]}},
    ],
)
async def test_a_choice_that_cannot_be_kept_is_refused(choice: object) -> None:
    async with serving(says(text="no", finish="stop")) as provider:
        with pytest.raises(ValueError, match="tool_choice"):
            await answered(provider, Turn(PROMPT, {"tool_choice": choice}, (SEARCH, MAIL)))
        assert not provider.connections


async def test_of_mixed_calls_the_dispatchers_are_run_and_the_model_calls_the_clients_again() -> None:
    ran = []

    async def tool(name: str, arguments: Mapping[str, Any]) -> Any:
        ran.append((name, arguments))
        return "found"

    scripts = (
        says(call(0, "search", '{"q":"a"}', "s"), call(1, "weather", "{}", "w")),
        says(call(0, "weather", "{}", "w2")),
    )
    async with serving(*scripts) as provider:
        said = await answered(provider, Turn(PROMPT, tools=(SEARCH, WEATHER), tool_caller=tool))
        assert said == [Finish("tool_calls", 2, 2, (ClientCall("weather", "{}", "w2"),))]
        results = {
            message["tool_call_id"]: message["content"] for message in provider.connections[1].body["messages"][2:]
        }
    assert ran == [("search", {"q": "a"})]
    assert results["s"] == '"found"'
    assert json.loads(results["w"])["error"]["code"] == "NOT_CALLED"


async def test_in_the_last_round_only_the_clients_tools_are_offered() -> None:
    async def tool(name: str, arguments: Mapping[str, Any]) -> Any:
        return None

    both = says(call(0, "search", "{}", "s"), call(1, "weather", "{}", "w"))
    async with serving(both) as provider:
        turn = Turn(PROMPT, {"tool_choice": "required"}, (SEARCH, WEATHER), tool_caller=tool)
        said = await answered(provider, turn, max_rounds=2)
        assert said == [Finish("tool_calls", 2, 2, (ClientCall("weather", "{}", "w"),))]
        shown = [[tool["function"]["name"] for tool in each.body["tools"]] for each in provider.connections]
    assert shown == [["search", "weather"], ["weather"]]


async def test_calls_and_results_of_earlier_answers_go_on_as_they_are() -> None:
    asked = Message(
        "assistant", "Let me see.", (ClientCall("weather", '{"city": ', "a"), ClientCall("mail", "{}", "b"))
    )
    silent = Message("assistant", "", (ClientCall("weather", "{}", "a"),))
    results = (Message("tool", "sunny", tool_call_id="a"), Message("tool", "sent", tool_call_id="b", name="mail"))
    stray = Message("tool", "of a peer that names no call")
    async with serving(says(text="yes", finish="stop")) as provider:
        await answered(provider, Turn((*PROMPT, asked, *results, silent, results[0], stray), tools=(WEATHER, MAIL)))
        messages = provider.connections[0].body["messages"][1:]

    def written(name: str, arguments: str, call_id: str) -> dict[str, Any]:
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    sunny = {"role": "tool", "tool_call_id": "a", "content": "sunny"}
    assert messages == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [written("weather", '{"city": ', "a"), written("mail", "{}", "b")],
        },
        sunny,
        {"role": "tool", "tool_call_id": "b", "content": "sent", "name": "mail"},
        {"role": "assistant", "content": None, "tool_calls": [written("weather", "{}", "a")]},
        sunny,
        {"role": "user", "content": stray.content},
    ]


async def test_the_form_of_the_answer_goes_on_as_it_is() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    async with serving(says(text="{}", finish="stop")) as provider:
        assert await answered(provider, Turn(PROMPT, {"response_format": form})) == ["{}", Finish("stop", 1, 1)]
        assert provider.connections[0].body["response_format"] == form


async def test_parts_of_a_message_go_on_as_they_are() -> None:
    assignment = records.Assignment("s", 1, "a", (records.Message("user", "see", parts_json=json.dumps(PARTS)),))
    async with serving(says(text="a cat", finish="stop")) as provider:
        turn = from_assignment(assignment, Turn(()).tool_caller)
        assert await answered(provider, turn) == ["a cat", Finish("stop", 1, 1)]
        (message,) = provider.connections[0].body["messages"]
    assert message == {"role": "user", "content": PARTS}


PARTS = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://192.168.0.1/cat.png"}}]


def test_it_honours_what_its_server_does() -> None:
    usual = ("tools", "structured", "images", "files", "sampling", "reasoning")
    assert supported(OpenAIAgent(OpenAISettings())) == usual
    for refused in ("tools", "structured", "images", "files", "reasoning"):
        without = tuple(feature for feature in usual if feature != refused)
        assert supported(OpenAIAgent(OpenAISettings.model_validate({refused: False}))) == without


# ---- how calls are put together


def test_calls_without_an_index_are_told_apart_by_id() -> None:
    calls = Calls()
    for call_id, name, arguments in (("a", "x", "{"), (None, None, "}"), ("b", "y", "{}")):
        calls.add(CallDelta(id=call_id, function=FunctionDelta(name, arguments)))
    assert [(call.call_id, call.name, call.arguments) for call in calls] == [("a", "x", "{}"), ("b", "y", "{}")]


@pytest.mark.parametrize(
    "deltas", [[CallDelta(i) for i in range(65)], [CallDelta(0, None, FunctionDelta("x" * 65537))]]
)
def test_calls_are_bounded(deltas: list[CallDelta]) -> None:
    calls = Calls()
    for delta in deltas[:-1]:
        calls.add(delta)
    with pytest.raises(ProviderError, match="more than"):
        calls.add(deltas[-1])


# ---- continuing


async def test_continues_where_the_server_can() -> None:
    async def script(connection: Connection) -> None:
        await connection.begin()
        await connection.token(" a time.")
        await connection.end()

    history = History("Once upon", (Call("id", "search", {"q": 1}, "OK", {"hits": []}),))
    async with serving(script) as provider:
        assert (await answered(provider, Turn(PROMPT, history=history), continues=True))[0] == " a time."
        body = provider.connections[0].body
        assert body["continue_final_message"] is True
        assert body["add_generation_prompt"] is False
        assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "assistant"]
        assert body["messages"][-1]["content"] == "Once upon"


def test_continues_only_where_that_is_set() -> None:
    assert OpenAIAgent(OpenAISettings(model="m")).continues is False
    assert OpenAIAgent(OpenAISettings(model="m", continues=True)).continues is True


# ---- failures


async def test_an_error_status_is_named_and_the_key_is_not() -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()

    async def script(connection: Connection) -> None:
        await connection.begin("401 Unauthorized", "application/json", str(len(body)))
        await connection.raw(body)

    async with serving(script) as provider:
        with pytest.raises(ProviderError, match="status 401") as failure:
            await answered(provider)
    assert KEY not in str(failure.value)
    assert "Incorrect API key" in str(failure.value)


async def test_an_endless_error_is_not_read_to_its_end() -> None:
    async def script(connection: Connection) -> None:
        await connection.begin("500 Internal Server Error", "text/html")
        while True:
            await connection.raw(b"x" * 4096)

    async with serving(script) as provider:
        with pytest.raises(ProviderError, match="status 500") as failure:
            await answered(provider)
    assert len(str(failure.value)) <= 300


@pytest.mark.parametrize(
    ("last", "text"),
    [
        (b"", "before the answer was finished"),
        (b'data: {"choices', "before the answer was finished"),
        (b'data: {"error": {"message": "overloaded", "code": 529}}\n\n', "overloaded"),
        (b"data: {oops}\n\n", "cannot be read"),
        (b'data: {"choices": 7}\n\n', "cannot be read"),
        (b"data: " + b"x" * 2_000_000, "limit"),
    ],
)
async def test_a_stream_that_breaks_is_an_error(last: bytes, text: str) -> None:
    async def script(connection: Connection) -> None:
        await connection.begin()
        await connection.token("half a ")
        await connection.raw(last)

    async with serving(script) as provider:
        with pytest.raises(ProviderError, match=text):
            await answered(provider)


async def test_a_body_that_is_cut_is_an_error() -> None:
    async def script(connection: Connection) -> None:
        await connection.begin(length="1000")
        await connection.token("half a ")

    async with serving(script) as provider:
        with pytest.raises(ProviderError, match="RemoteProtocolError"):
            await answered(provider)


async def test_silence_is_an_error() -> None:
    async def script(connection: Connection) -> None:
        await connection.begin()
        await connection.token("a")
        await asyncio.Event().wait()

    async with serving(script) as provider:
        with pytest.raises(ProviderError, match="ReadTimeout"):
            await answered(provider, silence_seconds=0.05)
        await asyncio.wait_for(provider.connections[0].closed.wait(), 30)


async def test_no_server_is_an_error() -> None:
    async with serving(flood) as provider:
        pass
    with pytest.raises(ProviderError, match="ConnectError"):
        await answered(provider)


async def test_an_answer_that_is_no_stream_is_an_error() -> None:
    async def script(connection: Connection) -> None:
        await connection.begin(content_type="text/html", length="2")
        await connection.raw(b"hi")

    async with serving(script) as provider:
        with pytest.raises(ProviderError, match="text/event-stream"):
            await answered(provider)


async def test_without_a_name_the_first_model_that_the_server_lists_is_asked() -> None:
    async def models(connection: Connection) -> None:
        await connection.begin(content_type="application/json")
        await connection.raw(b'{"object": "list", "data": [{"id": "first"}, {"id": "second"}]}')

    async def script(connection: Connection) -> None:
        await connection.begin()
        await connection.token("x")
        await connection.end()

    async with serving(models, script) as provider:
        agent = OpenAIAgent(provider.settings(model=""))
        for _ in range(2):
            assert "x" in [piece async for piece in agent(Turn(PROMPT))]
        await agent.close()
    assert [connection.headers["path"] for connection in provider.connections] == [
        "/v1/models",
        "/v1/chat/completions",
        "/v1/chat/completions",
    ]
    assert [connection.body["model"] for connection in provider.connections[1:]] == ["first", "first"]


@pytest.mark.parametrize("listed", [b'{"data": []}', b"nonsense", b'{"data": 3}'])
async def test_a_server_that_lists_no_model_is_a_clear_error(listed: bytes) -> None:
    async def models(connection: Connection) -> None:
        await connection.begin(content_type="application/json")
        await connection.raw(listed)

    async with serving(models) as provider:
        with pytest.raises(ProviderError, match="model"):
            await answered(provider, model="")


async def test_what_the_provider_wants_back_with_a_clients_call_is_kept_for_who_asked() -> None:
    """It does not go by the client, to whom reasoning is not shown."""
    signed = call(0, "weather", '{"city": "Oslo", "days": 1}', "a") | {
        "extra_content": {"google": {"signature": "c2ln"}}
    }

    async def reasoning(connection: Connection) -> None:
        await connection.begin()
        await connection.chunk({"reasoning_content": "hm", "tool_calls": [signed]})
        await connection.end("tool_calls", 1, 1)

    async with serving(reasoning, says(text="It rains.", finish="stop")) as provider:
        agent = OpenAIAgent(provider.settings())
        asking, other = User("ann", "acme"), User("bob", "acme")
        said = [piece async for piece in agent(Turn(PROMPT, tools=(WEATHER,), user=asking))]
        assert said == [
            Thought("Reasoning", "hm"),
            Finish("tool_calls", 1, 1, (ClientCall("weather", '{"city": "Oslo", "days": 1}', "a"),)),
        ]
        for arguments, user in (('{"days":1,"city":"Oslo"}', asking), ('{"city": "Bergen"}', asking), ("{}", other)):
            back = (ClientCall("weather", arguments, "a"),)
            messages = (*PROMPT, Message("assistant", "", back), Message("tool", "rain", (), "a"))
            told = [piece async for piece in agent(Turn(messages, tools=(WEATHER,), user=user))]
            assert told == ["It rains.", Finish("stop", 1, 1)]
        await agent.close()
        given, *without = [connection.body["messages"][1] for connection in provider.connections[1:]]
    assert given["reasoning_content"] == "hm"
    assert given["tool_calls"][0]["extra_content"] == {"google": {"signature": "c2ln"}}
    assert given["tool_calls"][0]["function"]["arguments"] == '{"days":1,"city":"Oslo"}'
    for message in without:
        assert "reasoning_content" not in message
        assert "extra_content" not in message["tool_calls"][0]


def test_what_is_kept_of_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handed_over, "MAX_KEPT", 2)
    monkeypatch.setattr(handed_over, "MAX_KEPT_CHARACTERS", 100)

    def parts(call_id: str, signature: str) -> CallParts:
        made = CallParts(call_id, 0, call_id)
        made.add(CallDelta(0, call_id, FunctionDelta("f", "{}"), {"s": signature}))
        return made

    def known(call_id: str) -> bool:
        asked = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        (message,) = kept.put_back(None, [{"role": "assistant", "tool_calls": [asked]}])
        return "extra_content" in message["tool_calls"][0]

    kept = handed_over.HandedOver()
    for call_id in "abcb":
        kept.keep(None, [parts(call_id, "x")], {})
    assert [known(call_id) for call_id in "abc"] == [False, True, True]
    kept.keep(None, [parts("d", "x" * 80)], {})
    assert [known(call_id) for call_id in "bcd"] == [False, False, True]
    kept.keep(None, [parts("e", "x" * 200)], {})
    assert not known("e")
