"""The tools that a Dispatcher runs for its sessions: looks a call's tool up, checks its arguments, bounds its time."""

import asyncio
import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal, NamedTuple, NoReturn, Protocol, TypeAlias, get_args

import jsonschema_rs
import structlog

from dispatcher.tools import strict_json
from dispatcher.tools.context import Context
from dispatcher.tools.errors import InvalidArgumentsError, ResultTooLargeError, ToolError
from shared import records, wire
from shared.errors import text_of

logger = structlog.get_logger()

DEFAULT_TIMEOUT = 10.0  # seconds
DEFAULT_APPROVAL_SECONDS = 600.0  # a person who is asked may have to be found
MAX_COMPLAINTS = 3  # about one call's arguments
MAX_MESSAGE = 500  # characters of an error's message
MAX_CALL_ID = 100  # characters of it in a log
NOBODYS = Context()
FAILED = "The tool failed."  # all that an agent learns of a fault

Approver: TypeAlias = Literal["operator", "user"]  # an operator may decide on what a user is asked, too
APPROVERS: tuple[Approver, ...] = get_args(Approver)


class Tool(Protocol):
    """A tool of any kind.

    schema            JSON Schema of the arguments, an object
    timeout_seconds   after which the call is answered TIMEOUT, and `call` cancelled
    approval          who has to approve a call before it runs; None: nobody
    approval_seconds  after which a call that nobody approved is answered DENIED
    """

    name: str
    description: str
    schema: dict[str, Any]
    timeout_seconds: float
    approval: Approver | None
    approval_seconds: float

    async def call(self, arguments: dict[str, Any], context: Context) -> str:
        """The result as JSON. The arguments fit the schema. context: whose call it is.

        Raises InvalidArgumentsError if nothing was run, ToolError with a text for the agent, ResultTooLargeError; any
        other exception is a fault whose text stays here.
        """


class ToolOutput(NamedTuple):
    """status: as in the contract (`OK`, `TOOL_ERROR` …). result_json: valid JSON, within the contract's size."""

    status: str
    result_json: str


class UnusableSchemaError(ValueError):
    """Why a tool's schema cannot be used."""


def error_json(code: str, message: str) -> str:
    """A failed call's result, as the contract has it."""
    return json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False)


class Registry:
    """Tools by name; immutable. Raises UnusableSchemaError."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.name: _Checked(tool) for tool in tools}
        self._abandoned: set[asyncio.Task[str]] = set()
        self.tools = tuple(
            records.Tool(name, entry.tool.description, json.dumps(entry.tool.schema, ensure_ascii=False))
            for name, entry in self._tools.items()
        )

    def knows(self, name: str) -> bool:
        """Whether it is registered."""
        return name in self._tools

    def timeout(self, name: str) -> float:
        """Seconds that a call of it may take."""
        return self._tools[name].tool.timeout_seconds if name in self._tools else DEFAULT_TIMEOUT

    async def run(self, name: str, arguments_json: str, context: Context = NOBODYS) -> ToolOutput:
        """The call's answer, whatever happens. Raises nothing but CancelledError, when it is cancelled itself: then the
        tool is cancelled too.
        """
        entry = self._tools.get(name)
        if entry is None:
            return _failed("UNKNOWN_TOOL", "There is no tool of this name.")
        if entry.tool.approval:
            return _failed("DENIED", "Nobody can approve a call yet.")
        try:
            arguments = entry.arguments(arguments_json)
            result = _within_size(await self._within_limit(entry.tool, arguments, context))
        except InvalidArgumentsError as error:
            return _failed("INVALID_ARGUMENTS", str(error))
        except ResultTooLargeError:
            message = f"The result is larger than {records.MAX_RESULT_BYTES // 1024} KiB."
            return ToolOutput("TOOL_ERROR", error_json("result_too_large", message))
        except ToolError as error:
            return _failed("TOOL_ERROR", text_of(error))
        except _TimeIsUpError:
            return _failed("TIMEOUT", f"The tool took longer than {entry.tool.timeout_seconds:g} seconds.")
        except Exception as error:
            whose = {"session_id": context.session_id, "call_id": context.call_id[:MAX_CALL_ID]}
            logger.warning("tool_failed", tool=name, **whose, exc_info=error, traceback=True)
            return _failed("TOOL_ERROR", FAILED)
        return ToolOutput("OK", result)

    async def _within_limit(self, tool: Tool, arguments: dict[str, Any], context: Context) -> str:
        # A task of its own: a tool that holds up or swallows its cancellation holds nobody up, and a CancelledError
        # that it raises by itself is not taken for ours.
        task = asyncio.create_task(_guarded(tool, arguments, context), name=f"tool {tool.name}")
        try:
            await asyncio.wait({task}, timeout=tool.timeout_seconds)
        finally:
            if not task.done():
                task.cancel()
                self._abandoned.add(task)
                task.add_done_callback(self._drop)
        if not task.done():
            raise _TimeIsUpError
        if task.cancelled():
            raise RuntimeError("the tool cancelled itself")
        return task.result()

    def _drop(self, task: asyncio.Task[str]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.warning("tool_failed_late", task=task.get_name(), exc_info=error, traceback=True)


class _TimeIsUpError(Exception):
    pass


async def _guarded(tool: Tool, arguments: dict[str, Any], context: Context) -> str:
    try:
        return await tool.call(arguments, context)
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:  # would end the whole program, or pass by all that answers
        raise RuntimeError(f"the tool raised {type(error).__name__}") from error


def _within_size(result: str) -> str:
    # characters first: a text is encoded only to be measured
    if len(result) > records.MAX_RESULT_BYTES or len(result.encode()) > records.MAX_RESULT_BYTES:
        raise ResultTooLargeError
    return result


def _failed(status: str, message: str) -> ToolOutput:
    return ToolOutput(status, error_json(status.lower(), wire.well_formed(message[:MAX_MESSAGE])))


class _Checked:
    """A tool with its compiled schema."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        try:
            self._validator = jsonschema_rs.validator_for(tool.schema, retriever=_deny)
        except ValueError as error:  # jsonschema_rs.ValidationError is one
            raise UnusableSchemaError(str(error).partition("\n")[0]) from error

    def arguments(self, arguments_json: str) -> dict[str, Any]:
        """The parsed arguments. Raises InvalidArgumentsError."""
        try:
            arguments = strict_json.parse(arguments_json or "{}", records.MAX_ARGUMENTS_BYTES)
        except strict_json.StrictJSONError as error:
            raise InvalidArgumentsError(f"The arguments are no JSON that can be used: {error}.") from None
        complaints = [_complaint(error) for error in islice(self._validator.iter_errors(arguments), MAX_COMPLAINTS)]
        if complaints:
            raise InvalidArgumentsError("The arguments do not fit the tool's schema: " + "; ".join(complaints) + ".")
        if not isinstance(arguments, dict):  # a schema of another kind of tool may forget to say so
            raise InvalidArgumentsError("The arguments are no JSON object.")
        return arguments


def _complaint(error: jsonschema_rs.ValidationError) -> str:
    place = "".join(f"/{part}" for part in error.instance_path)
    text = error.message if len(error.message) <= 150 else error.message[:75] + " … " + error.message[-75:]
    return f"{place[:100]}: {text}" if place else text


def _deny(uri: str) -> NoReturn:
    """A schema must not make this program fetch anything."""
    raise ValueError(f"a schema may not refer to {uri}")
