"""The tool calls of one session that wait for their results."""

import asyncio
import json
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from commander.agent import ToolError
from shared.records import MAX_ARGUMENTS_BYTES, MAX_OPEN_CALLS, MAX_TEXT_BYTES, ToolCall, ToolResult
from shared.wire import well_formed

CALL_ID_BYTES = 16  # the contract asks for 8 at least


class _Waiting(NamedTuple):
    tool_name: str
    future: asyncio.Future[Any]


def request(tool_name: object, arguments: object) -> ToolCall:
    """A call under a new id. Raises ToolError where the arguments cannot be sent."""
    if not isinstance(tool_name, str) or not isinstance(arguments, Mapping):
        raise ToolError("INVALID_ARGUMENTS", "a tool is called by its name, with a mapping of arguments")
    try:
        encoded = json.dumps(dict(arguments), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolError("INVALID_ARGUMENTS", f"the arguments are not JSON: {error}") from error
    if len(tool_name.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise ToolError("UNKNOWN_TOOL", f"no tool's name is larger than {MAX_TEXT_BYTES // 1024} KiB")
    encoded = well_formed(encoded)
    if len(encoded.encode()) > MAX_ARGUMENTS_BYTES:
        raise ToolError("INVALID_ARGUMENTS", f"the arguments are larger than {MAX_ARGUMENTS_BYTES // 1024} KiB")
    return ToolCall(well_formed(tool_name), encoded, secrets.token_hex(CALL_ID_BYTES))


class WaitingCalls:
    """Calls by id, in the order in which they were made.

    places   for those that are sent and have no result: whoever gathers more waits, and what it says does not
    """

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(MAX_OPEN_CALLS)
        self._waiting: dict[str, _Waiting] = {}

    @property
    def awaiting(self) -> tuple[str, ...]:
        return tuple(self._waiting)

    async def result(self, call: ToolCall) -> Any:
        """The result as parsed JSON, when it comes. Raises ToolError. An agent that no longer waits is forgotten."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[call.call_id] = _Waiting(call.tool_name, future)
        try:
            result = await future
        finally:
            self._waiting.pop(call.call_id, None)
        return _parsed(result)

    def resolve(self, result: ToolResult, *, legacy: bool) -> None:
        """Give a result to the call that it answers; one that nobody waits for is dropped.

        legacy   an older Dispatcher: by call_id, else by tool name, else the oldest call that waits
        """
        waiting = self._waiting.pop(result.call_id, None)
        if waiting is None and legacy:
            named = [call_id for call_id, call in self._waiting.items() if call.tool_name == result.tool_name]
            found = next(iter(named or self._waiting), None)
            waiting = self._waiting.pop(found) if found is not None else None
        if waiting and not waiting.future.done():
            waiting.future.set_result(result)

    def close(self) -> None:
        """The session is over: whoever still waits gets a ToolError."""
        for waiting in self._waiting.values():
            if not waiting.future.done():
                waiting.future.set_result(ToolResult(waiting.tool_name, "", "", "CANCELLED"))


def _parsed(result: ToolResult) -> Any:
    try:
        value = json.loads(result.result_json)
    except (ValueError, RecursionError):
        if result.status in ("", "OK"):
            raise ToolError("TOOL_ERROR", "the result is not JSON") from None
        value = None
    error = value.get("error") if isinstance(value, dict) else None
    if result.status == "OK" or (not result.status and not (isinstance(error, dict) and "code" in error)):
        return value
    details = error if isinstance(error, dict) else {}
    code = str(details.get("code") or result.status)
    if code.upper() == result.status:  # a detail that only repeats the status; another one says more than it
        code = result.status
    raise ToolError(code, str(details.get("message") or "the tool gave no result"))
