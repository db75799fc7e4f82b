"""Tool calls that wait for an approval: in `dispatcher chat`, and with `dispatcher approvals`."""

import asyncio
import json
import os
import pty

import pytest

from dispatcher.core.entries import Decision
from dispatcher.verbs import approvals, chat
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.dispatcher.verbs.test_client_verbs import call, sessions, start, urls
from tests.logs import read_all

__all__ = ["sessions", "urls"]

ARGUMENTS = '{"to":"Zürich\u202e","what":["\\u001b[31m"]}'
SHOWN = r'{"to": "Zürich\u202e", "what": ["\u001b[31m"]}'


async def decided(sessions: FakeSessions, session_id: str) -> list[Decision]:
    return [each.body for each in await read_all(sessions.store, session_id) if isinstance(each.body, Decision)]


@pytest.mark.parametrize(("typed", "decision"), [("y", "approve"), ("YES", "approve"), ("", "deny"), ("what?", "deny")])
async def test_chat_asks_on_the_terminal(
    urls: tuple[str, str], sessions: FakeSessions, typed: str, decision: str
) -> None:
    ours, theirs = pty.openpty()
    process = await start("chat", "--url", urls[0], "Pay.", stdin=theirs)
    os.close(theirs)
    assert process.stderr
    async with asyncio.timeout(20):
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("Well. ")
        digest = await commander.ask_approval(ARGUMENTS)
        question = await process.stderr.readuntil(b"approve? y/N] ")
        assert question.decode() == f"\n[search {SHOWN}: approve? y/N] "
        os.write(ours, f"{typed}\n".encode())
        await sessions.decisions.get()
        await commander.finish()
        out, _ = await process.communicate()
    os.close(ours)
    (made,) = await decided(sessions, commander.session_id)
    assert (made.decision, made.author, made.arguments_sha256) == (decision, "user", digest)
    assert (process.returncode, out) == (0, b"Well. \n")


async def test_chat_without_a_terminal_says_what_waits(
    urls: tuple[str, str], sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    asking = asyncio.create_task(call(chat, "--url", urls[0], "Pay."))
    commander = await sessions.begin(await sessions.created.get())
    await commander.ask_approval(ARGUMENTS)
    await commander.ask_approval(ARGUMENTS, "call-2", "operator")
    await commander.finish()
    assert await asking == 0
    assert f"[search {SHOWN} waits for an approval]\n[search waits for an approval]\n" in capfd.readouterr().err
    assert not await decided(sessions, commander.session_id)


async def test_chat_goes_on_where_its_decision_does_not_count(urls: tuple[str, str], sessions: FakeSessions) -> None:
    ours, theirs = pty.openpty()
    process = await start("chat", "--url", urls[0], "Pay.", stdin=theirs)
    os.close(theirs)
    assert process.stderr
    async with asyncio.timeout(20):
        commander = await sessions.begin(await sessions.created.get())
        digest = await commander.ask_approval(ARGUMENTS)
        await process.stderr.readuntil(b"approve? y/N] ")
        assert await sessions.decide(commander.session_id, Decision("call-1", "deny", "operator", digest))
        os.write(ours, b"y\n")
        assert b"[Another decision came first.]" in await process.stderr.readline()
        await commander.say("Not paid.")
        await commander.finish()
        out, _ = await process.communicate()
    os.close(ours)
    assert (process.returncode, out) == (0, b"Not paid.\n")


async def test_operators_list_approve_and_deny(
    urls: tuple[str, str], sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    commander = await sessions.begin()
    of = ("--url", urls[1])
    assert await call(approvals, *of, "list") == 0
    assert capfd.readouterr().out == ""
    digest = await commander.ask_approval(ARGUMENTS)
    await commander.ask_approval(ARGUMENTS, "call-2", "operator")
    assert await call(approvals, *of, "list") == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("search of default, asked of the user, ")
    assert lines[1:3] == [f"  {SHOWN}", f"  {commander.session_id} call-1 {digest}"]
    assert await call(approvals, *of, "list", "--json", "--limit", "1") == 0
    assert json.loads(capfd.readouterr().out)["arguments"] == json.loads(ARGUMENTS)

    assert await call(approvals, *of, "approve", commander.session_id, "call-1", digest, "--note", "fine") == 0
    assert await call(approvals, *of, "deny", commander.session_id, "call-2", digest) == 0
    assert capfd.readouterr().out == "approved\ndenied\n"
    made = [(each.decision, each.author, each.note) for each in await decided(sessions, commander.session_id)]
    assert made == [("approve", "operator", "fine"), ("deny", "operator", "")]
    for wrong, reason in (
        (("deny", commander.session_id, "call-1", digest), "Another decision came first."),
        (("approve", commander.session_id, "call-1", "0"), "The call has other arguments."),
        (("approve", commander.session_id, "gone", digest), "No such call."),
        (("approve", "gone", "call-1", digest), "No such session."),
    ):
        assert await call(approvals, *of, *wrong) == 1
        assert capfd.readouterr().err == f"dispatcher approvals: {reason}\n"
