"""Clients that others wrote, against a real pair: each does what its users do, and the table says what came of it."""

import os
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.clients.clients import CLIENTS, Client, ran
from tests.clients.conftest import Pair
from tests.clients.drivers.driver import CASES, Outcome, endless
from tests.shared.documents import ROOT

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.timeout(1200)]

PAGE = ROOT / "docs/clients.md"
BEGIN, END = "<!-- made by `CLIENTS_WRITE=1 make test-clients` -->\n", "<!-- end -->\n"


def stopped_by_its_user(pair: Pair, question: str) -> Iterator[bool]:
    """Whether a session that was asked so was."""
    asked = httpx2.get(f"{pair.operator}/operator/sessions?state=stopped&reason=UserCancel&limit=1000").json()
    for session in asked["sessions"]:
        one = httpx2.get(f"{pair.operator}/operator/sessions/{session['session_id']}").json()
        yield any(question in message["content"] for message in one["messages"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.title)
def test_it_works_or_is_refused_clearly(pair: Pair, client: Client, case: str) -> None:
    outcome = ran(client, pair.url).outcomes.get(case)
    if outcome is None:
        pytest.skip("the client has no such thing, or it is not tried")
    assert outcome.result != "fails", outcome.why
    if case == "abort":
        deadline = time.monotonic() + 60
        while not any(stopped_by_its_user(pair, endless(client.title))):
            assert time.monotonic() < deadline, "its agent goes on"
            time.sleep(0.1)


def cell(outcome: Outcome | None) -> str:
    """What was refused is named by what the user is told: first the field's path."""
    if outcome is None:
        return "–"
    if outcome.result == "refused":
        return f"`{outcome.why.partition(':')[0]}`: 400"
    return "✓" if outcome.result == "works" else "fails"


def table(pair: Pair) -> str:
    """Clients by cases, in Markdown."""
    lines = [f"| | {' | '.join(CASES)} |", "|---|" + ":-:|" * len(CASES)]
    for client in CLIENTS:
        version, outcomes = ran(client, pair.url)
        cells = (cell(outcomes.get(case)) for case in CASES)
        lines.append(f"| {client.title} ({version}) | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_the_table_is_what_ran(pair: Pair) -> None:
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    written, end, after = rest.partition(END)
    assert end
    made = "\n" + table(pair) + "\n"
    if os.environ.get("CLIENTS_WRITE"):
        PAGE.write_text(before + begin + made + end + after)
    else:
        assert written == made, "CLIENTS_WRITE=1 make test-clients"
