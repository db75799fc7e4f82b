"""The tools that a Dispatcher runs for its sessions, and what is common to all kinds of them: a call's tool is looked
up, its arguments are checked, its time and its result are bounded, a service that fails is left alone for a while.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Container, Iterable
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple, NoReturn

import jsonschema_rs
import rfc8785
import structlog

from dispatcher.tools import strict_json
from dispatcher.tools.breaker import Breaker
from dispatcher.tools.context import Context
from dispatcher.tools.errors import (
    InvalidArgumentsError,
    ResultTooLargeError,
    ServiceError,
    ToolError,
    UnknownOutcomeError,
    UnreachableError,
)
from dispatcher.tools.ports import UNKNOWN_TIMEOUT, Spec, Tool
from dispatcher.tools.running_on import RunningOn
from shared import records, wire
from shared.errors import text_of
from shared.logs import MAX_CALL_ID

logger = structlog.get_logger()

MAX_COMPLAINTS = 3  # about one call's arguments
MAX_MESSAGE = 500  # characters of an error's message
MAX_KNOWN = 10_000  # names of tools that were ever offered: a server may make up new ones for ever
_LINEAR, _STEPS = jsonschema_rs.RegexOptions(), jsonschema_rs.FancyRegexOptions(backtrack_limit=1000)
NOBODYS = Context()
NO_TOOL = "There is no tool of this name."
FAILED = "The tool failed."  # all that an agent learns of a fault
UNAVAILABLE = "The tool's service has failed several times in a row, and is left alone for a few seconds."
RUNS_ON = "Too many earlier calls of the tool have not ended."
UNKNOWN_OUTCOME = "The connection was lost before the answer came; whether the tool ran is not known."


class ToolOutput(NamedTuple):
    """status: as in the contract (`OK`, `TOOL_ERROR` …). result_json: valid JSON, within the contract's size."""

    status: str
    result_json: str


class ApprovalRequest(NamedTuple):
    """What somebody has to approve: a call's arguments as RFC 8785 writes them, their digest in hex, and for how long
    that may take.
    """

    arguments_json: str
    arguments_sha256: str
    seconds: float


class UnusableSchemaError(ValueError):
    """Why a tool's schema cannot be used."""


def error_json(code: str, message: str) -> str:
    """A failed call's result, as the contract has it."""
    return json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False)


