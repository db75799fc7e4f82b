"""What real servers send, rebuilt small, and what the back-end `openai` makes of it, over a real socket.

A case is the answers to a session's requests, each the bytes after the status line and headers, or all of them.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from commander.agent import Finish, Message, Thought, Tool, Turn, Yielded
from commander.backends.errors import ProviderError
from commander.backends.openai import OpenAIAgent
from tests.commander.backends.provider import Connection, Script, serving

TOOLS = (Tool("weather", "", {"type": "object"}), Tool("now", "", {"type": "object"}))


def chunk(delta: object = None, finish: object = None, **fields: object) -> str:
    """One event, as OpenAI sends it."""
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return event({"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **fields})


def event(content: object) -> str:
    return f"data: {json.dumps(content)}\n\n"


def said(*texts: str) -> str:
    return "".join(chunk({"content": text}) for text in texts)


HELLO = said("Hello ", "world.")
STOP = chunk(finish="stop")
DONE = "data: [DONE]\n\n"
WHOLE = HELLO + STOP + DONE


def answer(body: str, status: str = "200 OK", **headers: str) -> bytes:
    headers = {"Content-Type": "text/event-stream"} | {name.replace("_", "-"): text for name, text in headers.items()}
    head = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    return f"HTTP/1.1 {status}\r\n{head}Connection: close\r\n\r\n{body}".encode()


def as_json(content: object, status: str = "200 OK") -> bytes:
    return answer(json.dumps(content), status, Content_Type="application/json")


class Session:
    """One session's pieces, what failed, its tool calls and the bodies of its requests."""

    def __init__(self) -> None:
        self.pieces: list[Yielded] = []
        self.failure = ""
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.bodies: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def thoughts(self) -> str:
        return "".join(piece.delta for piece in self.pieces if isinstance(piece, Thought))

    @property
    def finish(self) -> str:
        """Empty: it did not."""
        return next((piece.reason for piece in self.pieces if isinstance(piece, Finish)), "")

    async def _tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        self.calls.append((name, arguments))
        return {"ok": True}


def sending(data: bytes) -> Script:
    async def script(connection: Connection) -> None:
        await connection.raw(data)

    return script


async def session(*answers: bytes | str, clients: bool = False, **settings: Any) -> Session:
    """clients: the tools are the client's."""
    found = Session()
    tools = tuple(replace(tool, client=clients) for tool in TOOLS)
    scripts = [sending(each if isinstance(each, bytes) else answer(each)) for each in answers]
    async with serving(*scripts) as provider:
        agent = OpenAIAgent(provider.settings(**settings))
        try:
            async for piece in agent(Turn((Message("user", "hi"),), tools=tools, tool_caller=found._tool)):
                found.pieces.append(piece)
        except ProviderError as error:
            found.failure = str(error)
        finally:
            await agent.close()
        found.bodies = [connection.body for connection in provider.connections]
    return found


# ---- words


def messages(*texts: str) -> str:
    """A message in the place of each delta."""
    return "".join(event({"choices": [{"message": {"role": "assistant", "content": text}}]}) for text in texts)


THINKING_PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
MESSAGE = {"role": "assistant", "content": "Hello world."}


