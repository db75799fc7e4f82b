"""A real Chromium, and pages for it."""

import asyncio
import base64
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dispatcher.gateway.server import HttpServer, bind
from tests.programs import START_SECONDS, need

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


class Tab:
    """The page that Chromium shows, over its DevTools protocol: as far as a page lets nobody report out of it."""

    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self._line = line
        self._numbers = itertools.count(1)
        self._loaded = False  # since `open` was called

    async def send(self, method: str, **parameters: Any) -> Any:
        """Raises AssertionError for what the browser refuses, or a script throws."""
        number = next(self._numbers)
        await self._line.send_json({"id": number, "method": method, "params": parameters})
        while (answer := await self._next()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    async def _next(self) -> Any:
        told = await self._line.receive_json()
        self._loaded |= told.get("method") == "Page.loadEventFired"
        return told

    async def open(self, url: str) -> None:
        """Return once it is loaded."""
        await self.send("Page.enable")
        self._loaded = False
        await self.send("Page.navigate", url=url)
        while not self._loaded:
            await self._next()

    async def value(self, script: str) -> Any:
        """Of an expression, as JSON has it; a promise's result."""
        told = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, script: str) -> Any:
        """Its value once it is true."""
        look = f"const look = () => {{ const found = {script}; found ? done(found) : setTimeout(look, 10); }}; look();"
        return await self.value(f"new Promise((done) => {{ {look} }})")

    async def shows(self, text: str, where: str = "body") -> None:
        await self.until(f"document.querySelector({json.dumps(where)})?.innerText.includes({json.dumps(text)})")

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self.send("Input.insertText", text=text)

    async def press(self, key: str, modifiers: int = 0) -> None:
        code = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    async def click(self, selector: str) -> None:
        await self.until(f"document.querySelector({json.dumps(selector)})?.disabled === false")
        await self.value(f"document.querySelector({json.dumps(selector)}).click()")

    async def point(self, selector: str) -> None:
        """Click on it with the mouse, which stays there."""
        middle = "(({ x, y, width, height }) => ({ x: x + width / 2, y: y + height / 2 }))"
        at = await self.value(f"{middle}(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")
        await self.send("Input.dispatchMouseEvent", type="mouseMoved", **at)
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    async def picture(self, width: int = 1280, height: int = 800, *, dark: bool = False) -> bytes:
        """A PNG of the page at that size, in CSS pixels."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[feature])
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return base64.b64decode((await self.send("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def visiting(url: str, profile: Path) -> AsyncIterator[Tab]:
    """The tab that shows that page, until the block ends."""
    async with browsing("about:blank", profile), aiohttp.ClientSession() as client:
        ready = profile / "DevToolsActivePort"
        async with asyncio.timeout(START_SECONDS):
            while not (ready.exists() and ready.read_text().count("\n")):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)
            address = f"http://127.0.0.1:{ready.read_text().split()[0]}/json/list"
            while not (tabs := [each for each in await _listed(client, address) if each["type"] == "page"]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        async with client.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0) as line:
            tab = Tab(line)
            await tab.open(url)
            yield tab


async def _listed(client: aiohttp.ClientSession, address: str) -> list[dict[str, str]]:
    async with client.get(address) as answer:
        found: list[dict[str, str]] = await answer.json()
        return found
