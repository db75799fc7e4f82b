"""smolagents' model for servers that are compatible, and its agent that calls tools."""

import gc
import json
from typing import Any, ClassVar

import openai
from PIL import Image
from smolagents import OpenAIModel, Tool, ToolCallingAgent

from tests.clients.drivers.driver import BANNED, FAILS, FAILS_LATE, LET_OUT, QUESTION, SAID, endless, raises, run


class Weather(Tool):
    name = "weather"
    description = "How the weather is."
    inputs: ClassVar = {"city": {"type": "string", "description": "Where."}}
    output_type = "string"

    def forward(self, city: str) -> str:
        return f"It rains in {city}. Call final_answer with 'rain'."


class Model:
    def __init__(self, url: str, name: str) -> None:
        self.model = OpenAIModel("default", api_base=url, api_key="none", client_kwargs={"max_retries": 0}, retry=False)
        self.name = name

    def ask(self, content: Any, **more: Any) -> Any:
        return self.model.generate([{"role": "user", "content": [{"type": "text", "text": content}]}], **more)

    def plain(self) -> None:
        answer = self.ask(SAID)
        assert answer.content == SAID
        assert answer.token_usage.output_tokens > 0

    def stream(self) -> None:
        parts = self.model.generate_stream([{"role": "user", "content": [{"type": "text", "text": SAID}]}])
        assert "".join(part.content or "" for part in parts) == SAID

    def required(self) -> None:
        """It requires a call wherever it has tools."""
        (call,) = self.ask(QUESTION, tools_to_call_from=[Weather()]).tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})

    def rounds(self) -> None:
        agent = ToolCallingAgent(tools=[Weather()], model=self.model, max_steps=3, verbosity_level=0)
        assert agent.run("Call weather for 'Oslo'.") == "rain"
        called = [call.name for step in agent.memory.steps[1:] for call in step.tool_calls or ()]
        assert called == ["weather", "final_answer"]

    def structured(self) -> None:
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        form = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
        assert self.ask("A place.", response_format=form).content == '{"city":"text"}'

    def image(self) -> None:
        content = [{"type": "text", "text": "What is it?"}, {"type": "image", "image": Image.new("RGB", (1, 1))}]
        assert self.model.generate([{"role": "user", "content": content}]).content == "I see image_url"

    def abort(self) -> None:
        content = [{"type": "text", "text": endless(self.name)}]
        stream = self.model.generate_stream([{"role": "user", "content": content}])
        for part in stream:
            if "3" in (part.content or ""):
                break
        stream.close()
        gc.collect()  # it leaves the SDK's stream open

    def error(self) -> None:
        raises(openai.InternalServerError, lambda: self.ask(FAILS))
        late = self.model.generate_stream([{"role": "user", "content": [{"type": "text", "text": FAILS_LATE}]}])
        raises(openai.APIError, lambda: list(late))

    def refused(self) -> str:
        error = raises(openai.BadRequestError, lambda: self.ask(SAID, n=2))
        return str(error.body["message"])

    def filtered(self) -> None:
        answer = self.ask(BANNED)
        assert (answer.content, answer.raw.choices[0].finish_reason) == (LET_OUT, "content_filter")


if __name__ == "__main__":
    gc.disable()  # by itself it may close such a stream while httpcore holds the lock that this takes
    run("smolagents", {"Chat": Model})