@pytest.mark.parametrize(
    ("sent", "thoughts"),
    [
        pytest.param("retry: 3000\n\n" + WHOLE, "", id="an event with retry alone"),
        pytest.param(said("Hello ") + "data:\n\n" + said("world.") + STOP + DONE, "", id="an event without data"),
        pytest.param(HELLO + STOP + "data: [DONE] \n\n", "", id="blanks behind the end"),
        pytest.param(HELLO + 'data: "[DONE]"\n\n', "", id="the end as JSON"),
        pytest.param(HELLO + STOP + "data: [done]\n\n", "", id="the end in small letters"),
        pytest.param("\ufeff" + WHOLE, "", id="a byte order mark"),
        pytest.param(": open\n\n" + WHOLE + ": closed\n\n", "", id="comments"),
        pytest.param(WHOLE.replace("\n", "\r\n"), "", id="CRLF"),
        pytest.param(WHOLE.replace("\n", "\r"), "", id="CR"),
        pytest.param(WHOLE.replace("data: ", "data:"), "", id="no blank behind the colon"),
        pytest.param(WHOLE.replace("data: ", "event: message\nid: 1\ndata: "), "", id="names and ids"),
        pytest.param(HELLO + STOP, "", id="no [DONE]"),
        pytest.param((HELLO + STOP).rstrip(), "", id="the last blank line is missing"),
        pytest.param(HELLO + DONE, "", id="no reason, but [DONE]"),
        pytest.param(WHOLE.replace("\n\n", "\n"), "", id="no blank lines"),
        pytest.param(WHOLE.replace("\n\n", "\n").replace("\n", "\r\n"), "", id="no blank lines, CRLF"),
        pytest.param(
            'event: heartbeat\ndata: {"message": "still there"}\n\n'
            + event({"status": "queued", "message": "waits for a GPU"})
            + WHOLE,
            "",
            id="signs of life that say something",
        ),
        pytest.param(HELLO + event({"type": "ping"}) + event(None) + event("ping") + STOP + DONE, "", id="pings"),
        pytest.param(answer(WHOLE, "201 Created"), "", id="201"),
        pytest.param(answer(WHOLE, Content_Type="text/plain; charset=utf-8"), "", id="text/plain"),
        pytest.param(answer(WHOLE, Content_Type="application/json"), "", id="a stream that says it is JSON"),
        pytest.param(
            as_json({"choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}), "", id="one answer"
        ),
        pytest.param(as_json({"choices": [{"message": MESSAGE}]}), "", id="one answer without a reason"),
        pytest.param(
            answer("\n" + json.dumps({"choices": [{"message": MESSAGE, "finish_reason": "stop"}]}, indent=2)),
            "",
            id="one answer that says it is a stream",
        ),
        pytest.param(
            answer((HELLO + STOP).replace("data: ", "").replace("\n\n", "\n"), Content_Type="application/x-ndjson"),
            "",
            id="lines of JSON",
        ),
        pytest.param(HELLO + event({"choices": [{"message": MESSAGE, "finish_reason": "stop"}]}), "", id="all again"),
        pytest.param(
            said("Hello ") + event({"choices": [{"message": MESSAGE, "finish_reason": "stop"}]}), "", id="all, and more"
        ),
        pytest.param(
            chunk({"reasoning": "hm"}) + messages("Hello ", "world.") + STOP, "hm", id="messages with what is new"
        ),
        pytest.param(messages("Hello ", "Hello world.", "Hello world.") + STOP, "", id="messages with all so far"),
        pytest.param(
            chunk({"content": "Hello "}, "stop") + chunk({"content": "world."}, "stop"), "", id="a reason in each chunk"
        ),
        pytest.param(STOP + HELLO + DONE, "", id="the reason first"),
        pytest.param(
            chunk({"audio": {"id": "a", "transcript": "Hello "}}) + chunk({"audio": {"transcript": "world."}}) + STOP,
            "",
            id="spoken words",
        ),
        pytest.param(
            chunk({"audio": {"id": "a", "data": "UklGRg=="}})
            + chunk({"content": [{"type": "output_audio", "data": "UklGRg==", "transcript": "Hello "}]})
            + chunk({"audio": {"transcript": "world.", "data": "UklGRg=="}})
            + STOP,
            "",
            id="sound beside its words",
        ),
        pytest.param(HELLO + chunk({"images": [], "image": None, "audio": {"data": ""}}) + STOP, "", id="no pictures"),
        pytest.param(WHOLE.replace('"index": 0', '"index": 1'), "", id="a choice that is counted from one"),
        pytest.param(event({"code": 0, "message": "Success", "choices": []}) + WHOLE, "", id="a success that says so"),
        pytest.param(
            HELLO + event({"choices": [{"delta": None, "finish_reason": None}]}) + STOP + DONE, "", id="delta null"
        ),
        pytest.param(
            event({"choices": [], "prompt_filter_results": [{"content_filter_results": {}}]}) + WHOLE, "", id="Azure"
        ),
        pytest.param(
            chunk({"content": "Hello "}, content_filter_results={"error": {"code": "content_filter_error"}})
            + said("world.")
            + STOP,
            "",
            id="a filter that failed",
        ),
        pytest.param(chunk({"reasoning": {"text": "hm"}}) + WHOLE, "hm", id="reasoning as an object"),
        pytest.param(chunk({"reasoning_text": "hm"}) + WHOLE, "hm", id="Copilot's reasoning"),
        pytest.param(chunk({"thought": "hm"}) + WHOLE, "hm", id="a thought by that name"),
        pytest.param(event({"header": {"code": 0, "message": "Success"}}) + WHOLE, "", id="a head that says success"),
        pytest.param(event({"status": 200, "code": 200, "status_code": "200"}) + WHOLE, "", id="a status of success"),
        pytest.param(chunk({"reasoning_content": "hm", "reasoning": "hm"}) + WHOLE, "hm", id="reasoning twice"),
        pytest.param(
            chunk({"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}) + WHOLE, "hm", id="details"
        ),
        pytest.param(chunk({"reasoning": 7, "reasoning_content": False}) + WHOLE, "", id="reasoning that is none"),
        pytest.param(
            chunk({"content": THINKING_PARTS})
            + chunk({"content": [{"type": "text", "text": "Hello "}, {"type": "reference", "reference_ids": [1]}]})
            + said("world.")
            + STOP,
            "hm",
            id="parts",
        ),
        pytest.param(said("<thi", "nk>h", "m</thi", "nk>\n\n", "Hello ", "world.") + STOP, "hm", id="think tags"),
        pytest.param(said("\n<thought>hm</thought>Hello world.") + STOP, "hm", id="thought tags"),
        pytest.param(said("[THINK]hm[/THINK]Hello world.") + STOP, "hm", id="Mistral's tags"),
        pytest.param(said("<reason", "ing>hm</reasoning>", "Hello world.") + STOP, "hm", id="Bedrock's tags"),
        pytest.param(said("◁think▷hm◁/think▷Hello world.") + STOP, "hm", id="Kimi's tags"),
        pytest.param(said("<|START_THINKING|>hm<|END_THINKING|>Hello world.") + STOP, "hm", id="Cohere's tags"),
        pytest.param(
            said("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hello world.")
            + STOP,
            "hm",
            id="gpt-oss as it is",
        ),
        pytest.param(
            chunk({"reasoning_content": "hm"}) + said("</thi", "nk>\n\nHello world.") + STOP, "hm", id="an end alone"
        ),
        pytest.param(said("<think>h</think>\n<think>m</think>Hello world.") + STOP, "hm", id="two thoughts"),
        pytest.param(HELLO + chunk(finish="stop", usage=[1]) + DONE, "", id="usage as a list"),
        pytest.param(
            HELLO + STOP + event({"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": "2"}}) + DONE,
            "",
            id="counts that are none",
        ),
    ],
)
async def test_the_answer_is_whole(sent: str | bytes, thoughts: str) -> None:
    found = await session(sent)
    assert (found.failure, found.text, found.thoughts) == ("", "Hello world.", thoughts)
    assert found.pieces[-1] == Finish("stop")


@pytest.mark.parametrize("text", ["a <think> b", " <b>c</b>", "<", "<thin", "\n\n<thinks>", " " * 3000, "<th\u0130nk>"])
async def test_what_is_no_thought_arrives_unchanged(text: str) -> None:
    found = await session(said(*text) + STOP)
    assert (found.text, found.thoughts, found.finish) == (text, "", "stop")


async def test_a_thought_may_lack_its_beginning_where_that_is_set() -> None:
    found = await session(said("h", "m</thi", "nk>\n\n", "Hello </think>") + STOP, thinks_first=True)
    assert (found.text, found.thoughts, found.finish) == ("Hello </think>", "hm", "stop")


async def test_a_call_in_a_message_that_says_all_again_is_made_once() -> None:
    thought = {"reasoning_content": "hm"}
    all_again = MESSAGE | thought | {"tool_calls": [call(OSLO_TEXT)]}
    end = event({"choices": [{"message": all_again, "finish_reason": "tool_calls"}]})
    for sent in (HELLO, chunk(thought) + HELLO + asks(call(OSLO_TEXT))):
        found = await session(sent + end, WHOLE)
        assert (found.failure, found.calls, found.text) == ("", BOTH[:1], "Hello world.Hello world.")
        assert found.bodies[1]["messages"][1]["reasoning_content"] == "hm"


async def test_a_thought_that_never_ends_is_no_answer() -> None:
    found = await session(said("<think>so much</thi") + chunk(finish="length"))
    assert (found.text, found.thoughts, found.finish) == ("", "so much</thi", "length")


async def test_counts_are_those_that_could_be_read() -> None:
    in_choice = HELLO + event({"choices": [{"finish_reason": "stop", "usage": {"prompt_tokens": 7}}]})
    assert (await session(in_choice)).pieces[-1] == Finish("stop", 7)
    counts = [{"prompt_tokens": 7, "completion_tokens": None}, {"prompt_tokens": -1, "completion_tokens": 2.0}]
    found = await session(HELLO + "".join(event({"choices": [], "usage": each}) for each in counts) + STOP + DONE)
    assert found.pieces[-1] == Finish("stop", 7, 2)


# ---- the end


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        *((name, "stop") for name in ("stop", "STOP", "end_turn", "eos", "eos_token", "stop_sequence", "stop_word")),
        *((name, "length") for name in ("length", "model_length", "max_tokens", "MAX_TOKENS", "max_output_tokens")),
        *((name, "length") for name in ("max_context_length", "context_window_exceeded", "max_tokens_reached")),
        *((name, "content_filter") for name in ("content_filter", "content-filter", "SAFETY", "sensitive", "refusal")),
        *((name, "content_filter") for name in ("safety_filter", "moderated")),
        ({"type": "stop", "matched": 2}, "stop"),
        ("FinishReason.STOP", "stop"),
        ("FINISH_REASON_MAX_TOKENS", "length"),
        ("normal", "stop"),
        ("content_filter: RECITATION", "content_filter"),
    ],
)
async def test_other_names_of_an_end(written: object, reason: str) -> None:
    found = await session(HELLO + chunk(finish=written) + DONE)
    assert (found.failure, found.text, found.finish) == ("", "Hello world.", reason)


@pytest.mark.parametrize("choice", [{"delta": {"finish_reason": "length"}}, {"delta": {}, "finishReason": "length"}])
async def test_a_reason_may_stand_elsewhere(choice: object) -> None:
    assert (await session(HELLO + event({"choices": [choice]}) + DONE)).finish == "length"


async def test_a_reason_is_not_forgotten_for_a_later_one() -> None:
    assert (await session(HELLO + chunk(finish="length") + STOP + DONE)).finish == "length"


@pytest.mark.parametrize("written", ["", "null", "not_finished", None])
async def test_what_is_no_reason_yet_ends_nothing(written: object) -> None:
    found = await session(chunk({"content": "Hello "}, written) + said("world.") + STOP)
    assert (found.text, found.finish) == ("Hello world.", "stop")


BROKEN = ["abort", "error", "network_error", "insufficient_system_resource", "cancelled", "something_new", 7, ["stop"]]


@pytest.mark.parametrize("written", BROKEN, ids=str)
async def test_a_reason_that_is_none_known_fails_the_session(written: object) -> None:
    found = await session(said("Hello ") + chunk({"content": "world."}, written) + DONE)
    assert (found.text, found.finish) == ("Hello world.", "")
    assert found.failure == f"the server ended the answer with the reason {written}"


@pytest.mark.parametrize(
    ("sent", "quoted"),
    [
        ('event: error\ndata: {"code": "overloaded", "message": "too busy"}\n\n', "too busy"),
        ("event: error\ndata: too busy\n\n", "too busy"),
        ("event: error\ndata: too busy\n", "too busy"),
        (event({"error": {"message": "too busy", "code": 529}}), "too busy"),
        (event({"error": "too busy"}), "too busy"),
        (event({"error": True, "message": "too busy"}), "too busy"),
        (event({"error": {"error": {"message": "too busy"}}}), "too busy"),
        (event([{"error": {"message": "too busy"}}]), "too busy"),
        (event({"object": "error", "message": "too busy", "code": 500}), "too busy"),
        (event({"type": "error", "reason": "too busy"}), "too busy"),
        (event({"code": 503, "message": "too busy"}), "too busy"),
        (event({"detail": [{"msg": "too busy"}]}), "too busy"),
        (event({"errors": ["too busy"]}), "too busy"),
        (event({"fault": {"faultstring": "too busy"}}), "too busy"),
        (event({"status": "failed", "message": "too busy"}), "too busy"),
        ("data: too busy\n\n", "too busy"),
        (event({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "too busy"}}), "too busy"),
        (event({"choices": [], "x_groq": {"error": "too busy"}}), "too busy"),
        (event({"choices": [{"error": {"message": "too busy"}, "delta": {}, "finish_reason": "error"}]}), "too busy"),
        ('{"error": {"message": "too busy"}}\n\n', "too busy"),
        ('error: {"code": 500, "message": "too busy"}\n\n', "too busy"),
        (event({"Note": "by a model", "ErrorMsg": {"Msg": "too busy", "Code": 4001}}), "too busy"),
        (event({"error": 503, "message": "too busy"}), "too busy"),
        (event({"exception": "too busy"}), "too busy"),
        (event({"throttlingException": {"message": "too busy"}}), "too busy"),
        (event({"type": "about:blank", "title": "too busy", "status": 503}), "too busy"),
        (event({"status_code": "503", "reason": "too busy"}), "too busy"),
        (event({"header": {"code": 10013, "message": "too busy", "sid": "x"}}), "too busy"),
        (event({"type": "response.failed", "response": {"error": {"message": "too busy"}}}), "too busy"),
        (chunk({"error": {"message": "too busy"}}), "too busy"),
        (event({"choices": [{"message": {"error": {"message": "too busy"}}}]}), "too busy"),
        ("", "before the answer was finished"),
        ('data: {"choices": [{"delta": {"content": "wor', "before the answer was finished"),
        ("upstream connect error\n\n", "before the answer was finished"),
    ],
)
async def test_half_an_answer_is_never_finished(sent: str, quoted: str) -> None:
    for then in (
        ("", DONE, STOP + DONE) if quoted == "too busy" else ("",)
    ):  # else [DONE] is a server's word for it that this is all
        found = await session(said("Hello ") + sent + then)
        assert (found.text, found.finish) == ("Hello ", "")
        assert quoted in found.failure


