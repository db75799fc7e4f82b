"""LiteLLM, both routes, as its users reach a server that is compatible."""

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"  # else it asks the web for one as it is imported

import litellm
from litellm.exceptions import APIError, BadGatewayError, BadRequestError, MidStreamFallbackError
from pydantic import BaseModel

from tests.clients.drivers.driver import (
    BANNED,
    FAILS,
    FAILS_LATE,
    IMAGE,
    LET_OUT,
    NOW,
    QUESTION,
    SAID,
    WEATHER,
    endless,
    raises,
    run,
)


class Place(BaseModel):
    city: str
    people: int


class Chat:
    def __init__(self, url: str, name: str) -> None:
        self.to: Any = {"model": "openai/default", "api_base": url, "api_key": "none", "max_retries": 0}
        self.name = name
        self.tools = [
            {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
            {"type": "function", "function": {"name": "now", "parameters": NOW}},
        ]

    def ask(self, content: Any, **more: Any) -> Any:
        messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
        return litellm.completion(**self.to, messages=messages, **more)

    def called(self, **more: Any) -> list[str]:
        return [call.function.name for call in self.ask(QUESTION, **more).choices[0].message.tool_calls]

    def plain(self) -> None:
        answer = self.ask(SAID)
        assert answer.choices[0].message.content == SAID
        assert answer.usage.total_tokens > 0

    def stream(self) -> None:
        chunks = list(self.ask(SAID, stream=True, stream_options={"include_usage": True}))
        whole = litellm.stream_chunk_builder(chunks)
        assert whole.choices[0].message.content == SAID

    def auto(self) -> None:
        (call,) = self.ask(QUESTION, tools=self.tools[:1]).choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
        whole = litellm.stream_chunk_builder(list(self.ask(QUESTION, tools=self.tools[:1], stream=True)))
        (streamed,) = whole.choices[0].message.tool_calls
        assert streamed.function.arguments == call.function.arguments

    def required(self) -> None:
        assert self.called(tools=self.tools[:1], tool_choice="required") == ["weather"]
        named = {"type": "function", "function": {"name": "now"}}
        assert self.called(tools=self.tools, tool_choice=named) == ["now"]

    def parallel(self) -> None:
        assert self.called(tools=self.tools) == ["weather", "now"]
        assert self.called(tools=self.tools, parallel_tool_calls=False) == ["weather"]

    def rounds(self) -> None:
        messages: Any = [{"role": "user", "content": QUESTION}]
        for result in ("rain", "sun"):
            message = self.ask(messages, tools=self.tools[:1], tool_choice="required").choices[0].message
            messages += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": result}]
        assert self.ask(messages, tools=self.tools[:1]).choices[0].message.content == "weather: sun"

    def structured(self) -> None:
        Place.model_validate_json(self.ask("A place.", response_format=Place).choices[0].message.content)

    def history(self) -> None:
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
        earlier: list[Any] = [
            {"role": "user", "content": "How is the weather in Rome?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
        ]
        assert self.ask(earlier).choices[0].message.content == "weather: sun"
        assert self.ask([*earlier, {"role": "user", "content": SAID}]).choices[0].message.content == SAID

    def image(self) -> None:
        parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
        assert self.ask([{"role": "user", "content": parts}]).choices[0].message.content == "I see image_url"

    async def abort(self) -> None:
        messages = [{"role": "user", "content": endless(self.name)}]
        stream: Any = await litellm.acompletion(**self.to, messages=messages, stream=True)
        async for chunk in stream:
            if "3" in (chunk.choices[0].delta.content or ""):
                break
        await stream.aclose()

    def error(self) -> None:
        assert "agent failed" in str(raises(BadGatewayError, lambda: self.ask(FAILS)))
        late = raises((APIError, MidStreamFallbackError), lambda: list(self.ask(FAILS_LATE, stream=True)))
        assert "agent failed" in str(late), late

    def refused(self) -> str:
        error = raises(BadRequestError, lambda: self.ask(SAID, n=2))
        return str(error).partition("OpenAIException - ")[2]

    def filtered(self) -> None:
        choice = self.ask(BANNED).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("content_filter", LET_OUT)


class Responses:
    def __init__(self, url: str, name: str) -> None:
        self.to: Any = {"model": "openai/default", "api_base": url, "api_key": "none", "max_retries": 0}
        self.name = name
        self.tools = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}]

    def ask(self, content: Any, **more: Any) -> Any:
        return litellm.responses(**self.to, input=content, **more)

    def plain(self) -> None:
        answer = self.ask(SAID)
        assert (answer.output_text, answer.status) == (SAID, "completed")
        assert answer.usage.total_tokens > 0

    def stream(self) -> None:
        events = list(self.ask(SAID, stream=True))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID

    def auto(self) -> None:
        (call,) = self.ask(QUESTION, tools=self.tools).output
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})

    def required(self) -> None:
        (call,) = self.ask(QUESTION, tools=self.tools, tool_choice={"type": "function", "name": "weather"}).output
        assert call.name == "weather"

    def parallel(self) -> None:
        now = {"type": "function", "name": "now", "parameters": NOW, "strict": False}
        assert len(self.ask(QUESTION, tools=[*self.tools, now]).output) == 2
        assert len(self.ask(QUESTION, tools=[*self.tools, now], parallel_tool_calls=False).output) == 1

    def rounds(self) -> None:
        items: Any = [{"role": "user", "content": QUESTION}]
        for result in ("rain", "sun"):
            (call,) = self.ask(items, tools=self.tools, tool_choice="required").output
            items += [
                {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
                {"type": "function_call_output", "call_id": call.call_id, "output": result},
            ]
        assert self.ask(items, tools=self.tools).output_text == "weather: sun"

    def structured(self) -> None:
        Place.model_validate_json(self.ask("A place.", text_format=Place).output_text)

    def history(self) -> None:
        earlier: list[Any] = [
            {"role": "user", "content": "How is the weather in Rome?"},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
        ]
        assert self.ask(earlier).output_text == "weather: sun"

    def image(self) -> None:
        parts = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": IMAGE}]
        assert self.ask([{"role": "user", "content": parts}]).output_text == "I see image_url"

    def error(self) -> None:
        assert self.ask(FAILS).status == "failed"

    def refused(self) -> str:
        error = raises(BadRequestError, lambda: self.ask(SAID, truncation="auto"))
        return str(json.loads(str(error).partition("OpenAIException - ")[2])["error"]["message"])

    def filtered(self) -> None:
        answer = self.ask(BANNED)
        assert (answer.status, answer.output_text) == ("incomplete", LET_OUT)


if __name__ == "__main__":
    run("litellm", {"Chat": Chat, "Responses": Responses})
