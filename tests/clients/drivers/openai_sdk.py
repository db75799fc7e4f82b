"""OpenAI's own SDK, both routes."""

import json
from typing import Any

import openai
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
        self.client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        self.name = name
        self.tools: Any = [
            {"type": "function", "function": {"name": "weather", "description": "Of today.", "parameters": WEATHER}},
            {"type": "function", "function": {"name": "now", "parameters": NOW}},
        ]

    def ask(self, content: Any, **more: Any) -> Any:
        messages: Any = content if isinstance(content, list) else [{"role": "user", "content": content}]
        return self.client.chat.completions.create(model="default", messages=messages, **more)

    def called(self, content: Any, **more: Any) -> list[str]:
        choice = self.ask(content, **more).choices[0]
        assert choice.finish_reason == "tool_calls", choice
        return [call.function.name for call in choice.message.tool_calls]

    def plain(self) -> None:
        answer = self.ask(SAID)
        assert answer.choices[0].message.content == SAID
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0

    def stream(self) -> None:
        chunks = list(self.ask(SAID, stream=True, stream_options={"include_usage": True}))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == SAID
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage.total_tokens > 0
        with self.client.chat.completions.stream(
            model="default", messages=[{"role": "user", "content": SAID}]
        ) as stream:
            assert stream.get_final_completion().choices[0].message.content == SAID

    def auto(self) -> None:
        message: Any = self.ask(QUESTION, tools=self.tools[:1]).choices[0].message
        (call,) = message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
        with self.client.chat.completions.stream(
            model="default", messages=[{"role": "user", "content": QUESTION}], tools=self.tools[:1]
        ) as stream:
            message = stream.get_final_completion().choices[0].message
        (streamed,) = message.tool_calls
        assert streamed.function.arguments == call.function.arguments

    def required(self) -> None:
        assert self.called(QUESTION, tools=self.tools[:1], tool_choice="required") == ["weather"]
        named: Any = {"type": "function", "function": {"name": "now"}}
        assert self.called(QUESTION, tools=self.tools, tool_choice=named) == ["now"]
        assert self.ask(SAID, tools=self.tools, tool_choice="none").choices[0].message.content == SAID

    def parallel(self) -> None:
        assert self.called(QUESTION, tools=self.tools) == ["weather", "now"]
        assert self.called(QUESTION, tools=self.tools, parallel_tool_calls=False) == ["weather"]

    def rounds(self) -> None:
        messages: Any = [{"role": "user", "content": QUESTION}]
        for result in ("rain", "sun"):
            message = self.ask(messages, tools=self.tools[:1], tool_choice="required").choices[0].message
            (call,) = message.tool_calls
            messages += [message, {"role": "tool", "tool_call_id": call.id, "content": result}]
        assert self.ask(messages, tools=self.tools[:1]).choices[0].message.content == "weather: sun"

    def structured(self) -> None:
        parsed = self.client.chat.completions.parse(
            model="default", messages=[{"role": "user", "content": "A place."}], response_format=Place
        )
        assert isinstance(parsed.choices[0].message.parsed, Place)
        answer = self.ask("A place.", response_format={"type": "json_object"}).choices[0].message.content
        assert isinstance(json.loads(answer), dict)

    def history(self) -> None:
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
        earlier: list[Any] = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "How is the weather in Rome?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
            {"role": "assistant", "content": "It is sunny."},
        ]
        assert self.ask([*earlier, {"role": "user", "content": SAID}]).choices[0].message.content == SAID
        assert self.ask(earlier[:4]).choices[0].message.content == "weather: sun"

    def image(self) -> None:
        parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
        assert self.ask([{"role": "user", "content": parts}]).choices[0].message.content == "I see image_url"

    def abort(self) -> None:
        with self.ask(endless(self.name), stream=True) as stream:
            for chunk in stream:
                if "3" in (chunk.choices[0].delta.content or ""):
                    break

    def error(self) -> None:
        error = raises(openai.InternalServerError, lambda: self.ask(FAILS))
        assert (error.status_code, error.code) == (502, "agent_error")
        said: list[str] = []

        def read() -> None:
            said.extend(chunk.choices[0].delta.content or "" for chunk in self.ask(FAILS_LATE, stream=True))

        assert raises(openai.APIError, read).code == "agent_error"
        assert "".join(said) == "So far "

    def refused(self) -> str:
        error = raises(openai.BadRequestError, lambda: self.ask(SAID, n=2))
        assert (error.code, error.param) == ("unsupported_parameter", "n")
        return str(error.body["message"])

    def filtered(self) -> None:
        choice = self.ask(BANNED).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("content_filter", LET_OUT)
        chunks = list(self.ask(BANNED, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == LET_OUT
        assert chunks[-1].choices[0].finish_reason == "content_filter"


class Responses:
    def __init__(self, url: str, name: str) -> None:
        self.client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        self.name = name
        self.tools: Any = [
            {"type": "function", "name": "weather", "description": "Of today.", "parameters": WEATHER, "strict": False},
            {"type": "function", "name": "now", "parameters": NOW, "strict": False},
        ]

    def ask(self, content: Any, **more: Any) -> Any:
        return self.client.responses.create(model="default", input=content, **more)

    def called(self, content: Any, **more: Any) -> list[str]:
        return [item.name for item in self.ask(content, **more).output if item.type == "function_call"]

    def plain(self) -> None:
        answer = self.ask(SAID, instructions="Be brief.")
        assert (answer.output_text, answer.status, answer.instructions) == (SAID, "completed", "Be brief.")
        assert answer.usage.total_tokens > 0

    def stream(self) -> None:
        events = list(self.ask(SAID, stream=True))
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID
        assert events[-1].type == "response.completed"
        with self.client.responses.stream(model="default", input=SAID) as stream:
            assert stream.get_final_response().output_text == SAID

    def auto(self) -> None:
        (call,) = self.ask(QUESTION, tools=self.tools[:1]).output
        assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})
        with self.client.responses.stream(model="default", input=QUESTION, tools=self.tools[:1]) as stream:
            (streamed,) = stream.get_final_response().output
        assert streamed.type == "function_call"
        assert streamed.arguments == call.arguments

    def required(self) -> None:
        assert self.called(QUESTION, tools=self.tools[:1], tool_choice="required") == ["weather"]
        named = {"type": "function", "name": "now"}
        assert self.called(QUESTION, tools=self.tools, tool_choice=named) == ["now"]
        allowed = {"type": "allowed_tools", "mode": "required", "tools": [named]}
        assert self.called(QUESTION, tools=self.tools, tool_choice=allowed) == ["now"]
        assert self.ask(SAID, tools=self.tools, tool_choice="none").output_text == SAID

    def parallel(self) -> None:
        assert self.called(QUESTION, tools=self.tools) == ["weather", "now"]
        assert self.called(QUESTION, tools=self.tools, parallel_tool_calls=False) == ["weather"]

    def rounds(self) -> None:
        items: Any = [{"role": "user", "content": QUESTION}]
        for result in ("rain", "sun"):
            (call,) = self.ask(items, tools=self.tools[:1], tool_choice="required").output
            items += [call, {"type": "function_call_output", "call_id": call.call_id, "output": result}]
        assert self.ask(items, tools=self.tools[:1]).output_text == "weather: sun"
        first = self.ask(QUESTION, tools=self.tools[:1])
        output = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "fog"}
        second = self.ask([output], tools=self.tools[:1], previous_response_id=first.id)
        assert second.output_text == "weather: fog"

    def structured(self) -> None:
        parsed = self.client.responses.parse(model="default", input="A place.", text_format=Place)
        assert isinstance(parsed.output_parsed, Place)
        answer = self.ask("A place.", text={"format": {"type": "json_object"}})
        assert isinstance(json.loads(answer.output_text), dict)

    def history(self) -> None:
        earlier: list[Any] = [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "How is the weather in Rome?"},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
            {"role": "assistant", "content": "It is sunny."},
        ]
        assert self.ask([*earlier, {"role": "user", "content": SAID}]).output_text == SAID
        assert self.ask(earlier[:4]).output_text == "weather: sun"

    def image(self) -> None:
        parts = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": IMAGE}]
        assert self.ask([{"role": "user", "content": parts}]).output_text == "I see image_url"

    def abort(self) -> None:
        with self.ask(endless(self.name), stream=True) as stream:
            for event in stream:
                if event.type == "response.output_text.delta" and "3" in event.delta:
                    break

    def error(self) -> None:
        failed = self.ask(FAILS)
        assert (failed.status, failed.error.code) == ("failed", "agent_error")
        events = list(self.ask(FAILS_LATE, stream=True))
        assert events[-1].type == "response.failed"
        assert events[-1].response.output_text == "So far "

    def refused(self) -> str:
        error = raises(openai.BadRequestError, lambda: self.ask(SAID, truncation="auto"))
        assert (error.code, error.param) == ("unsupported_parameter", "truncation")
        return str(error.body["message"])

    def filtered(self) -> None:
        answer = self.ask(BANNED)
        assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "content_filter")
        assert answer.output_text == LET_OUT

    def resume(self) -> None:
        with self.ask(SAID, stream=True, background=True) as stream:
            seen = [next(stream), next(stream)]
        response_id, last = seen[0].response.id, seen[-1].sequence_number
        rest = list(self.client.responses.retrieve(response_id, stream=True, starting_after=last))
        assert [*seen, *rest] == list(self.client.responses.retrieve(response_id, stream=True))
        assert rest[-1].type == "response.completed"
        assert rest[-1].response.output_text == SAID


if __name__ == "__main__":
    run("openai", {"Chat": Chat, "Responses": Responses})