PNG = {"url": "data:image/png;base64,iVBORw0KGgo="}


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"images": [{"type": "image_url", "image_url": PNG}], "content": ""}, "images"),
        ({"image": PNG}, "image"),
        ({"content": [{"type": "image_url", "image_url": PNG}]}, "image_url"),
        ({"content": [{"type": "output_image", "data": "iVBORw0KGgo="}]}, "image"),
        ({"content": [{"type": "video_url", "video_url": PNG}]}, "video_url"),
        ({"content": [{"type": "file", "file": {"file_data": "JVBERi0="}}]}, "file"),
    ],
)
async def test_a_picture_is_not_lost_in_silence(message: dict[str, Any], named: str) -> None:
    """Nothing but text goes on to the user: an answer that holds more fails, and says with what."""
    whole = as_json({"choices": [{"message": {"content": "Hello ", **message}, "finish_reason": "stop"}]})
    for sent in (said("Hello ") + chunk(message) + said("world.") + STOP + DONE, whole):
        found = await session(sent)
        assert (found.text in ("Hello ", ""), found.finish) == (True, "")
        assert found.failure == f"the answer holds {named}, and nothing but words can be passed on"


@pytest.mark.parametrize(
    "message", [{"audio": {"id": "a", "data": "UklGRg=="}}, {"content": [{"type": "audio", "data": "UklGRg=="}]}]
)
async def test_nor_is_sound_without_its_words(message: dict[str, Any]) -> None:
    for sent in (chunk(message) + STOP + DONE, as_json({"choices": [{"message": message, "finish_reason": "stop"}]})):
        found = await session(sent)
        assert (found.text, found.finish) == ("", "")
        assert found.failure == "the answer holds sound without its words, and nothing but words can be passed on"


