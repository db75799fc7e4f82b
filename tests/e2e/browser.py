"""A real Chromium, and pages for it."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dispatcher.gateway.server import HttpServer, bind
from tests.programs import need

# As root, on a machine without a screen, and without asking for anything outside it
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",  # keeps it open until it is ended
)


@asynccontextmanager
async def browsing(url: str, profile: Path, *flags: str) -> AsyncIterator[None]:
    """With that page open, until the block ends."""
    need("chromium")
    with (profile / "chromium.log").open("wb") as log:
        browser = await asyncio.create_subprocess_exec(
            "chromium",
            *FLAGS,
            *flags,
            f"--user-data-dir={profile}",
            url,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(browser.pid, signal.SIGKILL)  # it has children; the group is its own
        await browser.wait()


class Page:
    """Serves one page under any name, and takes down what it reports, in order."""

    def __init__(self) -> None:
        self.text = ""
        self.reports: asyncio.Queue[Any] = asyncio.Queue()
        self.app = Starlette(routes=[Route("/", self._show), Route("/report", self._take, methods=["POST"])])

    async def _show(self, _: Request) -> Response:
        return HTMLResponse(self.text)

    async def _take(self, request: Request) -> Response:
        self.reports.put_nowait(json.loads(await request.body()))
        return Response(status_code=204)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """The port that it is on."""
    server = HttpServer(app, bind("TEST", "127.0.0.1:0"))
    await server.start()
    try:
        yield server.port
    finally:
        await server.close()
