"""OpenAI's Responses over two Dispatchers with one log: asked for, read, resumed and cancelled at either."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import openai
import pytest

from dispatcher.gateway.server import HttpServer, bind
from shared.records import Stop, Stopped, Support
from tests.integration.dispatcher.peer import SECONDS, Peer, Unserved, World, serving, until
from tests.shared_store import SharedStore


@contextlib.asynccontextmanager
async def client_of(world: World) -> AsyncIterator[openai.AsyncOpenAI]:
    server = HttpServer(Unserved.apps[world.dispatcher.http_port], bind("TEST", "127.0.0.1:0"))
    await server.start()
    url = f"http://127.0.0.1:{server.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=SECONDS) as client:
        yield client
    await server.close()


@pytest.fixture
async def replicas() -> AsyncIterator[tuple[openai.AsyncOpenAI, openai.AsyncOpenAI, Peer]]:
    """A client of each, and a Commander of the second, which the first knows to offer `default`."""
    shared = SharedStore()
    async with (
        serving(shared=shared, stop_seconds=SECONDS) as a,
        serving(shared=shared, stop_seconds=SECONDS) as b,
        client_of(a) as at_a,
        client_of(b) as at_b,
    ):
        member = await b.join()
        await b.sessions.desk.upkeep.offer(member.agents)
        await until(lambda: len(shared.leases) == 2, "leases")
        yield at_a, at_b, member


async def text_from(stream: Any) -> tuple[str, int]:
    """The next text, and its sequence number."""
    async for event in stream:
        if event.type == "response.output_text.delta":
            return event.delta, event.sequence_number
    raise AssertionError("no text came")


async def test_resuming_and_cancelling_at_another_replica(
    replicas: tuple[openai.AsyncOpenAI, openai.AsyncOpenAI, Peer],
) -> None:
    a, b, member = replicas
    async with asyncio.timeout(SECONDS):
        async with await a.responses.create(model="default", input="hi", background=True, stream=True) as asked:
            session_id = (await member.serve()).session_id
            response_id = f"resp_{session_id}"
            await member.say(session_id, "one ")
            text, after = await text_from(asked)
        rest = await b.responses.retrieve(response_id, stream=True, starting_after=after)
        await member.say(session_id, "two ")
        resumed, _ = await text_from(rest)
        assert text + resumed == "one two "

        first = await a.responses.cancel(response_id)
        stop = await member.next(Stop, session_id)
        assert stop.reason == "UserCancel"
        last = [event async for event in rest][-1]
        await member.say(session_id, "too late", Stopped(stop.stop_id, 2, 1, 10))
        await member.acked(session_id)
        assert (first.status, first.output_text) == ("cancelled", "one two ")
        assert last.type == "response.failed"
        assert last.response == first
        for client in (a, b):
            assert await client.responses.cancel(response_id) == first
        whole = [[event async for event in await at.responses.retrieve(response_id, stream=True)] for at in (a, b)]
        assert whole[0] == whole[1]


async def test_leaving_a_foreground_response_stops_it_at_another_replica(
    replicas: tuple[openai.AsyncOpenAI, openai.AsyncOpenAI, Peer],
) -> None:
    a, b, member = replicas
    async with asyncio.timeout(SECONDS):
        async with await a.responses.create(model="default", input="hi", stream=True) as asked:
            session_id = (await member.serve()).session_id
            await member.say(session_id, "one ")
            await text_from(asked)
        stop = await member.next(Stop, session_id)
        assert stop.reason == "UserCancel"
        await member.say(session_id, Stopped(stop.stop_id, 1, 0, 10))
        await member.acked(session_id)
        with pytest.raises(openai.BadRequestError):
            await b.responses.cancel(f"resp_{session_id}")


async def test_an_answer_that_does_not_fit_its_strict_schema_has_failed_on_either_protocol() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    form: Any = {"name": "place", "schema": schema, "strict": True}
    async with asyncio.timeout(SECONDS), serving() as world, client_of(world) as client:
        member = await world.join(4, supports=(Support("default", ("structured",)),))

        async def answered(text: str, asked: Coroutine[Any, Any, Any]) -> Any:
            asking = asyncio.create_task(asked)
            await member.finish((await member.serve()).session_id, text)
            return await asking

        def chat() -> Coroutine[Any, Any, Any]:
            wanted: Any = {"type": "json_schema", "json_schema": form}
            return client.chat.completions.create(
                model="default", messages=[{"role": "user", "content": "Where?"}], response_format=wanted
            )

        def response() -> Coroutine[Any, Any, Any]:
            wanted: Any = {"format": {"type": "json_schema", **form}}
            return client.responses.create(model="default", input="Where?", text=wanted)

        fitting = '{"city": "Oslo"}'
        assert (await answered(fitting, chat())).choices[0].message.content == fitting
        assert (await answered(fitting, response())).output_text == fitting
        with pytest.raises(openai.InternalServerError) as raised:
            await answered("It is Oslo.", chat())
        assert raised.value.code == "invalid_output"
        failed = await answered('{"town": "Oslo"}', response())
        assert (failed.status, failed.error.code) == ("failed", "invalid_output")
        assert await world.ended(failed.id.removeprefix("resp_")) == "failed invalid_output"
