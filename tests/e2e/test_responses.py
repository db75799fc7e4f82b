"""OpenAI's Responses over real processes: what the official client gets over a `kill -9` is what it would have been."""

import contextlib
import time
from typing import Any

import httpx2
import openai

from tests.e2e.agents import word
from tests.programs import commander, dispatcher, free_port

WORDS = "".join(map(word, range(100)))  # what `counting` says
SECONDS = 60


def read_on(client, stream, events, text_enough=1_000_000):
    """Read more events from this stream, over what breaks, to the end or until there is that much text."""
    deadline = time.monotonic() + SECONDS
    while events[-1].type != "response.completed" and len(text_of(events)) < text_enough:
        assert time.monotonic() < deadline, f"no end; so far: {text_of(events)[-100:]!r}"
        try:
            events.append(next(stream))
        except openai.APIConnectionError:
            stream = client.responses.retrieve(
                events[0].response.id, stream=True, starting_after=events[-1].sequence_number
            )


def wait_until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def text_of(events):
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def test_responses_go_on_over_a_kill_to_the_byte(tmp_path):
    settings = {f"{edge}_address": f"127.0.0.1:{free_port()}" for edge in ("grpc", "http", "operator")}
    settings["store"] = f"sqlite:///{tmp_path}/sessions.db"
    url = f"http://{settings['http_address']}/v1"
    with contextlib.ExitStack() as stack:
        current = stack.enter_context(contextlib.ExitStack())
        server = current.enter_context(dispatcher(tmp_path / "d0.log", **settings))
        stack.enter_context(commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:counting"))
        client = stack.enter_context(openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=30))
        server.program.wait_for(lambda event: event.get("event") == "commander_joined")
        reading: list[tuple[Any, list[Any]]] = []
        for background in (True, False):
            stream: Any = client.responses.create(model="default", input="go", stream=True, background=background)
            events = [next(stream)]
            read_on(client, stream, events, text_enough=20)
            reading.append((stream, events))
        server.program.kill()
        current.close()
        server = current.enter_context(dispatcher(tmp_path / "d1.log", **settings))
        for stream, events in reading:
            before = len(events)
            read_on(client, stream, events)
            assert text_of(events) == WORDS
            response_id = events[0].response.id
            assert events == list(client.responses.retrieve(response_id, stream=True))
            assert events[-1].response == client.responses.retrieve(response_id)
            path = f"{url}/responses/{response_id}?stream=true"
            whole = httpx2.get(path).content
            for event in events[before - 1 :: 10]:
                rest = httpx2.get(f"{path}&starting_after={event.sequence_number}").content
                assert whole.endswith(rest)
                assert rest.count(b"\n\n") == len(events) - events.index(event) - 1


def test_a_response_goes_on_at_another_replica_and_is_cancelled_there(tmp_path, redis):
    store = f"redis://{redis.address}/0"
    with contextlib.ExitStack() as stack:
        a = stack.enter_context(dispatcher(tmp_path / "a.log", store))
        b = stack.enter_context(dispatcher(tmp_path / "b.log", store))
        stack.enter_context(commander(b.grpc, tmp_path / "c.log", "tests.e2e.agents:counting", agent="counting"))
        stack.enter_context(
            commander(b.grpc, tmp_path / "s.log", "scripted", agent="endless", scripted__tokens="100000")
        )
        at_a, at_b = (
            stack.enter_context(openai.OpenAI(base_url=f"http://{at.http}/v1", api_key="none", timeout=30))
            for at in (a, b)
        )
        wait_until(lambda: {model.id for model in at_a.models.list()} == {"counting", "endless"})
        reading: list[tuple[Any, list[Any]]] = []
        for model in ("counting", "endless"):
            stream: Any = at_a.responses.create(model=model, input="go", stream=True, background=True)
            events = [next(stream)]
            read_on(at_a, stream, events, text_enough=20)
            reading.append((stream, events))
        a.program.kill()
        (counted, events), (endless, cut_events) = reading
        read_on(at_b, counted, events)
        assert text_of(events) == WORDS
        assert events == list(at_b.responses.retrieve(events[0].response.id, stream=True))

        read_on(at_b, endless, cut_events, text_enough=len(text_of(cut_events)) + 100)
        cancelled = at_b.responses.cancel(cut_events[0].response.id)
        assert cancelled.status == "cancelled"
        assert cancelled.output_text.startswith(text_of(cut_events))
        assert at_b.responses.cancel(cancelled.id) == cancelled
        replayed: list[Any] = list(at_b.responses.retrieve(cancelled.id, stream=True))
        assert replayed[-1].response == cancelled


def test_a_response_is_cancelled_while_its_agent_speaks(tmp_path):
    with (
        dispatcher(tmp_path / "d.log") as server,
        commander(server.grpc, tmp_path / "c.log", "scripted", scripted__tokens="100000"),
        openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=30) as client,
    ):
        server.program.wait_for(lambda event: event.get("event") == "commander_joined")
        stream: Any = client.responses.create(model="default", input="go", stream=True, background=True)
        events = [next(stream)]
        read_on(client, stream, events, text_enough=20)
        cancelled = client.responses.cancel(events[0].response.id)
        events += stream
        assert events[-1].type == "response.failed"
        assert events[-1].response == cancelled
        assert cancelled.status == "cancelled"
        assert cancelled.output_text == text_of(events)
        assert client.responses.cancel(cancelled.id) == cancelled
        client.responses.delete(cancelled.id)
