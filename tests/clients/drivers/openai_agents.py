"""OpenAI's Agents SDK, both routes."""

from typing import Any

import openai
from agents import (
    Agent,
    ModelBehaviorError,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
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
    raises_async,
    run,
)

set_tracing_disabled(True)


class Place(BaseModel):
    city: str
    people: int


class Agents:
    """calls: of the tools, as they ran."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        self.calls: list[str] = []

        @function_tool
        def weather(city: str) -> str:
            """How the weather is."""
            self.calls.append(f"weather {city}")
            return "rain"

        @function_tool
        def now() -> str:
            """What time it is."""
            self.calls.append("now")
            return "noon"

        self.tools: list[Any] = [weather, now]

    def agent(self, tools: int = 0, output: Any = None, **settings: Any) -> Any:
        return Agent(
            name="one",
            instructions="Be brief.",
            model=self.model,
            tools=self.tools[:tools],
            output_type=output,
            model_settings=ModelSettings(**settings),
        )

    async def ask(self, content: Any, agent: Any = None) -> Any:
        self.calls.clear()
        return (await Runner.run(agent or self.agent(), content)).final_output

    async def plain(self) -> None:
        result = await Runner.run(self.agent(), SAID)
        assert result.final_output == SAID
        assert result.context_wrapper.usage.total_tokens > 0

    async def stream(self) -> None:
        result = Runner.run_streamed(self.agent(), SAID)
        said = [event.data.delta async for event in result.stream_events() if _is_text(event)]
        assert "".join(said) == result.final_output == SAID

    async def auto(self) -> None:
        assert await self.ask(QUESTION, self.agent(1)) == "weather: rain"
        assert self.calls == ["weather Oslo"]
        self.calls.clear()
        streamed = Runner.run_streamed(self.agent(1), QUESTION)
        _ = [event async for event in streamed.stream_events()]
        assert (streamed.final_output, self.calls) == ("weather: rain", ["weather Oslo"])

    async def required(self) -> None:
        assert await self.ask(QUESTION, self.agent(1, tool_choice="required")) == "weather: rain"
        await self.ask(QUESTION, self.agent(2, tool_choice="now"))
        assert self.calls[0] == "now"

    async def parallel(self) -> None:
        assert await self.ask(QUESTION, self.agent(2)) == "weather: rain; now: noon"
        assert await self.ask(QUESTION, self.agent(2, parallel_tool_calls=False)) == "weather: rain"

    async def rounds(self) -> None:
        first = await Runner.run(self.agent(1), QUESTION)
        more = [*first.to_input_list(), {"role": "user", "content": "And in 'Rome'?"}]
        assert await self.ask(more, self.agent(1)) == "weather: rain"
        assert self.calls == ["weather Rome"]

    async def structured(self) -> None:
        assert isinstance(await self.ask("A place.", self.agent(output=Place)), Place)
        assert isinstance(await self.ask(QUESTION, self.agent(1, output=Place)), Place)
        assert self.calls == ["weather Oslo"]

    async def history(self) -> None:
        earlier: list[Any] = [
            {"role": "user", "content": "How is the weather in Rome?"},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "sun"},
        ]
        assert await self.ask(earlier) == "weather: sun"
        assert await self.ask([*earlier, {"role": "user", "content": SAID}]) == SAID

    async def image(self) -> None:
        parts = [
            {"type": "input_text", "text": "What is it?"},
            {"type": "input_image", "image_url": IMAGE, "detail": "auto"},
        ]
        assert await self.ask([{"role": "user", "content": parts}]) == "I see image_url"

    async def abort(self) -> None:
        result = Runner.run_streamed(self.agent(), endless(self.name))
        async for event in result.stream_events():
            if _is_text(event) and "3" in event.data.delta:
                result.cancel()

    async def error(self) -> None:
        async def read() -> None:
            _ = [event async for event in Runner.run_streamed(self.agent(), FAILS_LATE).stream_events()]

        for asked in (self.ask(FAILS), read()):
            error = await raises_async((openai.APIError, ModelBehaviorError), asked)
            assert getattr(error, "code", None) == "agent_error" or "agent_error" in str(error), error

    async def refused(self) -> str:
        error = await raises_async(openai.BadRequestError, self.ask(SAID, self.agent(verbosity="low")))
        assert error.param in ("verbosity", "text.verbosity")
        return str(error.body["message"])

    async def filtered(self) -> None:
        if isinstance(self.model, OpenAIChatCompletionsModel):
            assert await self.ask(BANNED) == LET_OUT
        else:  # what is incomplete it takes for an error
            assert "content_filter" in str(await raises_async(ModelBehaviorError, self.ask(BANNED)))


def _is_text(event: Any) -> bool:
    return event.type == "raw_response_event" and event.data.type == "response.output_text.delta"


def _client(url: str) -> Any:
    return openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


if __name__ == "__main__":
    run(
        "openai-agents",
        {
            "Chat": lambda url, name: Agents(OpenAIChatCompletionsModel("default", _client(url)), name),
            "Responses": lambda url, name: Agents(OpenAIResponsesModel("default", _client(url)), name),
        },
    )
