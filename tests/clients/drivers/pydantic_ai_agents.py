"""Pydantic AI, both routes."""

from typing import Any

import openai
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelRequest, ModelResponse
from pydantic_ai.exceptions import AgentRunError, ContentFilterError, ModelHTTPError
from pydantic_ai.messages import TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.openai import OpenAIProvider

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
    raises_async,
    run,
)


class Place(BaseModel):
    city: str
    people: int


class Agents:
    """calls: of the tools, as they ran."""

    def __init__(self, model: Any, name: str, refused: dict[str, Any]) -> None:
        self.model, self.name, self.unsupported = model, name, refused
        self.calls: list[str] = []

    def weather(self, city: str) -> str:
        """How the weather is."""
        self.calls.append(f"weather {city}")
        return "rain"

    def now(self) -> str:
        """What time it is."""
        self.calls.append("now")
        return "noon"

    def agent(self, *tools: Any, output: Any = str, **settings: Any) -> Any:
        return Agent(self.model, instructions="Be brief.", tools=tools, output_type=output, model_settings=settings)

    async def ask(self, content: Any, agent: Any = None, **more: Any) -> Any:
        self.calls.clear()
        return (await (agent or self.agent()).run(content, **more)).output

    async def plain(self) -> None:
        result = await self.agent().run(SAID)
        assert result.output == SAID
        assert result.response.usage.output_tokens > 0

    async def stream(self) -> None:
        async with self.agent().run_stream(SAID) as result:
            assert "".join([text async for text in result.stream_text(delta=True, debounce_by=None)]) == SAID

    async def auto(self) -> None:
        assert await self.ask(QUESTION, self.agent(self.weather)) == "weather: rain"
        assert self.calls == ["weather Oslo"]
        async with self.agent(self.weather).run_stream(QUESTION) as result:
            assert await result.get_output() == "weather: rain"

    async def required(self) -> None:
        """An output that is no text is asked for by a tool that is required."""
        assert isinstance(await self.ask("A place.", self.agent(output=Place)), Place)

    async def parallel(self) -> None:
        assert await self.ask(QUESTION, self.agent(self.weather, self.now)) == "weather: rain; now: noon"
        one = self.agent(self.weather, self.now, parallel_tool_calls=False)
        assert await self.ask(QUESTION, one) == "weather: rain"

    async def rounds(self) -> None:
        agent = self.agent(self.weather)
        first = await agent.run(QUESTION)
        again = await self.ask("And in 'Rome'?", agent, message_history=first.all_messages())
        assert (again, self.calls) == ("weather: rain", ["weather Rome"])

    async def structured(self) -> None:
        assert isinstance(await self.ask("A place.", self.agent(output=NativeOutput(Place))), Place)

    async def history(self) -> None:
        earlier = [
            ModelRequest([UserPromptPart("How is the weather in Rome?")]),
            ModelResponse([ToolCallPart("weather", {"city": "Rome"}, "call_1")]),
            ModelRequest([ToolReturnPart("weather", "sun", "call_1")]),
            ModelResponse([TextPart("It is sunny.")]),
        ]
        assert await self.ask(SAID, message_history=earlier) == SAID
        assert await self.ask(None, message_history=earlier[:3]) == "weather: sun"

    async def image(self) -> None:
        assert (
            await self.ask(["What is it?", BinaryContent(image_bytes(IMAGE), media_type="image/png")])
            == "I see image_url"
        )

    async def abort(self) -> None:
        async with self.agent().run_stream(endless(self.name)) as result:
            async for text in result.stream_text(debounce_by=None):
                if "3" in text:
                    break

    async def error(self) -> None:
        error = await raises_async(AgentRunError, self.ask(FAILS))
        assert "agent_error" in str(error), error

        async def read() -> None:
            async with self.agent().run_stream(FAILS_LATE) as result:
                await result.get_output()

        late = await raises_async((AgentRunError, openai.APIError), read())
        assert "agent_error" in str(late) or "The agent failed" in str(late), late

    async def refused(self) -> str:
        error = await raises_async(ModelHTTPError, self.ask(SAID, self.agent(**self.unsupported)))
        assert error.status_code == 400
        return str(error.body["message"])

    async def filtered(self) -> None:
        """It raises where nothing was let out, and gives what was."""
        assert await self.ask(BANNED) == LET_OUT
        await raises_async(ContentFilterError, self.ask(BANNED.removeprefix(LET_OUT)))


def _of(model: Any, **refused: Any) -> Any:
    def made(url: str, name: str) -> Agents:
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        return Agents(model("default", provider=OpenAIProvider(openai_client=client)), name, refused)

    return made


if __name__ == "__main__":
    run(
        "pydantic-ai-slim",
        {
            "Chat": _of(OpenAIChatModel, logit_bias={"1": 1}),
            "Responses": _of(OpenAIResponsesModel, openai_truncation="auto"),
        },
    )
