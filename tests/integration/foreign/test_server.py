"""`commander run` against a server written from the published contract alone."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from tests import programs
from tests.integration.foreign.conftest import HERE, SECONDS, Start, Stranger


@contextlib.asynccontextmanager
async def commander_run(server: Stranger, backend: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`commander run PROMPT` in the folder of agents.py."""
    named = {
        "COMMANDER_DISPATCHER": f"127.0.0.1:{(await server.line())['port']}",
        "COMMANDER_BACKEND": backend,
        "COMMANDER_LEGACY_SECONDS": "0.3",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commander", "run", "Tell me something."),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=HERE,
        env=programs.environment(named),
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def output(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Exit status, and all that it printed."""
    printed, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode is not None
    return process.returncode, printed.decode()


async def said(server: Stranger) -> str:
    """All content that the server gets until the stream is over."""
    text = ""
    while (packet := await server.line()) is not None:
        text += packet.get("content", {}).get("text", "")
    return text


async def test_a_scripted_session_finishes(stranger: Start) -> None:
    async with stranger("server.py") as server, commander_run(server, "scripted") as process:
        text = await said(server)
        status, printed = await output(process)
    assert text
    assert status == 0
    assert text in printed


async def test_results_without_a_name_answer_the_oldest_call(stranger: Start) -> None:
    async with stranger("server.py") as server, commander_run(server, "agents:two_calls") as process:
        for _ in range(2):
            assert (await server.next("tool_call"))["tool_name"] == "echo"
        await server.send({"tool_result": {"result_json": '"first"'}}, {"tool_result": {"result_json": '"second"'}})
        assert await said(server) == "first then second"
        assert (await output(process))[0] == 0


async def test_results_with_a_name_answer_the_call_of_that_name(stranger: Start) -> None:
    async with stranger("server.py") as server, commander_run(server, "agents:other_tools") as process:
        for _ in range(2):
            await server.next("tool_call")
        await server.send(
            {"tool_result": {"tool_name": "two", "result_json": '"2"'}},
            {"tool_result": {"tool_name": "one", "result_json": '"1"'}},
        )
        assert await said(server) == "1 then 2"
        assert (await output(process))[0] == 0


async def test_empty_acks_change_nothing(stranger: Start) -> None:
    async with stranger("server.py") as server, commander_run(server, "agents:two_calls") as process:
        await server.next("tool_call")
        await server.send({"ack": {}}, {"tool_result": {"result_json": "[1]"}}, {"ack": {}})
        await server.send({"tool_result": {"result_json": "null"}})
        assert await said(server) == "[1] then None"
        assert (await output(process))[0] == 0


async def test_a_stop_halts_the_agent(stranger: Start) -> None:
    async with stranger("server.py") as server, commander_run(server, "agents:endless") as process:
        await server.next("content")
        await server.send({"stop": {"reason": "RiskControl"}})
        status, printed = await output(process)
    assert status == 3
    assert "stopped: RiskControl" in printed
    assert "halted" in printed


async def test_a_stop_ends_the_wait_for_a_tool(stranger: Start) -> None:
    async with stranger("server.py") as server, commander_run(server, "agents:two_calls") as process:
        await server.next("tool_call")
        await server.send({"stop": {"reason": "UserCancel"}})
        status, printed = await output(process)
    assert status == 3
    assert "stopped: UserCancel" in printed


async def test_a_stop_may_come_before_anything_was_said(stranger: Start) -> None:
    async with stranger("server.py") as server, commander_run(server, "agents:endless") as process:
        await server.line()  # what an older server sees of `open`: a packet without a payload
        await server.send({"stop": {"reason": "Timeout"}})
        status, printed = await output(process)
    assert status == 3
    assert "stopped: Timeout" in printed
