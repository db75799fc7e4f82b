"""The back-end `scripted`: says and does what it is told, letter by letter. For tests, benchmarks and demos.

A script is a JSON object: `{"tokens": 5000, "interval_ms": 1}` or `{"steps": […]}` (`ScriptedSettings`). It comes from
the session's parameters, else from the last message where that is such an object, else from the settings. Token i is
`w<i> `, so that a text that was cut shows how many tokens were made. `max_tokens` limits them as it does a model's.

Without a script, what a client asks for by its tools or of the answer is obeyed (`commander.backends.obedient`).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError

from commander.agent import Agent, ClientCall, Feature, Finish, Thought, ToolError, Turn, Yielded
from commander.backends.obedient import obedient
from commander.backends.parameters import answer_form, token_limit
from commander.backends.settings import (
    ClientCalls,
    End,
    Fail,
    Say,
    ScriptedCall,
    ScriptedCalls,
    ScriptedSettings,
    ScriptStep,
    Think,
    Tokens,
    Wait,
)

_KEYS = frozenset(ScriptedSettings.model_fields)


def token(index: int) -> str:
    """The token of that index, from 0."""
    return f"w{index} "


class ScriptedAgent:
    """Follows scripts. `produced`: tokens that all its sessions have made so far."""

    supports: tuple[Feature, ...] = ("tools", "structured", "sampling", "reasoning")

    def __init__(self, settings: ScriptedSettings) -> None:
        self._settings = settings
        self.produced = 0

    async def __call__(self, turn: Turn) -> AsyncGenerator[Yielded, None]:
        """Raises ValueError for a script that cannot be read, RuntimeError where the script says so."""
        script = _given(turn, self._settings)
        if script is None and self._settings.steps is None and _asks_for_more(turn):
            async with aclosing(obedient(turn)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        script = script or self._settings
        limit = token_limit(turn.parameters)
        said = 0
        result: Any = None
        for step in script.steps or _short(script):
            match step:
                case Say(say=text):
                    yield text.replace("{result}", json.dumps(result, ensure_ascii=False))
                case Tokens(tokens=count, interval_ms=interval):
                    pace = _Pace(interval)
                    for _ in range(count):
                        if said == limit:
                            yield Finish("length", completion_tokens=said)
                            return
                        await pace.wait()
                        self.produced += 1
                        yield token(said)
                        said += 1
                case Think(think=name, text=text):
                    yield Thought(name, text)
                case ScriptedCall():
                    result = await _call(turn, step)
                case ScriptedCalls(calls=calls):
                    result = await asyncio.gather(*(_call(turn, call) for call in calls))
                case Wait(wait_ms=milliseconds):
                    await asyncio.sleep(milliseconds / 1000)
                case Fail(fail=message):
                    raise RuntimeError(message)
                case ClientCalls(client_calls=calls):
                    handed_over = tuple(ClientCall(call.call, call.arguments) for call in calls)
                    yield Finish("tool_calls", completion_tokens=said, calls=handed_over)
                    return
                case End(finish=reason):
                    yield Finish(reason, completion_tokens=said)
                    return
        yield Finish(completion_tokens=said)


class _Pace:
    """One token every `interval_ms`, counted from the first, so that a late one does not delay those after it."""

    def __init__(self, interval_ms: float) -> None:
        self._seconds = interval_ms / 1000
        self._next = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        if not self._seconds:
            return
        self._next += self._seconds
        await asyncio.sleep(max(0.0, self._next - asyncio.get_running_loop().time()))


async def _call(turn: Turn, call: ScriptedCall) -> Any:
    try:
        return await turn.call_tool(call.call, call.arguments)
    except ToolError as error:
        return {"error": {"code": error.code, "message": error.message}}


def _short(script: ScriptedSettings) -> list[ScriptStep]:
    return [Tokens(tokens=script.tokens, interval_ms=script.interval_ms)]


def _asks_for_more(turn: Turn) -> bool:
    """Than words."""
    calls = any(tool.client for tool in turn.tools) or any(message.role == "tool" for message in turn.messages)
    return calls or answer_form(turn.parameters) is not None


def _given(turn: Turn, settings: ScriptedSettings) -> ScriptedSettings | None:
    """The session's own script; None: it has none."""
    given: Mapping[str, Any] = {key: value for key, value in turn.parameters.items() if key in _KEYS}
    newest = turn.messages[-1] if turn.messages else None
    if not given and newest and newest.role != "tool" and newest.content.lstrip().startswith("{"):
        try:
            given = json.loads(newest.content)
        except (ValueError, RecursionError):
            given = {}
    if not given:
        return None
    if "steps" not in given:
        given = {"tokens": settings.tokens, "interval_ms": settings.interval_ms, **given}
    try:
        return ScriptedSettings.model_validate(given)
    except ValidationError as error:
        raise ValueError(f"the script cannot be read: {error.errors(include_url=False)[0]}") from error


def make(settings: ScriptedSettings) -> Agent:
    """An agent that follows scripts."""
    return ScriptedAgent(settings)