class Registry:
    """Tools by name, as they are now. running: told of each tool's calls, one more or one less; runs_on: how many of
    its calls run on, though they were cancelled; held: which tool has one more call or one less, from when it is
    looked up, before its turn, until all of it has ended, as what is taken back of it.
    """

    def __init__(
        self,
        tools: Iterable[Tool] = (),
        running: Callable[[str, int], None] = lambda tool, change: None,
        runs_on: Callable[[str, int], None] = lambda tool, calls: None,
        held: Callable[[Tool, int], None] = lambda tool, change: None,
    ) -> None:
        """Raises UnusableSchemaError."""
        self._entries: dict[str, _Entry] = {}
        self._known: set[str] = set()
        self._running, self._held = running, held
        self._running_on = RunningOn(runs_on)
        self.use(tools)

    def use(self, tools: Iterable[Tool], down: Container[str] = ()) -> None:
        """From now on there are these; what runs ends as it began. down: the names of those that agents are not shown,
        as their server is lost. Raises UnusableSchemaError, and nothing has changed.
        """
        entries: dict[str, _Entry] = {}
        for tool in tools:
            old = self._entries.get(tool.spec.name)
            entries[tool.spec.name] = entry = old.of(tool) if old and old.tool.spec == tool.spec else _Entry(tool)
            entry.shown = tool.spec.name not in down
        self._entries = entries
        if len(self._known) < MAX_KNOWN:
            self._known |= entries.keys()

    def offered(self, agent: str) -> tuple[records.Tool, ...]:
        """What that agent is shown."""
        return tuple(entry.record for entry in self._entries.values() if entry.shown and entry.tool.spec.serves(agent))

    def specs(self) -> tuple[Spec, ...]:
        """Of all tools that some agent is shown."""
        return tuple(entry.tool.spec for entry in self._entries.values() if entry.shown)

    @property
    def up(self) -> dict[str, bool]:
        """All tools, and whether agents are shown them: not where their server is lost."""
        return {name: entry.shown for name, entry in self._entries.items()}

    @property
    def forwards_tokens(self) -> bool:
        """Whether some tool shows its service the user's own token."""
        return any(entry.tool.spec.forward_token for entry in self._entries.values())

    def knows(self, name: str) -> bool:
        """Whether there is, or was, a tool of that name: of another name nobody is told."""
        return name in self._known

    def spec(self, name: str, agent: str) -> Spec | None:
        """Of the tool that a call of that agent would run."""
        entry = self._entries.get(name)
        return entry.tool.spec if entry and entry.tool.spec.serves(agent) else None

    def timeout(self, name: str) -> float:
        """Seconds that a call of it may take, at whichever instance."""
        entry = self._entries.get(name)
        return entry.tool.spec.timeout_seconds if entry else UNKNOWN_TIMEOUT

    def approval(self, name: str, agent: str) -> str:
        """Who has to approve a call of that agent, as in `Spec`; empty: nobody."""
        spec = self.spec(name, agent)
        return (spec.approval or "") if spec else ""

    async def request(self, name: str, arguments_json: str, agent: str) -> "ApprovalRequest | ToolOutput":
        """What has to be approved before such a call runs; or its answer, where it would not run."""
        entry = self._entries.get(name)
        if entry is None or not entry.tool.spec.serves(agent):
            return _failed("UNKNOWN_TOOL", NO_TOOL)
        try:
            # slow where there are many values: not in the loop
            canonical = await asyncio.to_thread(rfc8785.dumps, entry.arguments(arguments_json))
        except InvalidArgumentsError as error:
            return _failed("INVALID_ARGUMENTS", str(error))
        except rfc8785.CanonicalizationError as error:  # integers that JSON's other readers would round
            return _failed("INVALID_ARGUMENTS", f"The arguments cannot be approved as they are: {error}.")
        return ApprovalRequest(
            canonical.decode(), hashlib.sha256(canonical).hexdigest(), entry.tool.spec.approval_seconds
        )

    async def run(self, name: str, arguments_json: str, context: Context = NOBODYS) -> ToolOutput:
        """The call's answer, whatever happens. Raises nothing but CancelledError, when it is cancelled itself: then the
        tool is cancelled too.
        """
        entry = self._entries.get(name)
        if entry is None or not entry.tool.spec.serves(context.agent):
            return _failed("UNKNOWN_TOOL", NO_TOOL)
        if self._running_on.too_many(name):
            return _failed("TOOL_ERROR", RUNS_ON, "tool_busy")
        self._running(name, 1)
        try:
            arguments = entry.arguments(arguments_json)
            result = _within_size(await self._within_limit(entry, arguments, context))
        except InvalidArgumentsError as error:
            return _failed("INVALID_ARGUMENTS", str(error))
        except ResultTooLargeError:
            message = f"The result is larger than {records.MAX_RESULT_BYTES // 1024} KiB."
            return _failed("TOOL_ERROR", message, "result_too_large")
        except UnknownOutcomeError:
            return _failed("UNKNOWN_OUTCOME", UNKNOWN_OUTCOME)
        except ToolError as error:
            return _failed("TOOL_ERROR", text_of(error), error.code if isinstance(error, ServiceError) else "")
        except _TimeIsUpError:
            return _failed("TIMEOUT", f"The tool took longer than {entry.tool.spec.timeout_seconds:g} seconds.")
        except Exception as error:
            logger.warning("tool_failed", **_whose(context), **_fault(entry.tool.spec, error))
            return _failed("TOOL_ERROR", FAILED)
        finally:
            self._running(name, -1)
        return ToolOutput("OK", result)

    async def _within_limit(self, entry: "_Entry", arguments: dict[str, Any], context: Context) -> str:
        if context.token and not entry.tool.spec.forward_token:
            context = replace(context, token="")
        # A task of its own: a tool that holds up or swallows its cancellation holds nobody up, and a CancelledError
        # that it raises by itself is not taken for ours.
        call = _Call(entry, arguments, context)
        self._held(entry.tool, 1)
        task = asyncio.create_task(call.made(), name=f"tool {entry.tool.spec.name}")
        task.add_done_callback(lambda _: self._held(entry.tool, -1))
        try:
            await asyncio.wait({task}, timeout=entry.tool.spec.timeout_seconds)
            call.timed_out = not task.done()
        finally:
            if not task.done():
                self._running_on.cancel(entry.tool.spec.name, task)
                task.add_done_callback(partial(_told, entry.tool.spec, context))
        if not task.done():
            raise _TimeIsUpError
        if task.cancelled():
            raise RuntimeError("the tool cancelled itself")
        return task.result()


def _told(spec: Spec, context: Context, task: asyncio.Task[str]) -> None:
    """What a call that nobody waits for any more has ended with."""
    error = None if task.cancelled() else task.exception()
    if error and not isinstance(error, ToolError | UnknownOutcomeError | ResultTooLargeError):
        logger.warning("tool_failed_late", **_whose(context), **_fault(spec, error))


def _fault(spec: Spec, error: BaseException) -> dict[str, Any]:
    """For a line of the log: of an author's own tool all; of another service's neither URL nor header nor answer."""
    if spec.kind == "local":
        return {"tool": spec.name, "exc_info": error, "traceback": True}
    logger.debug("tool_fault", tool=spec.name, exc_info=error, traceback=True)
    return {"tool": spec.name, "error": type(error).__name__}