def both(first: object, second: object, **fields: object) -> str:
    """One event with two choices, as `n` of 2 gets them."""
    return event({"choices": [{"delta": first, **fields}, {"delta": second, **fields}]})


BYE = chunk({"content": "Bye."}).replace('"index": 0', '"index": 1')


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (both({"content": "Hello "}, {"content": "Bye."}), ""),
        (said("Hello ") + BYE + said("world.") + STOP + DONE, "Hello "),
        (HELLO + STOP + BYE + DONE, "Hello world."),
        (as_json({"choices": [{"index": n, "message": MESSAGE, "finish_reason": "stop"} for n in range(2)]}), ""),
    ],
)
async def test_two_answers_are_never_mixed(sent: str | bytes, text: str) -> None:
    found = await session(sent)
    assert (found.text, found.finish) == (text, "")
    assert found.failure == "the server gives several answers at once, and one was asked for"


async def test_calls_may_stand_in_a_choice_of_their_own() -> None:
    """Copilot's way, and LiteLLM's, of an answer with words and calls."""
    split = both({"content": "Hello "}, {"tool_calls": [call(OSLO_TEXT, 0, "a")]}, finish_reason="tool_calls")
    found = await session(split + DONE, said("world.") + STOP)
    assert (found.failure, found.text, found.calls) == ("", "Hello world.", [("weather", OSLO)])


