"""MCP servers that others wrote, as an operator's file names them, over stdio and streamable HTTP."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dispatcher.tools.errors import ServiceError
from tests import programs
from tests.dispatcher.tools.http.service import Service, answer
from tests.dispatcher.tools.mcp.running import SECONDS, Running, running
from tests.mcp_servers.installed import FETCH, node, script

pytestmark = [pytest.mark.mcp, pytest.mark.slow]

Everything = Callable[[Path], AbstractAsyncContextManager[Running]]


def stdio(*command: str, more: str = "") -> str:
    return f"command = {json.dumps(command)}\n{more}"


@asynccontextmanager
async def everything_stdio(folder: Path) -> AsyncIterator[Running]:
    async with running(folder, stdio(node(), script("server-everything"), "stdio")) as toolset:
        yield toolset


@asynccontextmanager
async def listening(port: int) -> AsyncIterator[None]:
    server = await asyncio.create_subprocess_exec(
        *(node(), script("server-everything"), "streamableHttp"),
        env={"PORT": str(port)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert server.stderr
    try:
        async with asyncio.timeout(SECONDS):
            while b"listening on port" not in (line := await server.stderr.readline()):
                assert line, "it has ended"
        yield
    finally:
        server.kill()
        await server.communicate()


def at(port: int) -> str:
    return f'url = "http://127.0.0.1:{port}/mcp"\nprivate = true'


@asynccontextmanager
async def everything_http(folder: Path) -> AsyncIterator[Running]:
    port = programs.free_port()
    async with listening(port), running(folder, at(port)) as toolset:
        yield toolset


both = pytest.mark.parametrize("everything", [everything_stdio, everything_http], ids=["stdio", "http"])


@both
async def test_all_that_a_result_may_be(tmp_path: Path, everything: Everything) -> None:
    async with everything(tmp_path) as toolset:
        await toolset.offered("get-tiny-image")
        assert await toolset.call("echo", message="héllo") == ("OK", '"Echo: héllo"')
        assert await toolset.call("get-sum", a=2, b=3) == ("OK", '"The sum of 2 and 3 is 5."')
        structured = await toolset.call("get-structured-content", location="Chicago")
        assert json.loads(structured.result_json).keys() == {"temperature", "conditions", "humidity"}
        image = json.loads((await toolset.call("get-tiny-image")).result_json)
        assert [part["type"] for part in image] == ["text", "image", "text"]
        assert (await toolset.call("get-sum", a="two", b=3)).status == "INVALID_ARGUMENTS"


@both
async def test_a_call_that_is_stopped_leaves_the_connection_as_it_was(tmp_path: Path, everything: Everything) -> None:
    async with everything(tmp_path) as toolset:
        await toolset.offered("trigger-long-running-operation")
        with capture_logs() as logs:
            long = asyncio.create_task(toolset.call("trigger-long-running-operation", duration=600, steps=6000))
            assert (await toolset.call("echo", message="meanwhile")).status == "OK"
            long.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await long
            assert long.cancelled()
            assert await toolset.call("echo", message="after") == ("OK", '"Echo: after"')
        assert not toolset.task.done()
        assert not [line for line in logs if line["log_level"] in ("warning", "error")]


async def test_a_server_that_was_restarted_is_seen_to_have_forgotten_the_session(tmp_path: Path) -> None:
    port = programs.free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with listening(port):
            toolset = await stack.enter_async_context(running(tmp_path, at(port)))
            await toolset.offered("get-tiny-image")
        async with listening(port):
            assert await toolset.code("get-tiny-image") == "TOOL_ERROR session_ended"
            async with asyncio.timeout(SECONDS):
                assert isinstance(why := await toolset.down, ServiceError)
            assert why.code == "session_ended"


async def test_a_server_over_stdio_sees_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    entry = stdio(node(), script("server-everything"), "stdio", more='env = { SHOWN = "yes" }')
    async with running(tmp_path, entry) as toolset:
        await toolset.offered("get-env")
        seen = (await toolset.call("get-env")).result_json
    assert "SHOWN" in seen
    assert "s3cret" not in seen


async def test_files(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "a.txt").write_text("héllo")
    (tmp_path / "secret.txt").write_text("s3cret")
    allow = 'allow = ["read_text_file", "list_*"]\nprefix = "fs_"'
    async with running(tmp_path, stdio(node(), script("server-filesystem"), str(shown), more=allow)) as toolset:
        await toolset.offered("fs_read_text_file")
        read = await toolset.call("fs_read_text_file", path=str(shown / "a.txt"))
        assert json.loads(read.result_json) == {"content": "héllo"}
        refused = await toolset.call("fs_read_text_file", path=str(tmp_path / "secret.txt"))
        assert refused.status == "TOOL_ERROR"
        assert "Access denied" in refused.result_json
        assert await toolset.code("fs_write_file") == "UNKNOWN_TOOL unknown_tool"


@pytest.mark.parametrize(
    ("more", "status", "text"),
    [(["--allow-private-ips"], "OK", "A page of ours."), ([], "TOOL_ERROR", "not a public address")],
)
async def test_a_page_is_fetched_or_why_not(tmp_path: Path, more: list[str], status: str, text: str) -> None:
    # Where it finds a Node it would install packages for that, at the first page.
    async with (
        Service(answer(b"<html><body><p>A page of ours.</p></body></html>", "text/html")).at() as service,
        running(
            tmp_path, stdio(FETCH, "--ignore-robots-txt", *more, more=f'env = {{ PATH = "{tmp_path}" }}')
        ) as toolset,
    ):
        await toolset.offered("fetch")
        output = await toolset.call("fetch", url=service.url)
    assert output.status == status
    assert text in output.result_json
