"""LangChain's `ChatOpenAI`, both routes."""

from functools import partial
from typing import Any

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.clients.drivers.driver import BANNED, FAILS, FAILS_LATE, IMAGE, LET_OUT, QUESTION, SAID, endless, raises, run


class Place(BaseModel):
    """A place."""

    city: str
    people: int


def weather(city: str) -> str:
    """How the weather is."""
    return f"rain in {city}"


def now() -> str:
    """What time it is."""
    return "noon"


class Model:
    def __init__(self, url: str, name: str, *, responses: bool) -> None:
        self.model = ChatOpenAI(
            model="default", base_url=url, api_key="none", max_retries=0, use_responses_api=responses, stream_usage=True
        )
        self.name, self.responses = name, responses

    def called(self, *tools: Any, **more: Any) -> list[str]:
        return [call["name"] for call in self.model.bind_tools(tools, **more).invoke(QUESTION).tool_calls]

    def plain(self) -> None:
        answer = self.model.invoke([SystemMessage("Be brief."), HumanMessage(SAID)])
        assert answer.text == SAID
        assert answer.usage_metadata["total_tokens"] > 0

    def stream(self) -> None:
        chunks = list(self.model.stream(SAID))
        assert "".join(chunk.text for chunk in chunks) == SAID
        assert sum(chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata) > 0

    def auto(self) -> None:
        bound = self.model.bind_tools([weather])
        (call,) = bound.invoke(QUESTION).tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})
        first, *others = bound.stream(QUESTION)
        (streamed,) = sum(others, first).tool_calls
        assert streamed["args"] == call["args"]

    def required(self) -> None:
        assert self.called(weather, tool_choice="required") == ["weather"]
        assert self.called(weather, now, tool_choice="now") == ["now"]
        assert self.called(weather, tool_choice="none") == []

    def parallel(self) -> None:
        assert self.called(weather, now) == ["weather", "now"]
        assert self.called(weather, now, parallel_tool_calls=False) == ["weather"]

    def rounds(self) -> None:
        messages: list[Any] = [HumanMessage(QUESTION)]
        for result in ("rain", "sun"):
            messages.append(self.model.bind_tools([weather], tool_choice="required").invoke(messages))
            messages.append(ToolMessage(result, tool_call_id=messages[-1].tool_calls[0]["id"]))
        assert self.model.bind_tools([weather]).invoke(messages).text == "weather: sun"

    def structured(self) -> None:
        for method in ("json_schema", "function_calling"):
            assert isinstance(self.model.with_structured_output(Place, method=method).invoke("A place."), Place)
        assert isinstance(self.model.with_structured_output(None, method="json_mode").invoke("JSON."), dict)

    def history(self) -> None:
        earlier = [
            HumanMessage("How is the weather in Rome?"),
            AIMessage("", tool_calls=[{"id": "call_1", "name": "weather", "args": {"city": "Rome"}}]),
            ToolMessage("sun", tool_call_id="call_1"),
        ]
        assert self.model.invoke(earlier).text == "weather: sun"
        assert self.model.invoke([*earlier, AIMessage("It is sunny."), HumanMessage(SAID)]).text == SAID

    def image(self) -> None:
        content: Any = [{"type": "text", "text": "What is it?"}, {"type": "image", "url": IMAGE}]
        assert self.model.invoke([HumanMessage(content)]).text == "I see image_url"

    async def abort(self) -> None:
        stream = self.model.astream(endless(self.name))
        async for chunk in stream:
            if "3" in chunk.text:
                break
        await stream.aclose()

    def error(self) -> None:
        if self.responses:
            # LangChain has an exception of its own for a response that failed.
            assert "agent_error" in str(raises(Exception, lambda: self.model.invoke(FAILS)))
            assert "agent_error" in str(raises(Exception, lambda: list(self.model.stream(FAILS_LATE))))
            return
        assert raises(openai.InternalServerError, lambda: self.model.invoke(FAILS)).code == "agent_error"
        assert raises(openai.APIError, lambda: list(self.model.stream(FAILS_LATE))).code == "agent_error"

    def refused(self) -> str:
        field: dict[str, Any] = {"truncation": "auto"} if self.responses else {"logprobs": True}
        error = raises(openai.BadRequestError, lambda: self.model.invoke(SAID, **field))
        assert [error.param] == list(field)
        return str(error.body["message"])

    def filtered(self) -> None:
        answer = self.model.invoke(BANNED)
        assert answer.text == LET_OUT
        if self.responses:
            assert answer.response_metadata["incomplete_details"]["reason"] == "content_filter"
        else:
            assert answer.response_metadata["finish_reason"] == "content_filter"


class ResponsesModel(Model):
    def rounds(self) -> None:
        super().rounds()
        chain = self.model.model_copy(update={"use_previous_response_id": True}).bind_tools([weather])
        asked = HumanMessage(QUESTION)
        called = chain.invoke([asked])
        result = ToolMessage("fog", tool_call_id=called.tool_calls[0]["id"])
        assert chain.invoke([asked, called, result]).text == "weather: fog"


if __name__ == "__main__":
    run(
        "langchain-openai",
        {"Chat": partial(Model, responses=False), "Responses": partial(ResponsesModel, responses=True)},
    )