def _whose(context: Context) -> dict[str, str]:
    """For a line of the log."""
    return {"session_id": context.session_id, "call_id": context.call_id[:MAX_CALL_ID]}


class _TimeIsUpError(Exception):
    pass


class _Call:
    """One call of a tool, in its turn; timed_out: why it is cancelled, if it is."""

    def __init__(self, entry: "_Entry", arguments: dict[str, Any], context: Context) -> None:
        self._entry, self._arguments, self._context = entry, arguments, context
        self.timed_out = False

    async def made(self) -> str:
        entry = self._entry
        breaker = entry.breaker
        if breaker is None:
            return await self._guarded()
        if breaker.is_open(monotonic()):  # known before it has its turn
            raise ServiceError("unavailable", UNAVAILABLE)
        async with entry.turns:
            if not breaker.admit(monotonic()):
                raise ServiceError("unavailable", UNAVAILABLE)
            try:
                result = await self._tried()
            except asyncio.CancelledError:
                if self.timed_out:
                    breaker.failed(monotonic())
                else:
                    breaker.dropped()
                raise
            except (ToolError, ResultTooLargeError) as error:
                if isinstance(error, ServiceError) and error.failing:
                    breaker.failed(monotonic())
                else:
                    breaker.answered()
                raise
            except UnknownOutcomeError:
                breaker.failed(monotonic())
                raise
            except Exception:  # nothing was sent, or a fault of ours
                breaker.dropped()
                raise
            breaker.answered()
            return result

    async def _tried(self) -> str:
        """Once; where nothing was answered, and the tool says that it may be, once more."""
        spec = self._entry.tool.spec
        try:
            return await self._guarded()
        except (UnreachableError, UnknownOutcomeError):
            if not spec.idempotent:
                raise
        logger.info("tool_tried_again", tool=spec.name, **_whose(self._context))
        return await self._guarded()

    async def _guarded(self) -> str:
        try:
            return await self._entry.tool.call(self._arguments, self._context)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:  # would end the whole program, or pass by all that answers
            raise RuntimeError(f"the tool raised {type(error).__name__}") from error


def _within_size(result: str) -> str:
    # characters first: a text is encoded only to be measured
    if len(result) > records.MAX_RESULT_BYTES or len(result.encode()) > records.MAX_RESULT_BYTES:
        raise ResultTooLargeError
    return result


def _failed(status: str, message: str, code: str = "") -> ToolOutput:
    return ToolOutput(status, error_json(code or status.lower(), wire.well_formed(message[:MAX_MESSAGE])))


class _Entry:
    """A tool with what its calls share. shown: agents are told of it."""

    def __init__(self, tool: Tool) -> None:
        """Raises UnusableSchemaError."""
        spec = tool.spec
        self.tool, self.shown = tool, True
        self._validator = check_schema(spec.schema)
        self.turns = asyncio.Semaphore(spec.concurrency)
        # A function in this process is no service: what it raises speaks of its arguments or its author.
        self.breaker = Breaker() if spec.kind != "local" else None
        self.record = records.Tool(spec.name, spec.description, json.dumps(spec.schema, ensure_ascii=False))

    def of(self, tool: Tool) -> "_Entry":
        """The same tool as it was made anew, for calls that share all this with those that run."""
        entry = copy(self)
        entry.tool = tool
        return entry

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


def check_schema(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """What checks arguments. Raises UnusableSchemaError."""
    try:
        return jsonschema_rs.validator_for(schema, retriever=_deny)
    except ValueError as error:  # jsonschema_rs.ValidationError is one
        raise UnusableSchemaError(str(error).partition("\n")[0]) from error


def misfit(schema: dict[str, Any], value: Any) -> str:
    """The place in a value that does not fit a schema, and the keyword there; empty: it fits. Both may be a stranger's,
    so patterns take linear time or, where they look around or back, few steps. Raises UnusableSchemaError.
    """
    try:
        validator = jsonschema_rs.validator_for(schema, retriever=_deny, pattern_options=_LINEAR)
    except ValueError:
        try:
            validator = jsonschema_rs.validator_for(schema, retriever=_deny, pattern_options=_STEPS)
        except ValueError as error:
            raise UnusableSchemaError(str(error).partition("\n")[0]) from error
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return f"{_place(error) or 'it'} does not fit {error.schema_path[-1]!r}"
    return ""


def _complaint(error: jsonschema_rs.ValidationError) -> str:
    place = _place(error)
    text = error.message if len(error.message) <= 150 else error.message[:75] + " … " + error.message[-75:]
    return f"{place}: {text}" if place else text


def _place(error: jsonschema_rs.ValidationError) -> str:
    return "".join(f"/{part}" for part in error.instance_path)[:100]


def _deny(uri: str) -> NoReturn:
    """A schema must not make this program fetch anything."""
    raise ValueError(f"a schema may not refer to {uri}")
