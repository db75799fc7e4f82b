"""What is read of chunks of any shape: extras cost no words, and nothing ends an answer but what is known to."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from commander.agent import Finish, Message, Thought, Turn
from commander.backends.calls import CallDelta, Calls, FunctionDelta
from commander.backends.client import ProviderClient
from commander.backends.completions import Chunk, chunks
from commander.backends.errors import ProviderError
from commander.backends.openai import OpenAIAgent
from commander.backends.settings import OpenAISettings

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
# with the names that are looked at, too
NAMES = ("text", "content", "thinking", "reasoning", "summary", "type", "usage", "prompt_tokens", "completion_tokens")
ODD = ANYTHING | st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4)
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks", "extra_content")
IN_DELTA = st.fixed_dictionaries(
    {}, optional=dict.fromkeys((*THOUGHTS, "role", "audio", "annotations", "tool_calls", "function_call"), ODD)
)
NO_NUMBER = ODD.filter(lambda value: type(value) is not int)  # another number is another answer's
IN_CHOICE = st.fixed_dictionaries({}, optional={"index": NO_NUMBER, "logprobs": ODD, "content_filter_results": ODD})
IN_CHUNK = st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "usage", "created", "x_groq", "provider"), ODD))


class Scripted:
    """In the place of a ProviderClient: these chunks come."""

    def __init__(self, *data: str) -> None:
        self._data = data

    async def stream(self, body: dict[str, Any], trace: Mapping[str, str]) -> AsyncGenerator[Chunk, None]:
        for data in self._data:
            for chunk in chunks(data):
                yield chunk
                if chunk.failure:
                    raise ProviderError(chunk.failure)


AGENT = OpenAIAgent(OpenAISettings(model="m"))


def said(*data: str) -> tuple[str, str, Finish]:
    """Words, thoughts and the end of a session."""
    AGENT._client = cast("ProviderClient", Scripted(*data))

    async def run() -> list[Any]:
        return [piece async for piece in AGENT(Turn((Message("user", "hi"),)))]

    *pieces, finish = asyncio.run(run())
    assert isinstance(finish, Finish)
    thoughts = "".join(piece.delta for piece in pieces if isinstance(piece, Thought))
    return "".join(piece for piece in pieces if isinstance(piece, str)), thoughts, finish


def chunk(delta: object, choice: dict[str, Any], fields: dict[str, Any], finish: object = None) -> str:
    return json.dumps(fields | {"choices": [choice | {"delta": delta, "finish_reason": finish}]})


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=8)  # no tag may come of them


@given(st.lists(st.tuples(WORDS, IN_DELTA, IN_CHOICE, IN_CHUNK), max_size=4), IN_DELTA, IN_CHUNK)
def test_extras_cost_no_words(
    parts: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]],
    last: dict[str, Any],
    fields: dict[str, Any],
) -> None:
    data = [chunk(delta | {"content": text}, choice, more) for text, delta, choice, more in parts]
    words, _, finish = said(*data, chunk(last, {}, fields, "length"))
    assert words == "".join(text for text, *_ in parts)
    assert finish.reason == "length"


@given(st.lists(ODD, max_size=4), ODD)
def test_odd_choices_and_deltas_are_passed_over(choices: list[Any], delta: Any) -> None:
    """Without words of their own, that is."""
    odd = json.dumps({"choices": choices}), json.dumps({"choices": [{"delta": delta, "message": None}]})
    for each in odd:
        for found in chunks(each):
            assert not found.failure
            assert found.ending is None


@given(ODD)
def test_whatever_stands_in_the_place_of_content_is_words_or_nothing(content: Any) -> None:
    words, thoughts, _ = said(chunk({"content": content}, {}, {}), chunk(None, {}, {}, "length"))
    if isinstance(content, str) and "<" not in content:
        assert (words, thoughts) == (content, "")


STOPS = {
    *("stop", "stopped", "stopsequence", "end", "endturn", "endofturn", "eos", "eostoken", "complete", "completed"),
    *("finished", "done", "toolcalls", "toolcall", "tooluse", "functioncall", "functioncalls"),
}


@given(
    st.text(max_size=12) | st.sampled_from(["abort", "stop!", "stop and error", "not stop", "error_stop"]) | ANYTHING
)
def test_no_reason_that_is_not_known_is_a_stop(reason: object) -> None:
    (found,) = chunks(chunk({"content": "half"}, {}, {}, reason))
    assert [piece.text for piece in found.pieces] == ["half"]
    name = reason.lower().replace("_", "").replace("-", "").replace(" ", "") if isinstance(reason, str) else ""
    if found.ending and found.ending.reason == "stop":
        assert name in STOPS
    nothing_yet = isinstance(reason, str) and name.strip() in ("", "null", "none", "notfinished")
    assert found.ending or found.failure or nothing_yet or not reason or isinstance(reason, dict)


# ---- calls


@st.composite
def honest_deltas(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[list[CallDelta]]]:
    """Calls, and deltas of them as servers that number them send: in turns, with names and ids once or each time."""
    arguments = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5), max_size=2).map(json.dumps)
    calls = draw(st.lists(st.tuples(st.sampled_from(["weather", "now"]), arguments), min_size=1, max_size=3))
    again = draw(st.booleans())
    waiting = []
    for index, (name, text) in enumerate(calls):
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        first = True
        own = []
        for piece in pieces:
            named = first or again
            own.append(CallDelta(index, f"id{index}" if named else None, FunctionDelta(name if named else None, piece)))
            first = False
        waiting.append(own)
    deltas = []
    while any(waiting):
        own = draw(st.sampled_from([each for each in waiting if each]))
        deltas.append([own.pop(0)])
    return calls, deltas


@given(honest_deltas())
def test_calls_in_turns_are_told_apart(sent: tuple[list[tuple[str, str]], list[list[CallDelta]]]) -> None:
    meant, deltas = sent
    calls = Calls()
    for each in deltas:
        calls.add(*each)
    assert sorted((call.call_id, call.name, call.arguments) for call in calls) == [
        (f"id{index}", name, text) for index, (name, text) in enumerate(meant)
    ]


IN_CALL = st.dictionaries(st.sampled_from(["index", "id", "function", "name", "arguments"]), ODD, max_size=4)


@given(st.lists(st.lists(ODD | IN_CALL, max_size=3), max_size=3))
def test_calls_of_any_shape_raise_nothing_else(entries: list[list[Any]]) -> None:
    calls = Calls()
    with contextlib.suppress(ProviderError):
        for each in entries:
            (found,) = chunks(chunk({"tool_calls": each}, {}, {}))
            calls.add(*found.calls)
        assert len({call.call_id for call in calls}) == len(list(calls))
        json.dumps([[call.name, call.arguments, call.extra_content] for call in calls]).encode()
