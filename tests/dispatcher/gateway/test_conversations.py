"""Responses that go on from others, items that are referred to or listed, and responses that are not kept."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from weakref import ref

import openai
import pytest
from msgspec.structs import replace

from dispatcher.access.rules import Caller
from dispatcher.core.log import Head, Record, Request
from dispatcher.gateway import conversations
from dispatcher.settings import DispatcherSettings
from shared.records import ClientCall, Message
from tests.dispatcher.gateway.fakes import Commander, FakeSessions, eventually

TOOLS: list[Any] = [{"type": "function", "name": "mine", "parameters": {"type": "object"}, "strict": False}]
CALL = ClientCall("call-1", "mine", "{}")


@pytest.fixture
async def client(url: str, sessions: FakeSessions) -> AsyncIterator[openai.AsyncOpenAI]:
    sessions.honoured = frozenset({"tools", "sampling"})
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


async def ask(
    client: openai.AsyncOpenAI, sessions: FakeSessions, *says: str, call: ClientCall | None = None, **fields: Any
) -> tuple[Any, Request]:
    """The response, and what its agent was asked."""
    asking = asyncio.create_task(client.responses.create(**{"model": "default", "input": "hi", **fields}))
    created = asyncio.create_task(sessions.created.get())
    await asyncio.wait([asking, created], return_when=asyncio.FIRST_COMPLETED)
    if not created.done():
        created.cancel()
        return await asking, Request("", (), 0.0)
    commander = await sessions.begin(created.result())
    record = await sessions.store.load(commander.session_id)
    assert record
    await commander.hold("never let out")
    await commander.say(*says)
    await (commander.hand_over(call) if call else commander.finish())
    return await asking, record.request


async def test_a_chain_has_what_was_asked_and_what_the_user_saw(
    client: openai.AsyncOpenAI, sessions: FakeSessions
) -> None:
    first, _ = await ask(client, sessions, "one ", "two", input="first", instructions="be brief")
    second, asked = await ask(client, sessions, "three", input="second", previous_response_id=first.id)
    before = (Message("user", "first"), Message("assistant", "one two"))
    assert asked.messages == (*before, Message("user", "second"))
    assert (second.previous_response_id, second.instructions) == (first.id, None)
    asking: dict[str, Any] = {"input": [{"role": "user", "content": "x"}], "instructions": "be kind"}
    _, asked = await ask(client, sessions, previous_response_id=second.id, **asking)
    more = (Message("user", "second"), Message("assistant", "three"), Message("user", "x"))
    assert asked.messages == (Message("system", "be kind"), *before, *more)
    _, asked = await ask(client, sessions, input="branch", previous_response_id=first.id)
    assert asked.messages == (*before, Message("user", "branch"))


async def test_a_result_goes_on_from_its_call(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    first, _ = await ask(client, sessions, "I look.", call=CALL, tools=TOOLS)
    output = {"type": "function_call_output", "call_id": "call-1", "output": "rain"}
    second, asked = await ask(client, sessions, "It rains.", input=[output], previous_response_id=first.id)
    answered = (Message("user", "hi"), Message("assistant", "I look.", (CALL,)), Message("tool", "rain", (), "call-1"))
    assert asked.messages == answered
    assert asked.needs == ("tools",)
    with pytest.raises(openai.BadRequestError) as raised:
        await ask(client, sessions, input=[output], previous_response_id=second.id)
    assert (raised.value.code, raised.value.param) == ("invalid_value", "input[0]")
    sessions.honoured = frozenset()
    with pytest.raises(openai.BadRequestError) as raised:
        await ask(client, sessions, previous_response_id=second.id)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "previous_response_id")


async def test_what_cannot_be_gone_on_from_is_named(
    client: openai.AsyncOpenAI, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, asked = await ask(client, sessions, "one")
    await sessions.store.create(Record("theirs", replace(asked, tenant="other"), Head()))
    for gone in ("resp_theirs", "resp_nothing", first.id.removeprefix("resp_"), ""):
        with pytest.raises(openai.NotFoundError) as missing:
            await ask(client, sessions, previous_response_id=gone)
        assert (missing.value.code, missing.value.param) == ("previous_response_not_found", "previous_response_id")
    running = await sessions.begin()
    with pytest.raises(openai.ConflictError) as raised:
        await ask(client, sessions, previous_response_id=f"resp_{running.session_id}")
    assert (raised.value.code, raised.value.param) == ("response_not_ended", "previous_response_id")
    second, _ = await ask(client, sessions, "two", previous_response_id=first.id)
    for bound, value in (("MAX_LINKS", 1), ("MAX_EARLIER_BYTES", 10)):
        with monkeypatch.context() as patch:
            patch.setattr(conversations, bound, value)
            with pytest.raises(openai.BadRequestError) as long:
                await ask(client, sessions, previous_response_id=second.id)
        assert (long.value.code, long.value.param) == ("context_length_exceeded", "previous_response_id")


async def test_items_that_are_referred_to(
    client: openai.AsyncOpenAI, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = await ask(client, sessions, "I look.", call=CALL, tools=TOOLS)
    (listed,) = [item async for item in client.responses.input_items.list(first.id)]
    given: list[Any] = [{"type": "item_reference", "id": item.id} for item in (listed, *first.output)]
    given.append({"type": "function_call_output", "call_id": "call-1", "output": "rain"})
    _, asked = await ask(client, sessions, input=given)
    answered = (Message("user", "hi"), Message("assistant", "I look.", (CALL,)), Message("tool", "rain", (), "call-1"))
    assert asked.messages == answered
    for gone in ("msg_nothing", f"fc_1_{first.id}", f"fc_7_{first.id.removeprefix('resp_')}", "x", ""):
        with pytest.raises(openai.NotFoundError) as missing:
            await ask(client, sessions, input=[{"type": "item_reference", "id": gone}])
        assert (missing.value.code, missing.value.param) == ("item_not_found", "input[0]")
    running = await sessions.begin()
    with pytest.raises(openai.ConflictError):
        await ask(client, sessions, input=[{"type": "item_reference", "id": f"msg_{running.session_id}"}])
    monkeypatch.setattr(conversations, "MAX_REFERENCED", 0)
    with pytest.raises(openai.BadRequestError) as many:
        await ask(client, sessions, input=given)
    assert (many.value.code, many.value.param) == ("invalid_value", "input[0]")


def seen(size: int) -> list[Any]:
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "AAAA" * (size // 4)}
    return [{"role": "user", "content": [image]}]


async def test_an_image_is_no_text_of_a_chain(
    client: openai.AsyncOpenAI, sessions: FakeSessions, settings: DispatcherSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But an agent gets little more than with a body of the largest size."""
    sessions.honoured = frozenset({"images"})
    monkeypatch.setattr(conversations, "MAX_EARLIER_BYTES", 1000)
    large = settings.max_body_bytes * 2 // 3
    first, asked = await ask(client, sessions, "a cat", input=seen(large))
    _, again = await ask(client, sessions, "a dog", previous_response_id=first.id)
    assert again.messages[0] == asked.messages[0]
    with pytest.raises(openai.BadRequestError) as raised:
        await ask(client, sessions, previous_response_id=first.id, input=seen(large))
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "previous_response_id")