async def test_a_reason_that_words_followed_is_no_end_where_the_line_is_cut() -> None:
    found = await session(answer(HELLO.replace("null", '"stop"'), Content_Length="9999"))
    assert (found.text, found.finish) == ("Hello world.", "")
    assert "RemoteProtocolError" in found.failure


@pytest.mark.parametrize("sent", ["", DONE, event({"choices": []}) + DONE])
async def test_nothing_is_no_answer(sent: str) -> None:
    found = await session(sent)
    assert (found.pieces, found.failure) == ([], "the server ended the stream before the answer was finished")


# ---- refusals


@pytest.mark.parametrize(
    ("sent", "quoted"),
    [
        (as_json({"detail": [{"loc": ["body"], "msg": "at most 1"}]}, "422 Unprocessable Entity"), "at most 1"),
        (as_json({"error": {"message": "no such model"}}, "404 Not Found"), "status 404 Not Found: no such model"),
        (as_json([{"error": {"code": 400, "message": "bad key"}}], "400 Bad Request"), "bad key"),
        (
            as_json({"message": "no", "request_id": "r1"}, "403 Forbidden"),
            'status 403 Forbidden: no {"request_id":"r1"}',
        ),
        (as_json("no", "403 Forbidden"), "status 403 Forbidden: no"),
        (answer("<h1>Bad gateway</h1>", "400 Bad", Content_Type="text/html"), "status 400 Bad: <h1>Bad gateway</h1>"),
        (answer("", "401"), "status 401"),
        (as_json({"error": {"message": "quota exhausted", "code": "quota"}}), "quota exhausted"),
        (answer("<html>Please sign in</html>", Content_Type="text/html"), "text/html: <html>Please sign in</html>"),
        (answer("\x1f\x8b", Content_Encoding="gzip"), "a body in 'gzip'"),
        (answer("\x1f\x8b", "403 Forbidden", Content_Encoding="gzip"), "status 403 Forbidden: a body in 'gzip'"),
    ],
)
async def test_a_refusal_is_quoted_whatever_its_shape(sent: bytes, quoted: str) -> None:
    found = await session(sent)
    assert found.pieces == []
    assert quoted in found.failure


