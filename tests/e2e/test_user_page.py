"""The users' page in a real Chromium, as its user has it: by the keyboard, with a key, over a break, up to a stop."""

import asyncio
import math
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.access.rules import AccessKey, AccessRules, Caller, digest_of
from dispatcher.access.watch import Access
from dispatcher.gateway.app import user_app
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.e2e.browser import serving, visiting

KEY = "mst_of_acme"
RULES = AccessRules(keys=(AccessKey(Caller("user", "ann", "acme"), digest_of(KEY.encode()), math.inf),))
MARKUP = "<img src=x onerror=\"document.title='run'\">"


@pytest.mark.slow
async def test_a_question_is_asked_answered_and_stopped(tmp_path: Path) -> None:
    sessions = FakeSessions()
    app = user_app(sessions, DispatcherSettings(), Metrics(CollectorRegistry()), Access(RULES))
    async with serving(app) as port, visiting(f"http://127.0.0.1:{port}/", tmp_path) as tab, asyncio.timeout(50):
        await tab.shows("A valid key is needed.", "#state")
        await tab.value("document.querySelector('#key input').focus()")
        await tab.type(KEY)
        await tab.press("Enter")
        await tab.until("document.querySelector('#agent').value === 'default'")

        await tab.value("document.querySelector('textarea').focus()")
        await tab.type("Tell me a story.")
        await tab.press("Enter")
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("Once ", MARKUP)
        await tab.shows(f"Once {MARKUP}", "#answer")

        sessions.closing.set()  # the stream ends in the middle
        await commander.say(" upon a time")
        sessions.closing.clear()
        await tab.shows(f"Once {MARKUP} upon a time", "#answer")

        digest = await commander.ask_approval('{"q":"\u202egnp.exe"}')
        await tab.shows(r"\u202egnp.exe", "#approvals")
        await tab.click("#approvals button")
        decision = await sessions.decisions.get()
        assert (decision.decision, decision.arguments_sha256) == ("approve", digest)
        await tab.until("!document.querySelector('#approvals').innerText")

        await tab.click("#stop")
        assert await sessions.stops.get() == (commander.session_id, "UserCancel", "user", "")
        await tab.shows("Stopped: UserCancel", "#state")
        await commander.hold(" never")
        assert await tab.value("document.querySelector('#answer').innerText") == f"Once {MARKUP} upon a time"
        assert await tab.value("[document.title, document.querySelector('#stop').disabled]") == ["Midsentence", True]
        sessions.closing.set()
