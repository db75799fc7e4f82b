"""Tools of kind `local`: typed Python functions, sync or async, in this process."""

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Generic, NamedTuple, NotRequired, TypeVar, cast, get_type_hints

import structlog
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict

from dispatcher.tools import strict_json
from dispatcher.tools.context import Context
from dispatcher.tools.errors import InvalidArgumentsError
from dispatcher.tools.ports import Spec
from shared import records

logger = structlog.get_logger()

# Sync functions that run at once, each in a thread: of all tools, and of one. Those beyond wait, within their time.
MAX_THREADS = 32
MAX_THREADS_A_TOOL = 8

ResultT = TypeVar("ResultT")


class UnusableFunctionError(ValueError):
    """Why it cannot be a tool."""


class LocalTool:
    """A function as a tool: its docstring is the description, its type hints are the schema.

    Annotated[..., pydantic.Field(description="…", ge=0)] describes and bounds a single parameter. A parameter of type
    `dispatcher.tools.context.Context` is given what the call is of.
    """

    def __init__(self, spec: Spec, function: object, threads: "Threads") -> None:
        """spec: without description and schema. Raises UnusableFunctionError."""
        if not inspect.isroutine(function):
            raise UnusableFunctionError("is not a function")
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise UnusableFunctionError("is a generator; a tool returns one result")
        self._function: Callable[..., Any] = function
        self._threads = threads
        self._arguments, self._contexts = _arguments(function)
        try:
            schema = self._arguments.json_schema(schema_generator=_WithoutTitles)
        except PydanticUserError as error:
            raise UnusableFunctionError(f"its type hints have no JSON Schema: {_first_line(error)}") from error
        schema.pop("title", None)
        schema.setdefault("properties", {})
        self.spec = replace(spec, description=inspect.getdoc(function) or "", schema=schema)

    async def call(self, arguments: dict[str, Any], context: Context) -> str:
        """The result as JSON. Raises InvalidArgumentsError before the function runs; then whatever it raises, and
        ValueError for a result that is no JSON, ResultTooLargeError for one that is too large.
        """
        try:
            converted = self._arguments.validate_python(arguments)
        except ValidationError as error:
            raise InvalidArgumentsError(_described(error)) from None
        converted |= dict.fromkeys(self._contexts, context)
        if inspect.iscoroutinefunction(self._function):
            return await asyncio.to_thread(_encode, await self._function(**converted))
        result = await self._threads.run(self.spec.name, lambda: self._call(converted))
        return result if isinstance(result, str) else await asyncio.to_thread(_encode, await result)

    def _call(self, arguments: dict[str, Any]) -> str | Awaitable[object]:
        result = self._function(**arguments)
        # a decorator may hide that a function is a coroutine function: its coroutine goes back to the loop
        return result if inspect.isawaitable(result) else _encode(result)


def _encode(result: object) -> str:
    """Slow where the result is large: never in the loop."""
    return strict_json.encode(result, records.MAX_RESULT_BYTES)


class Threads:
    """Runs functions in threads that the program's end does not wait for, as an executor's would be.

    A function that outlives its call gives its place among all back, and keeps its tool's: what never returns takes
    from its own tool alone. So `limit` threads run at the most, and of each tool `a_tool` that outlived their calls.

    abandoned  told how many threads of a tool outlived their calls and still run
    """

    def __init__(
        self,
        limit: int = MAX_THREADS,
        a_tool: int = MAX_THREADS_A_TOOL,
        abandoned: Callable[[str, int], None] = lambda tool, threads: None,
    ) -> None:
        self._places = asyncio.Semaphore(limit)
        self._of_tool: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(a_tool))
        self._abandoned: Counter[str] = Counter()
        self._tell = abandoned

    async def run(self, tool: str, function: Callable[[], ResultT]) -> ResultT:
        """What it returns, or raises. If the caller is cancelled the function goes on, and its outcome is dropped."""
        of_tool, outcome = self._of_tool[tool], None
        await of_tool.acquire()
        try:
            async with self._places:
                outcome = self._begin(tool, function)
                result = await outcome
        finally:
            if outcome is None:  # it never ran
                of_tool.release()
            elif outcome.cancelled():
                self._runs_on(tool, 1)
                logger.warning("tool_runs_on", tool=tool, threads=self._abandoned[tool])
        if isinstance(result.error, Exception):
            raise result.error
        if result.error is not None:  # SystemExit, KeyboardInterrupt: would end the whole program
            raise RuntimeError(f"the function raised {type(result.error).__name__}") from result.error
        return cast("ResultT", result.value)

    def _begin(self, tool: str, function: Callable[[], ResultT]) -> "asyncio.Future[_Outcome[ResultT]]":
        """Raises RuntimeError where the system has no thread left."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_Outcome[ResultT]] = loop.create_future()
        context = contextvars.copy_context()

        def deliver(result: _Outcome[ResultT]) -> None:
            self._of_tool[tool].release()
            if not outcome.cancelled():
                outcome.set_result(result)
                return
            self._runs_on(tool, -1)
            if inspect.iscoroutine(result.value):
                result.value.close()

        def work() -> None:
            try:
                result = _Outcome(context.run(function), None)
            except BaseException as error:
                result = _Outcome(None, error)
            # a closed loop: nobody waits any more
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(deliver, result)

        threading.Thread(target=work, name="tool", daemon=True).start()
        return outcome

    def _runs_on(self, tool: str, change: int) -> None:
        self._abandoned[tool] += change
        self._tell(tool, self._abandoned[tool])


class _Outcome(NamedTuple, Generic[ResultT]):
    value: ResultT | None
    error: BaseException | None


class _WithoutTitles(GenerateJsonSchema):
    """Titles repeat the names, and a model pays for each token of its tools."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _arguments(function: Callable[..., Any]) -> tuple[TypeAdapter[dict[str, Any]], list[str]]:
    """What checks and converts the arguments: a TypedDict, in which any parameter name is allowed. And the parameters
    that are given the Context.
    """
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise UnusableFunctionError(f"its type hints cannot be read: {_first_line(error)}") from error
    fields: dict[str, Any] = {}
    contexts: list[str] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UnusableFunctionError(f"its parameter {parameter} cannot be given by name")
        if name not in hints:
            raise UnusableFunctionError(f"its parameter {name!r} has no type hint")
        if hints[name] in (Context, Context | None):
            contexts.append(name)
            continue
        fields[name] = hints[name] if parameter.default is parameter.empty else NotRequired[hints[name]]
    make: Any = TypedDict  # mypy wants its fields written out
    arguments = make("Arguments", fields)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    try:
        return TypeAdapter(arguments), contexts
    except PydanticUserError as error:
        raise UnusableFunctionError(f"its type hints cannot be used: {_first_line(error)}") from error


def _described(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"at /{'/'.join(map(str, first['loc']))}: {first['msg']}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
