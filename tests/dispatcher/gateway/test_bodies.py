"""Bodies that are made to be slow are refused before they are decoded."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from dispatcher.gateway import bodies
from dispatcher.gateway.bodies import MAX_DEPTH, MAX_UNQUOTED, MAX_VALUES, SMALL_BYTES, is_light, is_shallow
from dispatcher.gateway.errors import HttpError
from dispatcher.gateway.openai import ChatBody
from dispatcher.gateway.response_bodies import ResponseBody
from dispatcher.settings import DispatcherSettings
from tests.dispatcher.gateway.fakes import FakeSessions

JSON = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\,[{\n€')),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(st.sampled_from('k"\\,[')), inner, max_size=8),
    max_leaves=40,
)


def outside(text: str) -> str:
    """The text without its strings, read character by character."""
    kept, within, escaped = [], False, False
    for character in text:
        if within and escaped:
            escaped = False
        elif within and character == "\\":
            escaped = True
        elif character == '"':
            within = not within
        elif not within:
            kept.append(character)
    return "".join(kept)


@given(value=JSON, values=st.integers(1, 20), unquoted=st.integers(1, 60))
def test_what_stands_in_strings_does_not_count(value: Any, values: int, unquoted: int) -> None:
    text = json.dumps(value, ensure_ascii=False)
    rest = outside(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "MAX_VALUES", values)
        patch.setattr(bodies, "MAX_UNQUOTED", unquoted)
        assert is_light(text.encode()) == (len(rest) <= unquoted and sum(map(rest.count, ",[{")) <= values)


def depth(value: Any) -> int:
    match value:
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
        case list():
            return 1 + max(map(depth, value), default=0)
    return 0


@given(value=JSON, most=st.integers(0, 5))
def test_how_deep_values_stand_in_each_other(value: Any, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "MAX_DEPTH", most)
        assert is_shallow(json.dumps(value, ensure_ascii=False).encode()) == (depth(value) <= most)


@pytest.fixture
def settings() -> DispatcherSettings:
    return DispatcherSettings()  # bodies of 8 MiB


def of(unit: str, count: int) -> bytes:
    return b'{"prompt": "hi", "parameters": {"a": [%b]}}' % ",".join([unit] * count).encode()


@pytest.mark.parametrize("unit", ["1", '""', "[]", "{}", '{"a":1}', "[[[[]]]]", "null", "1.5e10"])
async def test_many_values_are_refused(http: httpx2.AsyncClient, sessions: FakeSessions, unit: str) -> None:
    answer = await http.post("/v1/sessions", content=of(unit, MAX_VALUES + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "body_too_complex")
    assert sessions.created.empty()


@pytest.mark.parametrize("size", [0, SMALL_BYTES])
@pytest.mark.parametrize("unit", ["[]", '{"a":}'])
async def test_values_deep_in_each_other_are_refused(
    http: httpx2.AsyncClient, sessions: FakeSessions, unit: str, size: int
) -> None:
    """Elsewhere they could be read, and not be written again: 500."""
    too_complex = (400, "body_too_complex")
    for levels, expected in ((MAX_DEPTH - 2, (201, None)), (MAX_DEPTH - 1, too_complex), (2_000, too_complex)):
        deep = unit[:-1] * levels + "0" + unit[-1] * levels
        body = f'{{"prompt": "{"x" * (size + 1)}", "parameters": {{"a": {deep}}}}}'
        answer = await http.post("/v1/sessions", content=body.encode())
        assert (answer.status_code, answer.json().get("error", {}).get("code")) == expected
    assert sessions.created.qsize() == 1


async def test_long_numbers_are_refused(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/sessions", content=of("1." + "9" * 1000, MAX_UNQUOTED // 1000))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "body_too_complex")


@pytest.mark.parametrize("unit", ['a, b [c] {d} "e"\n', "é€ \\ "])
async def test_long_texts_are_taken_whatever_stands_in_them(
    http: httpx2.AsyncClient, sessions: FakeSessions, unit: str
) -> None:
    text = unit * (7 * 1024 * 1024 // len(json.dumps(unit, ensure_ascii=False).encode()))
    answer = await http.post("/v1/sessions", content=json.dumps({"prompt": text}, ensure_ascii=False).encode())
    assert answer.status_code == 201, answer.text
    record = await sessions.store.load(answer.json()["session_id"])
    assert record
    assert record.request.messages[0].content == text


async def test_as_many_values_as_are_allowed(http: httpx2.AsyncClient) -> None:
    body = of("1", MAX_VALUES - 4)
    assert len(body) > SMALL_BYTES
    assert (await http.post("/v1/sessions", content=body)).status_code == 201


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)  # beyond these what is wrong is a `float` to the one, an `int` to the other
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "x", "user", "message", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "format", "effort", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
WHOLE: dict[type, dict[str, object]] = {
    ChatBody: {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    ResponseBody: {"model": "m", "input": "x"},
}


@given(kind=st.sampled_from(list(WHOLE)), data=st.data())
def test_what_was_checked_becomes_what_decoding_makes_of_the_body(kind: type, data: st.DataObject) -> None:
    """Or is refused in the same words, whatever stands in a field."""
    name = data.draw(st.sampled_from(kind.__struct_fields__))  # type: ignore[attr-defined]
    value = data.draw(st.sampled_from(["1", "0.5", "true", 1, 1.0, {}]) | VALUES)  # what a laxer one would take, often
    body = json.dumps(WHOLE[kind] | {name: value}).encode()

    def outcome(read: Callable[[], object]) -> object:
        try:
            return read()
        except HttpError as error:
            return error.status, error.code, error.param, str(error)

    once = outcome(lambda: bodies.typed(bodies.decode(body, dict), kind))
    assert once == outcome(lambda: bodies.decode(body, kind))


async def test_large_bodies_that_come_at_once_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one waits for another's end, and not for ever; a small one does not."""
    taken = bodies.Bodies(200_000)
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", 0)  # as much as one may have
    chunks: list[asyncio.Queue[tuple[bytes, bool]]] = [asyncio.Queue() for _ in range(4)]

    def take(number: int) -> asyncio.Task[list[int]]:
        async def receive() -> dict[str, Any]:
            body, more = await chunks[number].get()
            return {"type": "http.request", "body": body, "more_body": more}

        request = Request({"type": "http", "method": "POST", "headers": [(b"content-length", b"150003")]}, receive)
        return asyncio.create_task(taken.take(request, list[int]))

    tasks = [take(number) for number in range(4)]
    for queue in chunks[:2]:
        queue.put_nowait((b"[1," + b" " * 149_998, True))
    chunks[2].put_nowait((b"[3]", False))
    assert await tasks[2] == [3]
    chunks[1].put_nowait((b"1]", False))
    assert not tasks[1].done()
    chunks[0].put_nowait((b"1]", False))
    assert await tasks[0] == await tasks[1] == [1, 1]
    monkeypatch.setattr(bodies, "ROOM_SECONDS", 0.01)
    taken._held = 60_000
    chunks[3].put_nowait((b" " * 150_000, True))
    with pytest.raises(HttpError) as refused:
        await tasks[3]
    assert (refused.value.status, refused.value.code) == (503, "too_many_bodies")
    assert taken._held == 60_000


async def test_large_bodies_for_which_there_was_no_room_are_counted(
    http: httpx2.AsyncClient, url: str, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", 0)  # as much as one may have
    monkeypatch.setattr(bodies, "ROOM_SECONDS", 0.01)
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (8 * 1024 * 1024))
    writer.write(b" " * (SMALL_BYTES + 1))
    async with asyncio.timeout(30):
        while (answer := await http.post("/v1/sessions", content=of("1", SMALL_BYTES))).status_code != 503:
            pass  # until the first one's beginning was read
    writer.close()
    assert (answer.json()["error"]["code"], answer.headers["retry-after"]) == ("too_many_bodies", "1")
    assert registry.get_sample_value("dispatcher_refusals_total", {"edge": "http", "kind": "too_many_bodies"}) == 1
