"""Toolsets of kind `mcp` over stdio: a server that follows a script, and one that somebody else wrote."""

import ast
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification
from structlog.testing import capture_logs

from dispatcher.tools.identity import identity
from dispatcher.tools.mcp import process
from dispatcher.tools.mcp.process import Lines, Oversize
from dispatcher.tools.mcp.web import MAX_MESSAGE_BYTES
from dispatcher.tools.registry import ToolOutput
from tests.dispatcher.tools.mcp.running import CALL, SECONDS, Running, running
from tests.replicas import eventually

SERVER = Path(__file__).with_name("server.py")


@asynccontextmanager
async def scripted(folder: Path, more: str = "") -> AsyncIterator[Running]:
    command = json.dumps([sys.executable, str(SERVER), "seen"])
    async with running(folder, f"command = {command}\n{more}") as toolset:
        await toolset.offered("echo")
        yield toolset


def seen(folder: Path) -> list[str]:
    file = folder / "seen"
    return file.read_text().splitlines() if file.exists() else []


async def until_seen(folder: Path, line: str) -> None:
    await asyncio.to_thread(eventually, lambda: any(found.startswith(line) for found in seen(folder)), line)


async def test_a_call_has_its_identity_and_its_result(tmp_path: Path) -> None:
    async with scripted(tmp_path) as toolset:
        assert await toolset.call("echo", city="Oslo") == ("OK", json.dumps('{"city": "Oslo"}'))
        assert (await toolset.call("structured")).result_json == '{"sum":3}'
    call = identity(CALL)
    assert seen(tmp_path)[0] == f"echo {call.key} {call.traceparent}"


async def test_what_a_server_says_of_a_failure_reaches_the_agent(tmp_path: Path) -> None:
    async with scripted(tmp_path) as toolset:
        assert json.loads((await toolset.call("failing")).result_json)["error"]["message"] == "no such city"
        assert json.loads((await toolset.call("refused")).result_json)["error"] == {
            "code": "mcp_-32602",
            "message": "unknown city",
        }


async def test_a_stop_cancels_the_call_at_the_server(tmp_path: Path) -> None:
    async with scripted(tmp_path) as toolset:
        call = asyncio.create_task(toolset.call("silent"))
        await until_seen(tmp_path, "silent ")
        call.cancel()
        await until_seen(tmp_path, "cancelled silent")
        assert (await toolset.call("echo")).status == "OK"


async def test_a_time_limit_cancels_it_too(tmp_path: Path) -> None:
    async with scripted(tmp_path, "timeout_seconds = 0.1") as toolset:
        assert await toolset.code("silent") == "TIMEOUT timeout"
        await until_seen(tmp_path, "cancelled silent")


async def lost_at(tool: str, toolset: Running, waiting: "asyncio.Task[ToolOutput]", *codes: str) -> None:
    """At a call of that tool, which ends so. Nobody knows what became of what waits; the connection has ended."""
    assert await toolset.code(tool) in codes
    assert (await waiting).status == "UNKNOWN_OUTCOME"
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(toolset.task, return_exceptions=True)


async def test_a_server_that_dies_leaves_its_call_open_and_ends_the_connection(tmp_path: Path) -> None:
    async with scripted(tmp_path) as toolset:
        waiting = asyncio.create_task(toolset.call("silent"))
        await until_seen(tmp_path, "silent ")
        await lost_at("dies", toolset, waiting, "UNKNOWN_OUTCOME unknown_outcome")
        assert await toolset.code("echo") == "TOOL_ERROR unreachable"
    assert [line.split()[0] for line in seen(tmp_path)] == ["silent", "dies"]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_server_that_hears_nothing_any_more_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.1)

    async def lost() -> None:
        async with scripted(tmp_path) as toolset:
            waiting = asyncio.create_task(toolset.call("deafens"))
            await until_seen(tmp_path, "deaf")
            # The kernel may have told of it before something is written, or only by refusing that.
            await lost_at("echo", toolset, waiting, "TOOL_ERROR unreachable", "UNKNOWN_OUTCOME unknown_outcome")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(lost())


async def test_what_a_server_does_not_read_is_not_heaped_up() -> None:
    message = SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="m", params={"text": "x" * 50_000}))
    heard, received = anyio.create_memory_object_stream[process.Sent](0)
    child = await asyncio.create_subprocess_exec("sleep", "600", stdin=asyncio.subprocess.PIPE)
    assert child.stdin
    sending = process.Stdin(child.stdin, heard)

    async def send_all() -> None:
        for _ in range(100):
            await sending.send(message)

    with heard, received:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(send_all(), 0.5)
        size = child.stdin.transport.get_write_buffer_size()
        child.kill()
        await child.wait()
    assert 0 < size < 200_000, "of 5,000,000"


