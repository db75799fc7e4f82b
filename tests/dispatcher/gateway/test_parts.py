"""Images, sounds and files: passed on to agents that honour them, as one form whoever asks, and never looked into."""

import asyncio
import json
from typing import Any

import httpx2
import pytest

from dispatcher.gateway.parts import MAX_PARTS
from shared.records import Message
from tests.dispatcher.gateway.fakes import FakeSessions

DATA = "data:image/png;base64,iVBORw0KGgo="
URL = "https://192.168.0.1/cat.png"  # it is the agent's to fetch, or not
TEXT = {"type": "text", "text": "see"}
IMAGE = {"type": "image_url", "image_url": {"url": DATA, "detail": "low"}}
FILE = {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk=", "filename": "a.txt"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}


def chat(*parts: Any) -> dict[str, Any]:
    return {"model": "default", "messages": [{"role": "user", "content": list(parts)}]}


def native(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def responses(*parts: Any) -> dict[str, Any]:
    return {"model": "default", "input": [{"role": "user", "content": list(parts)}]}


@pytest.fixture
def able(sessions: FakeSessions) -> FakeSessions:
    sessions.honoured = frozenset({"images", "audio", "files"})
    return sessions


async def asked(http: httpx2.AsyncClient, sessions: FakeSessions, route: str, body: dict[str, Any]) -> Any:
    """What becomes of it: the request that the agent gets, and its session's id."""
    asking = asyncio.create_task(http.post(f"/v1/{route}", json=body))
    created = asyncio.create_task(sessions.created.get())
    await asyncio.wait([asking, created], return_when=asyncio.FIRST_COMPLETED)
    assert created.done(), (await asking).text
    commander = await sessions.begin(created.result())
    await commander.say("a cat")
    await commander.finish()
    assert (await asking).status_code in (200, 201)
    record = await sessions.store.load(commander.session_id)
    assert record
    return record


async def test_parts_reach_the_agent_in_one_form(http: httpx2.AsyncClient, able: FakeSessions) -> None:
    link = {"type": "image_url", "image_url": {"url": URL}}
    alike = {"type": "input_image", "image_url": DATA, "detail": "low"}
    given: list[tuple[str, dict[str, Any], list[Any], tuple[str, ...]]] = [
        ("chat/completions", chat(TEXT, IMAGE, TEXT, link), [TEXT, IMAGE, TEXT, link], ("images",)),
        ("chat/completions", chat(SOUND, FILE), [SOUND, FILE], ("audio", "files")),
        ("sessions", native(IMAGE, FILE), [IMAGE, FILE], ("files", "images")),
        (
            "responses",
            responses({"type": "input_text", "text": "see"}, alike, {"type": "input_file", **FILE["file"]}),  # type: ignore[dict-item]
            [TEXT, IMAGE, FILE],
            ("files", "images"),
        ),
    ]
    for route, body, parts, needs in given:
        request = (await asked(http, able, route, body)).request
        (message,) = request.messages
        assert message.content == "\n".join("see" for part in parts if part is TEXT)
        assert (json.loads(message.parts_json), request.needs) == (parts, needs)


async def test_text_alone_is_no_part(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    request = (await asked(http, sessions, "chat/completions", chat(TEXT, TEXT))).request
    assert (request.messages, request.needs) == ((Message("user", "see\nsee"),), ())


async def test_who_goes_on_sees_them_too(http: httpx2.AsyncClient, able: FakeSessions) -> None:
    image = {"type": "input_image", "image_url": DATA, "detail": "low"}
    first = await asked(http, able, "responses", responses(image))
    response_id = f"resp_{first.session_id}"
    (item,) = (await http.get(f"/v1/responses/{response_id}/input_items")).json()["data"]
    assert item["content"] == [image]
    chained = {"model": "default", "input": "and now?", "previous_response_id": response_id}
    referred = {"model": "default", "input": [{"type": "item_reference", "id": item["id"]}]}
    for body in (chained, referred):
        request = (await asked(http, able, "responses", body)).request
        assert (request.messages[0], request.needs) == (first.request.messages[0], ("images",))
    able.honoured = frozenset()
    for body, param in ((chained, "previous_response_id"), (referred, "input[0]")):
        error = (await http.post("/v1/responses", json=body)).json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", param)


async def test_what_is_wrong_is_named(http: httpx2.AsyncClient, able: FakeSessions) -> None:
    def image(url: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": url}}

    where = "messages[0].content[0]"
    given: list[tuple[dict[str, Any], str]] = [
        (chat(image("data:image/png;base64,%%%")), f"{where}.image_url"),
        (chat(image("data:image/png;base64,\u00e9")), f"{where}.image_url"),
        (chat(image("data:image/png;base64,")), f"{where}.image_url"),
        (chat(image("data:text/plain,hi")), f"{where}.image_url"),
        (chat(image("file:///etc/passwd")), f"{where}.image_url"),
        (chat({"type": "image_url"}), f"{where}.image_url"),
        (chat({"type": "input_audio"}), f"{where}.type"),
        (chat(SOUND | {"input_audio": {"data": "?", "format": "wav"}}), f"{where}.input_audio.data"),
        (chat({"type": "file", "file": {"filename": "a"}}), where),
        (chat({"type": "file", "file": {"file_data": "?"}}), f"{where}.file_data"),
        (chat({"type": "text"}), f"{where}.text"),
        (chat(*[IMAGE] * (MAX_PARTS + 1)), "messages"),
    ]
    for body, param in given:
        answer = await http.post("/v1/chat/completions", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", param), error
    assert able.created.empty()


async def test_an_agent_that_honours_none_is_not_asked(http: httpx2.AsyncClient, sessions: FakeSessions) -> None:
    for part, feature in ((IMAGE, "images"), (FILE, "files"), (SOUND, "audio")):
        for route, body in (("chat/completions", chat(part)), ("sessions", native(part))):
            error = (await http.post(f"/v1/{route}", json=body)).json()["error"]
            assert (error["code"], f"'{feature}'" in error["message"]) == ("unsupported_parameter", True)
    assert sessions.created.empty()