async def test_what_is_referred_to_again_and_again_is_bounded(
    client: openai.AsyncOpenAI, sessions: FakeSessions, settings: DispatcherSettings
) -> None:
    first, _ = await ask(client, sessions, "ok", input="long " * 10_000)
    (listed,) = [item async for item in client.responses.input_items.list(first.id)]
    reference: Any = {"type": "item_reference", "id": listed.id}
    _, asked = await ask(client, sessions, input=[reference] * 2)
    assert len(asked.messages) == 2
    most = settings.max_body_bytes + conversations.MAX_EARLIER_BYTES
    with pytest.raises(openai.BadRequestError) as raised:
        await ask(client, sessions, input=[reference] * (most // 50_000 + 1))
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "input")


class Text(str):
    """One that can be seen to go."""

    __slots__ = ("__weakref__",)


async def test_of_responses_that_are_referred_to_only_those_items_are_kept(
    client: openai.AsyncOpenAI, sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may have been asked with megabytes."""
    given: list[Any] = [{"role": "user", "content": text} for text in ("long", "short")]
    answered = [(await ask(client, sessions, input=given))[0] for _ in range(4)]
    load, alive, most = sessions.store.load, list[ref[Text]](), 0

    async def anew(session_id: str) -> Record | None:
        nonlocal most
        most = max(most, sum(each() is not None for each in alive))
        record = await load(session_id)
        assert record
        long, short = record.request.messages
        text = Text(long.content)
        alive.append(ref(text))
        return replace(record, request=replace(record.request, messages=(replace(long, content=text), short)))

    with monkeypatch.context() as patch:
        patch.setattr(sessions.store, "load", anew)
        names = {f"in_1_{each.id.removeprefix('resp_')}": "input[0]" for each in answered}
        found = await conversations.referenced(sessions.store, names, Caller("user"), {})
    assert [message.content for message in found.values()] == ["short"] * 4
    assert most == 1, "that of the one before"


async def test_input_items(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    given: list[Any] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"type": "function_call", "call_id": "call-1", "name": "mine", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call-1", "output": "rain"},
        {"type": "function_call_output", "name": "goal", "output": "see Oslo"},
    ]
    first, _ = await ask(client, sessions, "c")
    second, _ = await ask(client, sessions, input=given, instructions="be brief", previous_response_id=first.id)
    in_order = [item async for item in client.responses.input_items.list(second.id, order="asc", limit=1)]
    assert [item.to_dict() | {"id": ""} for item in in_order] == [
        {
            "type": "message",
            "id": "",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}],
        },
        {
            "type": "message",
            "id": "",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}],
        },
        given[2] | {"id": "", "status": "completed"},
        *(item | {"id": "", "status": "completed"} for item in given[3:]),
    ]
    page = await client.responses.input_items.list(second.id, limit=4)
    assert [item.id for item in page.data] == [item.id for item in reversed(in_order[1:])]
    for wrong in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "x"}):
        with pytest.raises(openai.BadRequestError) as raised:
            await client.responses.input_items.list(second.id, extra_query=wrong)
        assert raised.value.param in wrong
    with pytest.raises(openai.NotFoundError):
        await client.responses.input_items.list("resp_nothing")


async def gone(client: openai.AsyncOpenAI, sessions: FakeSessions, commander: Commander) -> None:
    """No trace is left of it."""
    async with asyncio.timeout(30):
        while await sessions.store.load(commander.session_id):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(f"resp_{commander.session_id}")


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_not_to_be_stored_goes_with_its_answer(
    client: openai.AsyncOpenAI, sessions: FakeSessions, stream: bool
) -> None:
    asking = asyncio.ensure_future(client.responses.create(model="default", input="hi", store=False, stream=stream))
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("a")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(f"resp_{commander.session_id}")
    with pytest.raises(openai.NotFoundError):
        await ask(client, sessions, previous_response_id=f"resp_{commander.session_id}")
    await commander.finish()
    answer: Any = await asking
    response = [event async for event in answer][-1].response if stream else answer
    assert (response.store, response.output_text) == (False, "a")
    await gone(client, sessions, commander)


async def test_what_is_not_to_be_stored_goes_where_its_reader_does(
    client: openai.AsyncOpenAI, sessions: FakeSessions
) -> None:
    async with await client.responses.create(model="default", input="hi", store=False, stream=True):
        commander = await sessions.begin(await sessions.created.get())
    await eventually(lambda: not sessions.stops.empty())
    await gone(client, sessions, commander)


async def test_the_background_needs_a_store(client: openai.AsyncOpenAI, sessions: FakeSessions) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.responses.create(model="default", input="hi", background=True, store=False)
    assert (raised.value.code, raised.value.param) == ("invalid_value", "store")
