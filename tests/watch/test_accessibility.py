"""Each page and state of it, light, dark and on a telephone: axe-core finds nothing."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from dispatcher.access.watch import Access
from dispatcher.gateway.app import user_app
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.e2e.browser import Tab, serving, visiting
from tests.e2e.test_console import HOSTILE, begin, console
from tests.e2e.test_user_page import RULES
from tests.shared.documents import ROOT

pytestmark = pytest.mark.watch

AXE = ROOT / "build/watch/node_modules/axe-core/axe.min.js"
LOOKS = [(1280, False), (1280, True), (390, False)]  # CSS pixels, dark


async def check(tab: Tab, what: str) -> None:
    """Raises AssertionError with what it found. A picture of each lies in `build/watch`."""
    for width, dark in LOOKS:
        picture = await tab.picture(width, 900, dark=dark)
        name = f"{what}-{width}{'-dark' if dark else ''}.png"
        await asyncio.to_thread((ROOT / "build/watch" / name).write_bytes, picture)
        found: list[dict[str, Any]] = await tab.value("axe.run().then(({ violations }) => violations)")
        said = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found]
        assert not said, f"{name}: {json.dumps(said, indent=1)}"
        assert await tab.value("document.documentElement.scrollWidth <= innerWidth"), name


async def opened(app: ASGIApp, profile: Path) -> AsyncIterator[Tab]:
    async with serving(app) as port, visiting(f"http://127.0.0.1:{port}/", profile) as tab, asyncio.timeout(200):
        await tab.send("Page.setBypassCSP", enabled=True)  # axe makes markup, which the pages' policy forbids
        await tab.open(f"http://127.0.0.1:{port}/")
        await tab.value(await asyncio.to_thread(AXE.read_text) + ";0")
        yield tab


@pytest.fixture
async def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
async def user(sessions: FakeSessions, tmp_path: Path) -> AsyncIterator[Tab]:
    app = user_app(sessions, DispatcherSettings(), Metrics(CollectorRegistry()), Access(None))
    async for tab in opened(app, tmp_path):
        yield tab
        sessions.closing.set()


@pytest.fixture
async def operator(sessions: FakeSessions, tmp_path: Path) -> AsyncIterator[Tab]:
    async for tab in opened(console(sessions), tmp_path):
        yield tab
        sessions.closing.set()


async def test_the_users_page(sessions: FakeSessions, user: Tab) -> None:
    await user.until("document.querySelector('#agent').value === 'default'")
    await check(user, "user")
    await user.value("document.querySelector('textarea').focus()")
    await user.type("Tell me a story.")
    await user.press("Enter")
    commander = await sessions.begin(await sessions.created.get())
    await commander.say("Once upon a time. " * 100)
    await commander.ask_approval('{"q":"x"}')
    await user.until("document.querySelector('#approvals button')")
    await check(user, "user-asked")
    await user.click("#stop")
    await user.shows("Stopped", "#state")
    await check(user, "user-stopped")


async def test_the_users_page_that_wants_a_key(sessions: FakeSessions, tmp_path: Path) -> None:
    app = user_app(sessions, DispatcherSettings(), Metrics(CollectorRegistry()), Access(RULES))
    async for tab in opened(app, tmp_path):
        await tab.shows("A valid key is needed.", "#state")
        await check(tab, "user-key")
    sessions.closing.set()


async def test_the_console(sessions: FakeSessions, operator: Tab) -> None:
    now = time.time()
    live = [await begin(sessions, f"agent {n % 3}", now - 100 * n) for n in range(30)]
    await operator.until("document.querySelectorAll('tbody tr').length === 30")
    await check(operator, "sessions")

    subject = live[0]
    await subject.think("First this, then that.")
    await subject.say("Hello, ")
    await subject.redact("ann@acme.example, ", "[email], ")
    await subject.call(arguments='{"word": "' + "W" * 5000 + '"}')
    await subject.hold(HOSTILE)
    await operator.value(f"location.hash = '#session/{subject.session_id}'")
    await operator.shows("[email]", "ins")
    await check(operator, "session")

    await operator.click("main p button")
    await operator.until("document.querySelector('dialog[open]')")
    await check(operator, "stop")
    await operator.press("Enter")
    await sessions.stops.get()
    await subject.halted()
    await subject.answer(status="CANCELLED")
    await operator.shows("SHA-256", "[aria-label=Proof]")
    await check(operator, "proof")

    await operator.click("#stop-many")
    await operator.until("document.querySelector('dialog[open] progress')")
    await check(operator, "stop-many")
    await operator.value("document.querySelector('[name=agent]').value = 'none'")
    await operator.value("document.querySelector('[name=hold_seconds]').value = 60")
    await operator.click("dialog button")
    await operator.shows("That was all.", "dialog")
    await check(operator, "stopped-many")
    await operator.press("Escape")

    await operator.value("location.hash = '#sessions?show=ended'")
    await operator.until("document.querySelectorAll('tbody tr').length === 1")
    await check(operator, "ended")

    await live[1].ask_approval(json.dumps({"to": HOSTILE}), approval="operator")
    await operator.value("location.hash = '#approvals'")
    await operator.until("document.querySelector('main li button')")
    await check(operator, "approvals")
    await operator.value(f"location.hash = '#session/{live[1].session_id}'")
    await operator.until("document.querySelector('main li button')")
    await check(operator, "session-approvals")

    await operator.value("location.hash = '#fleet'")
    await operator.shows("What is wrong", "main")
    await operator.shows("Until", "[aria-label=Holds]")
    await operator.until("document.querySelector('tbody tr')")
    await operator.shows("whoever reaches", "[aria-label='Keys and limits']")
    await check(operator, "fleet")