@pytest.mark.parametrize("tool", ["huge_id_first", "huge_id_last"])
async def test_a_result_that_is_too_large_costs_its_call_only(tmp_path: Path, tool: str) -> None:
    async with scripted(tmp_path) as toolset:
        assert await toolset.code(tool) == "TOOL_ERROR result_too_large"
        assert (await toolset.call("echo")).status == "OK"


async def test_what_a_server_asks_for_is_refused_and_said_once(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with scripted(tmp_path) as toolset:
            for _ in range(2):
                assert (await toolset.call("asks")).result_json == '"refused"'
    told = [line["what"] for line in logs if line["event"] == "toolset_refused"]
    assert told == ["asks_for_sampling/createMessage", "asks_for_elicitation/create", "asks_for_roots/list"]


async def test_a_flood_of_notifications_is_read_and_said_once(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with scripted(tmp_path) as toolset:
            for _ in range(2):
                assert (await toolset.call("floods")).result_json == '"flooded"'
    assert [line["what"] for line in logs if line["event"] == "toolset_refused"] == ["floods_of_notifications"]


async def test_tools_that_change_while_a_call_runs_are_offered(tmp_path: Path) -> None:
    async with scripted(tmp_path) as toolset:
        waiting = asyncio.create_task(toolset.call("silent"))
        await until_seen(tmp_path, "silent ")
        assert (await toolset.call("changes")).status == "OK"
        await toolset.offered("late")
        assert not waiting.done()
        waiting.cancel()


@pytest.mark.parametrize(
    ("tool", "outcome"), [("other", '"mine"'), ("stderr", '"said"'), ("garbage", '"none the less"')]
)
async def test_what_is_no_answer_is_passed_over(tmp_path: Path, tool: str, outcome: str) -> None:
    with capture_logs() as logs:
        async with scripted(tmp_path) as toolset:
            assert (await toolset.call(tool)).result_json == outcome
    assert all(line["log_level"] == "debug" for line in logs if "secret" in str(line))


async def test_a_number_that_is_none_is_no_result(tmp_path: Path) -> None:
    async with scripted(tmp_path) as toolset:
        assert await toolset.code("nan") in ("TOOL_ERROR invalid_json", "TOOL_ERROR broken_answer")


async def test_a_server_sees_no_secrets_of_the_environment_and_ends_with_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_SECRET", "s3cret")
    script = "import os, sys; open('saw', 'w').write(repr((os.getpid(), dict(os.environ)))); sys.argv = ['', 'seen']"
    (tmp_path / "wrapped.py").write_text(f"{script}\nexec(open({str(SERVER)!r}).read())\n")
    command = json.dumps([sys.executable, "wrapped.py"])
    async with running(tmp_path, f'command = {command}\nenv = {{ KEY = "value" }}') as toolset:
        await toolset.offered("echo")
    pid, environment = ast.literal_eval((tmp_path / "saw").read_text())
    assert "s3cret" not in environment.values()
    assert environment["KEY"] == "value"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with running(tmp_path, 'command = ["no-such-program"]') as toolset:
        (error,) = await asyncio.gather(toolset.task, return_exceptions=True)
        assert str(error) == "no-such-program: No such file or directory"


async def test_a_server_that_somebody_else_wrote(tmp_path: Path) -> None:
    command = json.dumps([sys.executable, "-m", "mcp_server_time"])
    async with running(tmp_path, f'command = {command}\nallow = ["get_*"]\nprefix = "time_"') as toolset:
        await toolset.offered("time_get_current_time")
        output = await toolset.call("time_get_current_time", timezone="Asia/Tokyo")
        assert json.loads(output.result_json)["datetime"].endswith("+09:00")
        assert await toolset.code("time_convert_time") == "UNKNOWN_TOOL unknown_tool"


@given(st.lists(st.binary(max_size=20)), st.data())
def test_lines_are_the_same_however_they_come(written: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line.replace(b"\n", b"") + b"\n" for line in written)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))) | {0, len(whole)})
    lines = Lines()
    found = [line for first, last in pairwise(cuts) for line in lines.of(whole[first:last])]
    assert found == whole.split(b"\n")[:-1]


@pytest.mark.parametrize(
    ("first", "last", "call"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":"', b'"}', 7),
        (b'{"result":"', b'","jsonrpc":"2.0","id":8}', 8),
        (b'{"result":"\\"id\\":9', b'"}', None),
        (b'{"result":{"id":9,"text":"', b'"}}', None),
    ],
)
def test_of_a_line_that_is_too_long_the_call_is_kept(first: bytes, last: bytes, call: int | None) -> None:
    lines = Lines()
    found = [*lines.of(first + b"x" * MAX_MESSAGE_BYTES), *lines.of(b"y" * 1000 + last + b"\nnext\n")]
    assert isinstance(found[0], Oversize)
    assert found[0].call == call
    assert found[1:] == [b"next"]
