"""LlamaIndex, both routes, as its users reach a server that is compatible."""

from typing import Any

import openai
from llama_index.core.llms import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.program.function_program import get_function_tool
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses
from pydantic import BaseModel

from tests.clients.drivers.driver import (
    BANNED,
    FAILS,
    FAILS_LATE,
    IMAGE,
    LET_OUT,
    QUESTION,
    SAID,
    endless,
    image_bytes,
    raises,
    run,
)


class Place(BaseModel):
    """A place."""

    city: str
    people: int


def weather(city: str) -> str:
    """How the weather is."""
    return "rain"


def now() -> str:
    """What time it is."""
    return "noon"


WEATHER, NOW = FunctionTool.from_defaults(weather), FunctionTool.from_defaults(now)


class Model:
    def __init__(self, llm: Any, name: str) -> None:
        self.llm, self.name = llm, name

    def ask(self, content: Any, **more: Any) -> Any:
        messages = content if isinstance(content, list) else [ChatMessage(content)]
        return self.llm.chat(messages, **more)

    def calls(self, answer: Any) -> list[tuple[str, Any]]:
        found = self.llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
        return [(call.tool_name, call.tool_kwargs) for call in found]

    def plain(self) -> None:
        assert self.ask(SAID).message.content == SAID

    def stream(self) -> None:
        assert "".join(part.delta or "" for part in self.llm.stream_chat([ChatMessage(SAID)])) == SAID

    def auto(self) -> None:
        assert self.calls(self.llm.chat_with_tools([WEATHER], QUESTION)) == [("weather", {"city": "Oslo"})]
        *_, last = self.llm.stream_chat_with_tools([WEATHER], QUESTION)
        assert self.calls(last) == [("weather", {"city": "Oslo"})]

    def required(self) -> None:
        answer = self.llm.chat_with_tools([WEATHER], QUESTION, tool_required=True)
        assert self.calls(answer) == [("weather", {"city": "Oslo"})]

    def parallel(self) -> None:
        answer = self.llm.chat_with_tools([WEATHER, NOW], QUESTION, allow_parallel_tool_calls=True)
        assert [name for name, _ in self.calls(answer)] == ["weather", "now"]

    def rounds(self) -> None:
        messages = [ChatMessage(QUESTION)]
        for result in ("rain", "sun"):
            answer = self.llm.chat_with_tools([WEATHER], chat_history=messages, tool_required=True)
            (call,) = self.llm.get_tool_calls_from_response(answer)
            messages.append(answer.message)
            extra = {"tool_call_id": call.tool_id, "call_id": call.tool_id}
            messages.append(ChatMessage(result, role=MessageRole.TOOL, additional_kwargs=extra))
        assert self.llm.chat_with_tools([WEATHER], chat_history=messages).message.content == "weather: sun"

    def structured(self) -> None:
        assert isinstance(self.llm.as_structured_llm(Place).chat([ChatMessage("A place.")]).raw, Place)
        assert get_function_tool(Place).metadata.name == "Place"

    def history(self) -> None:
        earlier = [ChatMessage("Be brief.", role=MessageRole.SYSTEM), ChatMessage("How is it?")]
        answer = self.llm.chat_with_tools([WEATHER], chat_history=earlier)
        (call,) = self.llm.get_tool_calls_from_response(answer)
        extra = {"tool_call_id": call.tool_id, "call_id": call.tool_id}
        earlier += [answer.message, ChatMessage("sun", role=MessageRole.TOOL, additional_kwargs=extra)]
        assert self.ask(earlier).message.content == "weather: sun"
        earlier += [ChatMessage("It is sunny.", role=MessageRole.ASSISTANT), ChatMessage(SAID)]
        assert self.ask(earlier).message.content == SAID

    def image(self) -> None:
        blocks = [TextBlock(text="What is it?"), ImageBlock(image=image_bytes(IMAGE), image_mimetype="image/png")]
        assert self.ask([ChatMessage(blocks=blocks)]).message.content == "I see image_url"

    async def abort(self) -> None:
        stream = await self.llm.astream_chat([ChatMessage(endless(self.name))])
        async for part in stream:
            if "3" in (part.delta or ""):
                break
        await stream.aclose()

    def refused(self) -> str:
        error = raises(openai.BadRequestError, lambda: self.ask(SAID, top_logprobs=3))
        return str(error.body["message"])


class Chat(Model):
    def error(self) -> None:
        raises(openai.InternalServerError, lambda: self.ask(FAILS))
        raises(openai.APIError, lambda: list(self.llm.stream_chat([ChatMessage(FAILS_LATE)])))

    def filtered(self) -> None:
        answer = self.ask(BANNED)
        assert (answer.message.content, answer.raw.choices[0].finish_reason) == (LET_OUT, "content_filter")


class Responses(Model):
    def error(self) -> None:
        assert self.ask(FAILS).raw.status == "failed"

    def filtered(self) -> None:
        answer = self.ask(BANNED)
        assert (answer.message.content, answer.raw.status) == (LET_OUT, "incomplete")


def _to(url: str) -> Any:
    features = {"is_chat_model": True, "is_function_calling_model": True, "should_use_structured_outputs": True}
    return {"model": "default", "api_base": url, "api_key": "none", "max_retries": 0, **features}


if __name__ == "__main__":
    run(
        "llama-index-llms-openai-like",
        {
            "Chat": lambda url, name: Chat(OpenAILike(**_to(url)), name),
            # Kept, which is not its default: the test looks at how a session ended.
            "Responses": lambda url, name: Responses(OpenAILikeResponses(**_to(url), store=True), name),
        },
    )
