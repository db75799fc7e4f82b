import asyncio
import contextlib
import fcntl
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import structlog

from shared import logs


@pytest.fixture
def stream(logs_restored: None) -> io.StringIO:
    return io.StringIO()


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def refuse(text: str) -> None:
    try:
        Path("/not/there").read_bytes()
    except OSError as error:
        raise ValueError(text) from error


def test_json_with_context(stream: io.StringIO) -> None:
    logs.configure(json=True, stream=stream)
    structlog.contextvars.bind_contextvars(session_id="s1")
    logger = structlog.get_logger()
    logger.debug("hidden")
    logger.info("session_ended", outcome="finished", text="\ud800")
    [record] = records(stream)
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "session_ended", "level": "info", "outcome": "finished", "session_id": "s1", "text": "\ud800",
    }  # fmt: skip


def test_exceptions_are_type_and_place_without_their_text(stream: io.StringIO) -> None:
    logs.configure(json=True, stream=stream)
    try:
        refuse("a user's text")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("grpc").exception("Unexpected exception\na user's text")
    assert "user's text" not in stream.getvalue()
    for record in records(stream):
        assert record["exception"] == "ValueError"
        assert record["cause"] == "FileNotFoundError"
        assert record["raised_at"][0].startswith(__file__)
        assert record["raised_at"][0].endswith(" refuse")


def test_the_systems_words_are_kept(stream: io.StringIO) -> None:
    logs.configure(json=True, stream=stream)
    structlog.get_logger().error("cannot_listen", exc_info=OSError(98, "Address already in use"))
    [record] = records(stream)
    assert (record["exception"], record["os_error"]) == ("OSError", "Address already in use")


def test_debug_shows_the_traceback(stream: io.StringIO) -> None:
    logs.configure(json=True, level="debug", stream=stream)
    structlog.get_logger().error("failed", exc_info=ValueError("the text"))
    assert "ValueError: the text" in records(stream)[0]["exception"]


def test_libraries_go_through_the_same_renderer(stream: io.StringIO) -> None:
    logs.configure(json=True, stream=stream)
    structlog.contextvars.bind_contextvars(session_id="s1")
    logging.getLogger("grpc").warning("%s is odd", "this")
    [record] = records(stream)
    record.pop("timestamp")
    assert record == {
        "event": "library_log", "logger": "grpc", "message": "this is odd", "level": "warning", "session_id": "s1",
    }  # fmt: skip


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_libraries_are_heard_from_warnings_on(stream: io.StringIO, level: str) -> None:
    logs.configure(json=True, level=level, stream=stream)
    library = logging.getLogger("a_library")
    library.setLevel(logging.DEBUG)  # as OPENAI_LOG sets it
    library.debug("a user's text")
    library.info('HTTP Request: POST http://user:password@host/v1 "HTTP/1.1 200 sk-secret"')
    library.warning("odd")
    assert [record.get("message") for record in records(stream)] == ["odd"]


async def test_a_task_that_nobody_awaited_shows_no_payload(stream: io.StringIO) -> None:
    logs.configure(json=True, stream=stream)
    loop = asyncio.get_running_loop()
    loop.call_exception_handler(
        {"message": "Task exception was never retrieved", "future": ValueError("a user's text")}
    )
    [record] = records(stream)
    assert (record["logger"], record["message"]) == ("asyncio", "Task exception was never retrieved")
    assert "user's text" not in stream.getvalue()


def test_a_terminal_is_coloured_and_a_file_is_not(stream: io.StringIO) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    logs.configure(stream=terminal)
    structlog.get_logger().info("ready", port=1)
    assert "\x1b[" in terminal.getvalue()
    logs.configure(json=False, stream=stream)
    structlog.get_logger().info("ready", port=1)
    assert "port=1" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()


def test_a_full_device_and_a_closed_terminal_end_nothing_and_are_counted() -> None:
    terminal, end = os.openpty()
    os.close(terminal)
    for device in (Path("/dev/full").open("w"), open(end, "w")):  # noqa: PTH123, SIM115 - a descriptor; closed below
        logs.configure(stream=device)
        structlog.get_logger().info("one")
        logging.getLogger("grpc").warning("two")
        assert logs.lost() == 2
        with contextlib.suppress(OSError):
            device.close()
        structlog.get_logger().info("three")
        assert logs.lost() == 3


def test_without_standard_error_lines_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    logs.configure()
    structlog.get_logger().info("one")
    assert logs.lost() == 1


def test_lines_of_a_kind_are_few_in_a_minute_and_the_rest_is_counted(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(logs, "KIND_LINES", 2)
    logs.configure(json=True, stream=stream)
    logger = structlog.get_logger()

    def said() -> list[tuple[str, int]]:
        lines = [(line["event"], line.get("left_out", 0)) for line in records(stream)]
        stream.seek(0)
        stream.truncate()
        return lines

    for number in range(5):
        logger.warning("nonsense", number=number)
        logger.info("session_ended", each=True)
        logging.getLogger("library").warning("nonsense")
    logger.info("another")
    lines = said()
    assert lines.count(("nonsense", 0)) == lines.count(("library_log", 0)) == 2
    assert lines.count(("session_ended", 0)) == 5
    assert lines.count(("another", 0)) == 1
    assert logs.left_out() == 6
    now = 60.0
    logger.warning("nonsense")
    logger.warning("nonsense")
    assert said() == [("nonsense", 3), ("nonsense", 0)]


def test_a_line_that_was_written_in_part_spoils_none_behind_it() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(writing, "w") as stream, open(reading, "rb") as received:  # noqa: PTH123 - descriptors
        room = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
        logs.configure(json=True, stream=stream)
        logger = structlog.get_logger()
        logger.info("long", text="x" * room)
        assert logs.lost() == 1
        os.read(reading, room)
        logger.info("next")
        stream.close()
        torn, line = received.read().split(b"\n", 1)
        assert not torn
        assert json.loads(line)["event"] == "next"


def failing(text: str) -> None:
    try:
        refuse(text)
    except ValueError as error:
        raise ExceptionGroup(text, [error]) from None


@pytest.mark.parametrize("text", [False, True])
def test_an_authors_fault_is_a_whole_traceback_whose_text_a_setting_asks_for(stream: io.StringIO, text: bool) -> None:
    logs.configure(json=True, stream=stream, exception_text=text)
    said = str(["a user's text"])  # a traceback shows the lines of the source
    try:
        failing(said)
    except ExceptionGroup as error:
        structlog.get_logger().warning("agent_failed", exc_info=error, traceback=True)
    [record] = records(stream)
    assert record["exception"] == "ExceptionGroup"
    for part in ("Traceback (most recent call last):", "in refuse", "refuse(text)", "ValueError", "FileNotFoundError"):
        assert part in record["traceback"]
    assert (said in record["traceback"]) == text


def test_a_console_shows_an_authors_fault_in_lines_of_its_own(stream: io.StringIO) -> None:
    logs.configure(json=False, stream=stream, exception_text=True)
    try:
        refuse("the text")
    except ValueError as error:
        structlog.get_logger().warning("tool_failed", tool="search", exc_info=error, traceback=True)
    assert "\nTraceback (most recent call last):\n" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("ValueError: the text")
