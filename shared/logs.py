"""Structured logs: JSON in production, coloured on a terminal; what libraries warn of goes through the same renderer.

    logger = structlog.get_logger()
    logger.info("session_ended", outcome="finished")  # the event's name is static, what varies stands in fields

No user text, tool arguments or secrets above DEBUG: so an exception is its type and place, not its message, and
a library's record is the first line of its text. With `traceback=True` beside `exc_info` it is its whole traceback: the
code of an agent's or a tool's author has failed. A line that cannot be written, on a full disk or a closed terminal, is
counted and forgotten: logging ends nothing.

Of one kind KIND_LINES a minute are written, for what a peer can cause it can cause without end. The rest is counted,
and the next line of that kind has the number as `left_out`. With `each=True` all are: what is told once of a session.
"""

import io
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from functools import partial
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Lines of a traceback would be many, and those of a library say little: the innermost places are enough to find it.
MAX_PLACES = 5
MAX_FRAMES = 50  # of a traceback, for what an author wrote: the innermost
MAX_CHAIN = 10  # exceptions of which each led to the next, or that one group holds

MAX_CALL_ID = 100  # characters of one in a line: a Commander chooses it
KIND_LINES = 300  # a minute; a kind is an event's name, or a library's logger

# Below that HTTP clients write a line for each request, with its URL and the server's own words: both may hold a key.
LIBRARIES = logging.WARNING


class LineWriter(io.TextIOBase):
    """Lines for the stream, each written straight to its descriptor, where it has one: what a buffer keeps of a line
    that failed would come out later, in the midst of others.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """None: standard error was closed before the program began."""
        self._stream = stream
        self._torn = False  # part of the last line was written
        self.lost = 0
        try:
            self._descriptor = stream.fileno() if stream else None
        except OSError:  # io.UnsupportedOperation: it is in memory
            self._descriptor = None

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def write(self, line: str) -> int:
        """Raises nothing."""
        try:
            if self._stream is None:
                self.lost += 1
            elif self._descriptor is None:
                self._stream.write(line)
            else:
                self._put(self._descriptor, line.encode(errors="backslashreplace"))
        except (OSError, ValueError):  # ValueError: the stream was closed
            self.lost += 1
        return len(line)

    def _put(self, descriptor: int, line: bytes) -> None:
        rest = b"\n" + line if self._torn else line
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            self._torn = 0 < len(rest) < len(line) or (self._torn and bool(rest))


class Ration:
    """KIND_LINES a minute of each kind. left_out: lines in all."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, int]] = {}  # kind → when its minute began, its lines since
        self.left_out = 0

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """For structlog. Raises DropEvent."""
        if event.pop("each", False):
            return event
        left_out = self.take(str(event["event"]))
        if left_out is None:
            raise structlog.DropEvent
        return {**event, "left_out": left_out} if left_out else event

    def filter(self, record: logging.LogRecord) -> bool:
        """For `logging`."""
        return self.take(record.name) is not None

    def take(self, kind: str) -> int | None:
        """How many of that kind were left out before; None: this one is, too."""
        now = time.monotonic()
        began, lines = self._kinds.get(kind, (now, 0))
        before = 0
        if now - began >= 60:
            before, began, lines = max(0, lines - KIND_LINES), now, 0
        self._kinds[kind] = began, lines + 1
        if lines < KIND_LINES:
            return before
        self.left_out += 1
        return None


_lines = LineWriter(None)
_ration = Ration()


def lost() -> int:
    """Lines that could not be written since `configure`."""
    return _lines.lost


def left_out() -> int:
    """Lines that were too many of their kind since `configure`."""
    return _ration.left_out


def configure(
    json: bool | None = None, level: str = "INFO", stream: TextIO | None = None, exception_text: bool = False
) -> None:
    """Send all logs, also those of `logging`, to the stream (default: stderr).

    json            None: unless the stream is a terminal
    level           DEBUG shows whole tracebacks of all exceptions
    exception_text  what exceptions say stands in the tracebacks of authors' code too; it may quote a user
    """
    global _lines, _ration  # noqa: PLW0603 - as the configuration of `logging` and `structlog` is: one for the process
    _lines = lines = LineWriter(stream or sys.stderr)
    _ration = Ration()
    if json is None:
        json = not lines.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]
    debug = number <= logging.DEBUG
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_traceback if debug else partial(_exception_as_fields, exception_text),
        *(() if json else (_shown_below,)),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=lines.isatty())
    )
    structlog.configure(
        processors=[_ration, *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
        cache_logger_on_first_use=False,
    )
    _configure_stdlib([*([] if debug else [_first_line]), _library_event, *shared], renderer, number, lines)


def _configure_stdlib(processors: list[Processor], renderer: Processor, level: int, lines: LineWriter) -> None:
    handler = logging.StreamHandler(lines)
    handler.setLevel(max(level, LIBRARIES))
    handler.addFilter(_ration.filter)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("grpc", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True


def _first_line(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    # asyncio's records go on with the repr of the failed task, which holds its exception's text
    event["event"] = str(event["event"]).strip().partition("\n")[0]
    return event


def _library_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    return {**event, "event": "library_log", "logger": record.name, "message": event["event"]}


def _exception_as_fields(text: bool, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    error = _exception(event.pop("exc_info", None))
    authors = event.pop("traceback", False)
    if error is not None:
        event["exception"] = type(error).__qualname__
        event.setdefault("raised_at", places(error))
        if authors:
            event["traceback"] = _full(error) if text else "".join(_silent(error))
        cause = error.__cause__ or error.__context__
        if cause is not None:
            event["cause"] = type(cause).__qualname__
        if isinstance(error, OSError) and error.strerror:  # the system's words: they hold no payload
            event["os_error"] = error.strerror
    return event


def _with_traceback(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    error = _exception(event.pop("exc_info", None))
    event.pop("traceback", None)
    if error is not None:
        event["exception"] = _full(error)
    return event


def _shown_below(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The console renders `exception` in lines of its own, and a traceback ends with its type."""
    if trace := event.pop("traceback", None):
        event["exception"] = trace
    return event


def _full(error: BaseException) -> str:
    return "".join(traceback.format_exception(error, limit=-MAX_FRAMES))


def _silent(error: BaseException, depth: int = 0) -> Iterator[str]:
    """As Python prints it, but without what the exceptions say."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth < MAX_CHAIN:
        yield from _silent(cause, depth + 1)
        yield "\nwhich led to:\n\n"
    if error.__traceback__:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_tb(error.__traceback__, limit=-MAX_FRAMES)
    yield f"{type(error).__qualname__}\n"
    if isinstance(error, BaseExceptionGroup) and depth < MAX_CHAIN:
        for number, part in enumerate(error.exceptions[:MAX_CHAIN], 1):
            yield f"\n{number} of its {len(error.exceptions)} exceptions:\n"
            yield from _silent(part, depth + 1)


def _exception(exc_info: object) -> BaseException | None:
    match exc_info:
        case BaseException():
            return exc_info
        case (_, BaseException() as error, _):
            return error
        case True:
            return sys.exception()
        case _:
            return None


def places(error: BaseException) -> list[str]:
    """Where it was raised, innermost first: `file:line function`, without the source lines."""
    frames = traceback.extract_tb(error.__traceback__, limit=-MAX_PLACES)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