# ---- tool calls


def asks(*calls: object, finish: str = "tool_calls") -> str:
    return "".join(chunk({"tool_calls": each if isinstance(each, list) else [each]}) for each in calls) + chunk(
        finish=finish
    )


def call(arguments: object, index: object = 0, call_id: object = None, name: object = "weather") -> dict[str, Any]:
    return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


OSLO, ROME = {"city": "Oslo"}, {"city": "Rome"}
OSLO_TEXT, ROME_TEXT = json.dumps(OSLO), json.dumps(ROME)
NONE: tuple[object, ...] = ("null", "", " ", None, "{}", {})
BOTH = [("weather", OSLO), ("weather", ROME)]


@pytest.mark.parametrize(
    ("sent", "calls"),
    [
        pytest.param(asks(call(OSLO_TEXT, 0, "a"), call(ROME_TEXT, 0, "b")), BOTH, id="one number"),
        pytest.param(asks(call(OSLO_TEXT, 0), call(ROME_TEXT, 0)), BOTH, id="one number, no ids"),
        pytest.param(asks([call(OSLO_TEXT, 0), call(ROME_TEXT, 0)]), BOTH, id="one number, one chunk"),
        pytest.param(asks(call(OSLO_TEXT, None, "a"), call(ROME_TEXT, None, "b")), BOTH, id="no numbers"),
        pytest.param(asks(call(OSLO_TEXT, None), call(ROME_TEXT, None)), BOTH, id="neither numbers nor ids"),
        pytest.param(asks([call(OSLO_TEXT, None), call(ROME_TEXT, None)]), BOTH, id="neither, one chunk"),
        pytest.param(asks(call(OSLO_TEXT, 0, "x"), call(ROME_TEXT, 1, "x")), BOTH, id="one id"),
        pytest.param(asks(call(OSLO_TEXT, 0, ""), call(ROME_TEXT, 1, "")), BOTH, id="empty ids"),
        pytest.param(
            asks(call(OSLO_TEXT, "0", 1), call(ROME_TEXT, "1", 2)), BOTH, id="numbers as text, and the reverse"
        ),
        pytest.param(
            asks(call('{"city"', 0, "a"), call('{"city"', 1, "b"), call(':"Oslo"}', 0, "a"), call(':"Rome"}', 1, "b")),
            BOTH,
            id="in turns",
        ),
        pytest.param(asks(call('{"city"', 0, "a"), call(':"Oslo"}', 0, "a")), BOTH[:1], id="the name again"),
        pytest.param(
            asks(call('{"city"', 0, "a"), call('{"city"', 0, "b"), call(':"Oslo"}', 0, "a"), call(':"Rome"}', 0, "b")),
            BOTH,
            id="in turns, one number",
        ),
        pytest.param(
            asks(call('{"city"', None), call(':"Oslo"}', None)), BOTH[:1], id="the name again, and no numbers"
        ),
        pytest.param(
            asks(call("", 0, "a", "wea"), call("", 0, None, "ther"), call(OSLO_TEXT, 0, None, None)),
            BOTH[:1],
            id="the name in pieces",
        ),
        pytest.param(asks(call(OSLO, 0, "a")), BOTH[:1], id="an object"),
        pytest.param(asks(call({}, 0, "a"), call(OSLO_TEXT, 0, "a", None)), BOTH[:1], id="an empty object first"),
        pytest.param(asks(call(json.dumps(OSLO_TEXT), 0, "a")), BOTH[:1], id="JSON in JSON"),
        pytest.param(asks({"index": 0, "name": "weather", "arguments": OSLO_TEXT}), BOTH[:1], id="no function"),
        pytest.param(asks({"function": {"name": "weather", "parameters": OSLO}}), BOTH[:1], id="parameters"),
        pytest.param(asks({"type": "tool_use", "id": "a", "name": "weather", "input": OSLO}), BOTH[:1], id="input"),
        pytest.param(asks(call(OSLO_TEXT), {"index": 0, "function": None}), BOTH[:1], id="function null"),
        pytest.param(asks(call(OSLO_TEXT), call(None, 1, None, None)), BOTH[:1], id="an empty one"),
        pytest.param(asks(call(OSLO_TEXT), finish="stop"), BOTH[:1], id="a stop for a reason"),
        pytest.param(
            chunk({"function_call": {"name": "weather", "arguments": '{"city":'}})
            + chunk({"function_call": {"arguments": '"Oslo"}'}}, "function_call"),
            BOTH[:1],
            id="the older form",
        ),
        pytest.param(
            as_json({"choices": [{"message": {"tool_calls": [call(OSLO_TEXT)]}, "finish_reason": "tool_calls"}]}),
            BOTH[:1],
            id="one answer",
        ),
        *(pytest.param(asks(call(none, 0, "a", "now")), [("now", {})], id=f"none: {none!r}") for none in NONE),
        pytest.param(
            asks(call("", 0, "a", "now"), call("", 0, "b", "now")), [("now", {}), ("now", {})], id="two without any"
        ),
    ],
)
async def test_calls_are_those_that_were_meant(sent: str | bytes, calls: list[Any]) -> None:
    found = await session(sent, WHOLE)
    assert (found.failure, found.text, found.finish) == ("", "Hello world.", "stop")
    assert found.calls == calls
    asked = found.bodies[1]["messages"][1]["tool_calls"]
    assert len({each["id"] for each in asked}) == len(calls)
    assert [json.loads(each["function"]["arguments"]) for each in asked] in (
        [arguments for _, arguments in calls],
        [OSLO_TEXT],
    )
    assert [each["tool_call_id"] for each in found.bodies[1]["messages"][2:]] == [each["id"] for each in asked]
    handed_over = await session(sent, clients=True)
    finish = handed_over.pieces[-1]
    assert isinstance(finish, Finish)
    assert [(each.name, json.loads(each.arguments_json)) for each in finish.calls] == calls
    assert (handed_over.failure, handed_over.calls, len(handed_over.bodies)) == ("", [], 1)


