"""Structured logs: JSON in production, coloured on a terminal; what libraries log goes through the same renderer.

    log = structlog.get_logger()
    log.info("session_ended", outcome="finished")      # the event's name is static, what varies stands in fields

No user text, tool arguments or secrets above DEBUG: so an exception is its type and place, not its message, and
a library's record is the first line of its text.
"""

import logging
import sys
import traceback
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Lines of a traceback would be many, and those of a library say little: the innermost places are enough to find it.
MAX_PLACES = 5


def configure(json: bool | None = None, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send all logs, also those of `logging`, to the stream (default: stderr).

    json   None: unless the stream is a terminal
    level  DEBUG shows whole tracebacks too
    """
    stream = stream or sys.stderr
    if json is None:
        json = not stream.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]
    debug = number <= logging.DEBUG
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_traceback if debug else _exception_as_fields,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    _configure_stdlib([*([] if debug else [_first_line]), _library_event, *shared], renderer, number, stream)


def _configure_stdlib(processors: list[Processor], renderer: Processor, level: int, stream: TextIO) -> None:
    handler = logging.StreamHandler(stream)
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


def _exception_as_fields(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    error = _exception(event.pop("exc_info", None))
    if error is not None:
        event["exception"] = type(error).__qualname__
        event["raised_at"] = places(error)
        cause = error.__cause__ or error.__context__
        if cause is not None:
            event["cause"] = type(cause).__qualname__
        if isinstance(error, OSError) and error.strerror:  # the system's words: they hold no payload
            event["os_error"] = error.strerror
    return event


def _with_traceback(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    error = _exception(event.pop("exc_info", None))
    if error is not None:
        event["exception"] = "".join(traceback.format_exception(error))
    return event


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
