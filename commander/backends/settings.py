"""The back-ends' settings, nested in the Commander's: COMMANDER_LOCAL__…, _OPENAI__… and _SCRIPTED__…."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, HttpUrl, JsonValue, SecretStr, field_validator, model_validator

from shared.config import Section


class LocalSettings(Section):
    """A model in this process, through llama.cpp."""

    model: Path | None = None
    """A GGUF file. None: the bundled SmolLM2."""

    context_tokens: int = Field(default=4096, ge=512)
    """What each session has for its prompt and its answer together."""

    threads: int | None = Field(default=None, ge=1)
    """None: as many as the process may use."""

    max_tokens: int = Field(default=1024, ge=1)
    """Of an answer, where the session's parameters do not say."""


class OpenAISettings(Section):
    """A server that speaks OpenAI's Chat Completions."""

    base_url: HttpUrl = HttpUrl("https://api.openai.com/v1")
    """Up to and without `/chat/completions`."""

    model: str = ""
    """As the server names it. Empty: the first one that it lists."""

    api_key: SecretStr | None = None

    connect_seconds: float = Field(default=10, gt=0)

    silence_seconds: float = Field(default=120, gt=0)
    """The longest wait for the next word, thought or part of a call; models that think send nothing for a while."""

    retries: int = Field(default=2, ge=0, le=10)
    """Of a request that was refused for the moment (408, 409, 429, 5xx) or cut before it was answered, about a second
    later, or when the server says, if that is within 120 s."""

    max_rounds: int = Field(default=8, ge=1)
    """Requests of one session: each but the last is followed by tool calls."""

    stream_options: bool = True
    """False for a server that refuses `stream_options`: then it may not count tokens."""

    developer_role: Literal["developer", "system"] = "developer"
    """`system` for a server that does not know a message's role `developer`."""

    tools: bool = True
    """False for a server that takes no `tools`: its model is shown none, and clients' are refused."""

    structured: bool = True
    """False for a server that takes no `response_format`: clients that ask for one are refused."""

    reasoning: bool = True
    """False for a model that takes no `reasoning_effort`: clients that ask for one are refused."""

    images: bool = True
    """False for a model that sees none: clients that send some are refused."""

    files: bool = True
    """False for a model that reads none: clients that send some are refused."""

    limit_name: Literal["max_tokens", "max_completion_tokens"] | None = None
    """The name of a limit on tokens, for a server that refuses the other. None: as the session named it."""

    thinks_first: bool = False
    """True only for a server whose answers begin within a thought, without the `<think>` in front: what comes before
    `</think>` is thoughts. So it is where the template writes that tag (DeepSeek R1, QwQ) and no parser takes it."""

    continues: bool = False
    """True only for a server that goes on with a last message of role `assistant` when it is asked with
    `continue_final_message` (vLLM, SGLang). Others begin a new answer, so that the user would read things twice."""

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        if key and not re.fullmatch(r"[!-~]+", key.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces")
        return key


class Say(Section):
    """Say a text at once. `{result}` in it becomes the last tool call's result, as JSON."""

    say: str


class Tokens(Section):
    """Say `w<i> ` for i from 0."""

    tokens: int = Field(ge=0)
    interval_ms: float = Field(default=0, ge=0)


class Think(Section):
    """A thought. `think` is the step's name."""

    think: str
    text: str


class ScriptedCall(Section):
    call: str
    arguments: dict[str, JsonValue] = Field(default={})


class ScriptedCalls(Section):
    """Tool calls, all at once."""

    calls: list[ScriptedCall]


class Wait(Section):
    wait_ms: float = Field(ge=0)


class Fail(Section):
    """Raise an exception with this text."""

    fail: str


class ClientCalls(Section):
    """Finish here with calls of the client's tools."""

    client_calls: list[ScriptedCall] = Field(min_length=1)


class End(Section):
    """Finish here. The tokens said so far are counted."""

    finish: Literal["stop", "length", "content_filter"]


ScriptStep = Annotated[
    Say | Tokens | Think | ScriptedCall | ScriptedCalls | ClientCalls | Wait | Fail | End,
    Field(union_mode="left_to_right"),
]


class ScriptedSettings(Section):
    """What the scripted back-end does where neither the session's parameters nor its prompt say otherwise.

    Either `steps`, or the short form: `tokens` of them, one every `interval_ms` milliseconds. In the environment
    `steps` is JSON, for example `[{"think": "Planning", "text": "…"}, {"call": "search"}, {"say": "It is {result}."}]`.
    """

    tokens: int = Field(default=20, ge=0)
    interval_ms: float = Field(default=20, ge=0)
    steps: list[ScriptStep] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("steps") is not None and {"tokens", "interval_ms"} & values.keys():
            raise ValueError("steps and tokens/interval_ms exclude each other")
        return values