@pytest.mark.parametrize("clients", [False, True])
@pytest.mark.parametrize("sent", [asks(), HELLO + asks(call("{}", 0, "a", None)), asks(call("{}", 0, "a", ""))])
async def test_a_call_that_cannot_be_made_fails_the_session(sent: str, clients: bool) -> None:
    found = await session(sent, WHOLE, clients=clients)
    assert found.failure
    assert (found.calls, found.finish) == ([], "")


@pytest.mark.parametrize("given", ["", None, "x" * 257])
async def test_a_client_gets_an_id_of_ours_where_the_servers_cannot_be_used(given: str | None) -> None:
    ids = set()
    for _ in range(2):  # another in each answer: clients tell the calls of a whole conversation apart by them
        finish = (await session(asks(call("{}", 0, given)), clients=True)).pieces[-1]
        assert isinstance(finish, Finish)
        ids.add(finish.calls[0].call_id)
    assert len(ids) == 2
    assert all(0 < len(each) <= 256 for each in ids)
    assert given not in ids


@pytest.mark.parametrize("arguments", ['{"city": ', "[1]", "Oslo", '{"a": NaN}'])
async def test_a_client_gets_arguments_as_they_came(arguments: str) -> None:
    finish = (await session(asks(call(arguments, 0, "a")), clients=True)).pieces[-1]
    assert isinstance(finish, Finish)
    assert [(each.call_id, each.arguments_json) for each in finish.calls] == [("a", arguments)]


