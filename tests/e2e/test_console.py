"""The console in a real Chromium, as who is on call has it: find the runaway, stop it, hold the proof."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from dispatcher.access.watch import Access
from dispatcher.core.holds import Fits
from dispatcher.core.log import Request
from dispatcher.gateway import live_list
from dispatcher.gateway.app import operator_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.live.pool import ConnectedCommander
from dispatcher.live.ports import Unlogged
from dispatcher.metrics import Metrics
from dispatcher.verbs import receipt
from shared.records import Message
from tests.dispatcher.gateway.fakes import Commander, FakeSessions, eventually
from tests.dispatcher.verbs.test_receipt import options
from tests.e2e.browser import serving, visiting

SESSIONS = 300
MARKUP = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
HOSTILE = f"{MARKUP}\u202eevil\x1b[31m"
SHOWN = f"{MARKUP}\\u202eevil\\u001b[31m"


def console(sessions: FakeSessions) -> ASGIApp:
    registry = CollectorRegistry()
    return operator_app(sessions, registry, Metrics(registry), Access(None))


async def wait(sessions: FakeSessions, agent: str, at: float) -> str:
    """A session that waits."""
    request = Request(agent, (Message("user", HOSTILE),), at, tenant="acme")
    return (await sessions.create(request)).record.session_id


async def begin(sessions: FakeSessions, agent: str, at: float) -> Commander:
    return await sessions.begin(await wait(sessions, agent, at))


@pytest.mark.slow
async def test_a_runaway_is_found_stopped_and_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_list, "LOOK_SECONDS", 0.1)
    sessions, now = FakeSessions(), time.time()
    runaway = await begin(sessions, "support", now - 3600)
    for n in range(SESSIONS - 1):
        await wait(sessions, HOSTILE, now - n)

    async with AsyncExitStack() as stack, asyncio.timeout(40):
        server = HttpServer(console(sessions), bind("TEST", "127.0.0.1:0"))
        await server.start()
        stack.push_async_callback(server.close)
        tab = await stack.enter_async_context(visiting(f"http://127.0.0.1:{server.port}/#sessions", tmp_path))
        await tab.shows(f"{SESSIONS} live", "caption")
        await tab.shows("No Commander is connected.", ".wrong")

        # Whoever is loudest stands first; the address says so, to be sent to somebody.
        await tab.point("th button[title='most packets a second']")
        await tab.until("document.querySelector('th[aria-sort]')?.innerText === 'Packets/s'")
        await tab.shows(f"{SESSIONS} live", "caption")
        where = await tab.value("location.hash")
        assert "sort=fastest" in where

        # The Dispatcher goes away, which is said; when it is back, so is all that there was, where it was.
        sessions.closing.set()
        await server.close()
        await tab.shows("The server does not answer.", "#lost")
        sessions.closing.clear()
        server = HttpServer(console(sessions), bind("TEST", f"127.0.0.1:{server.port}"))
        await server.start()
        stack.push_async_callback(server.close)
        await tab.until("!document.querySelector('#lost').innerText")
        assert await tab.value("location.hash") == where

        writing = asyncio.create_task(flood(runaway))
        await tab.until(f"document.querySelector('tbody a').title === '{runaway.session_id}'")
        # What another instance alone knows is not shown as nothing, in the wide columns.
        thinks = "document.querySelector('tbody tr').cells[9].textContent"
        await tab.until(f"{thinks} === 'elsewhere'")
        told = "document.querySelector('caption').textContent.includes('What 1 think and hold back')"
        await tab.until(told)
        sessions.seen[runaway.session_id] = Unlogged("Planning", 12)
        await tab.until(f"{thinks} === 'Planning'")
        await tab.until(f"!{told}")
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

        # By the keyboard alone: the session's link, then its stop.
        await tab.value("document.querySelector('tbody a').focus()")
        await tab.press("Enter")
        await tab.shows(runaway.session_id, "h1")
        await runaway.redact("mail ann@acme.example, ", "mail [email], ")
        await runaway.hold(HOSTILE)
        for delta in ("First ", "this."):
            await runaway.think(delta, step="Planning")
        await runaway.think("Then that.", step=HOSTILE)
        await tab.shows(f"Planning\nFirst this.\n{SHOWN}\nThen that.", "[aria-label='What it thought, by step']")
        await runaway.call(HOSTILE, '{"word": "' + "W" * 60_000 + '"}')
        called = runaway.head.offset

        # What waits for somebody is decided where the rest of the session stands.
        await runaway.ask_approval('{"word":"x"}', call_id="call-2", approval="operator")
        await tab.click("[aria-label='Calls to be approved'] button")
        decided = await sessions.decisions.get()
        assert (decided.call_id, decided.decision) == ("call-2", "approve")
        await runaway.start_call("call-2")
        await runaway.answer(call_id="call-2")
        await tab.shows("status: OK, after 0.", "table")
        assert not await tab.value("document.querySelector('[aria-label=\"Calls to be approved\"]').childElementCount")
        await tab.shows("[email]", "ins")
        await tab.until("getComputedStyle(document.querySelector('ins[data-rules]'), '::after').content.includes('(')")
        assert await tab.value("document.querySelector('ins[data-rules]').dataset.rules") == "personal data"
        await tab.shows("ann@acme.example", "del")
        await tab.shows(SHOWN, "mark")
        await tab.value("document.querySelector('main button').focus()")
        await tab.press("Enter")
        await tab.until("document.querySelector('dialog[open] button') === document.activeElement")
        await tab.press("Enter")
        assert await sessions.stops.get() == (runaway.session_id, "RiskControl", "operator", "")
        await runaway.halted()
        await runaway.answer(HOSTILE, status="CANCELLED")
        await tab.shows("confirmed; tokens after the stop: 1", "[aria-label=Proof]")
        await tab.shows(SHOWN, "mark")  # and it never will be let out
        assert await tab.value("document.title.startsWith('Session ')")
        assert await tab.value("document.documentElement.scrollWidth <= innerWidth")

        # What is saved is what the Dispatcher gave, and verifies.
        await tab.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        await tab.click("[aria-label=Proof] button")
        saved = tmp_path / f"receipt-{runaway.session_id}.json"
        await eventually(saved.exists)
        assert await asyncio.to_thread(receipt.run, options("verify", saved)) == 0

        # Each entry is there, and a long one whole for who asks.
        logged = runaway.head.offset
        await tab.shows(f"{logged:,} entries", "caption")
        await tab.click(f"[aria-label^='Entry {called},']")
        await tab.until("document.querySelector('td.what').closest('tbody').innerText.includes('W'.repeat(60_000))")

        # The others of its kind, and new ones for a while; until that is lifted.
        await tab.click("#stop-many")
        await tab.until("document.activeElement.name === 'agent'")
        await tab.type(HOSTILE)
        await tab.value("document.querySelector('[name=hold_seconds]').value = 60")
        await tab.press("Enter")
        await tab.shows(f"{SESSIONS - 1} found, 0 running. That was all.", "dialog")
        await tab.press("Escape")
        await tab.value("location.hash = '#fleet'")
        await tab.shows(SHOWN, "[aria-label=Holds]")
        await tab.click("[aria-label=Holds] button")
        await tab.shows("The hold is lifted.", "#told")
        assert not await sessions.store.holds(time.time())

        # A Commander gets no more. Who has nothing to do is there too, and who may come.
        sessions.connected = [ConnectedCommander("idle", "", ("spare",), 0, 4, False, False, False)]
        await tab.until("[...document.querySelectorAll('td a')].some((each) => each.textContent === 'idle')")
        await tab.shows("search\tup\t", "[aria-label=Tools]")
        await tab.shows("whoever reaches this instance", "[aria-label='Keys and limits']")
        sessions.connected = []
        await tab.until("![...document.querySelectorAll('td a')].some((each) => each.textContent === 'idle')")
        await begin(sessions, "support", now)
        await tab.click("[aria-label^='Drain ']")
        await tab.press("Enter")
        await tab.shows("gets no session any more", "#told")
        await tab.shows("Lift it", "[aria-label=Holds]")
        (hold,) = await sessions.store.holds(time.time())
        assert hold.fits == Fits(commander="commander")

        # What leads nowhere is said.
        await tab.value("location.hash = '#session/%E0%A4'")
        await tab.shows("No such session.", "#told")
        sessions.closing.set()


@pytest.mark.slow
async def test_what_became_of_each_character(tmp_path: Path) -> None:
    """As the Dispatcher counts them: by code points, of which some are two of a page's."""
    sessions = FakeSessions()
    entries: list[tuple[str, str, int, str, dict[str, list[str]]]] = [
        ("content", "a😀b", 2, "a😀", {}),  # in part
        ("content", "cd", 2, "", {}),  # held, all of it
        ("text", "", 4, "bX", {"redacted_by": ["names"]}),  # by then: `b` as it was, `c` replaced
        ("thought", "", 4, "", {"redacted_by": []}),
    ]
    events = [
        {"id": str(n), "name": name, "data": {"at": 0, "text": text, "decided": decided, "released": let_out, **by}}
        for n, (name, text, decided, let_out, by) in enumerate(entries, 1)
    ]
    script = f"""import("/page/account.js").then(({{ Account }}) => {{
        const account = new Account();
        for (const event of {json.dumps(events)}) account.take(event);
        return [account.wrote, account.held, account.entries.length];
    }})"""
    async with serving(console(sessions)) as port, visiting(f"http://127.0.0.1:{port}/", tmp_path) as tab:
        async with asyncio.timeout(40):
            assert await tab.value(script) == [
                [["out", "a😀b", ""], ["not", "c", "names"], ["put", "X", "names"]],
                "d",
                4,
            ]
        sessions.closing.set()


async def flood(commander: Commander) -> None:
    while True:
        for _ in range(20):
            await commander.say("and on ")
        await asyncio.sleep(0.05)  # that is its pace