async def test_more_arguments_than_an_answer_may_end_with_fail_the_session() -> None:
    found = await session(asks(*(call("x" * 65_000, n, f"{n}") for n in range(5))), clients=True)
    assert (found.failure, found.finish) == (
        "calls must be at most 64, and 262144 bytes of arguments; got 5 of 325000 bytes",
        "",
    )


async def test_what_a_provider_wants_back_goes_back_as_it_came() -> None:
    signed = call(OSLO_TEXT, 0, "a") | {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    details = [{"type": "reasoning.encrypted", "data": "x"}], [{"type": "reasoning.text", "text": "hm"}]
    sent = (
        chunk({"reasoning_content": "h", "reasoning_details": details[0]})
        + chunk({"reasoning_content": "m", "reasoning_details": details[1], "extra_content": {"google": {"a": 1}}})
        + said("<think>so</think>Let me see.")
        + asks(signed)
    )
    found = await session(sent, WHOLE)
    message = found.bodies[1]["messages"][1]
    assert message["tool_calls"][0]["extra_content"] == signed["extra_content"]
    assert message["reasoning_content"] == "hm"
    assert message["reasoning_details"] == details[0] + details[1]
    assert message["extra_content"] == {"google": {"a": 1}}
    assert message["content"] == "<think>so</think>Let me see."
    assert (found.thoughts, found.text) == ("hmso", "Let me see.Hello world.")
    copilots = chunk({"reasoning_text": "h"}) + chunk({"reasoning_text": "m", "reasoning_opaque": "c2ln"})
    message = (await session(copilots + asks(call(OSLO_TEXT)), WHOLE)).bodies[1]["messages"][1]
    assert (message["reasoning_text"], message["reasoning_opaque"]) == ("hm", "c2ln")


# ---- settings for servers that refuse what others want


async def test_limits_go_on_under_their_names() -> None:
    async with serving(sending(answer(WHOLE))) as provider:
        for parameters, settings in (
            ({"max_completion_tokens": 5}, {}),
            ({"max_tokens": 5}, {}),
            ({"max_tokens": 5}, {"limit_name": "max_completion_tokens"}),
            ({"max_completion_tokens": 5}, {"limit_name": "max_tokens"}),
        ):
            agent = OpenAIAgent(provider.settings(**settings))
            [_ async for _ in agent(Turn((Message("user", "hi"),), parameters))]
            await agent.close()
    bodies = [connection.body for connection in provider.connections]
    limits = [{name: body[name] for name in body if name.startswith("max_")} for body in bodies]
    assert limits == [{name: 5} for name in ("max_completion_tokens", "max_tokens") * 2]


async def test_servers_that_know_less_are_asked_for_less() -> None:
    async with serving(sending(answer(WHOLE))) as provider:
        agent = OpenAIAgent(provider.settings(stream_options=False, developer_role="system", tools=False))
        asked = (Message("developer", "be brief"), Message("user", "hi", name="Ann"))
        [_ async for _ in agent(Turn(asked, tools=(Tool("weather", "", {"type": "object"}),)))]
        await agent.close()
    assert provider.connections[0].body == {
        "model": "tested",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi", "name": "Ann"}],
        "stream": True,
    }
