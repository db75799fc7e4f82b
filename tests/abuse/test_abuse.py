"""Nobody stalls anybody: each attack with an honest user beside it, who waits no longer and reads its whole text.

make test-abuse
.venv/bin/pytest -m abuse tests/abuse -k heads
"""

import pytest

from tests.abuse import http, sockets, streams, workers
from tests.abuse.house import Attack, House, Seen

pytestmark = [pytest.mark.abuse, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

ATTACKS: dict[str, Attack] = {
    "heads of 100 MB": http.heads,
    "pipelines": http.pipelines,
    "drips": http.drips,
    "bodies that are slow to read": http.bodies,
    "bodies that never end": http.held_bodies,
    "readers that never read": http.readers,
    "prompts that wait": http.prompts,
    "answers that wait": http.answers,
    "WebSockets": sockets.sockets,
    "results that nobody reads": streams.unread,
    "empty packets": streams.empty_packets,
    "opens of unknown sessions": streams.unknown_opens,
    "sessions of generation 0": streams.own_sessions,
    "statuses": streams.statuses,
    "names of 15 MB": streams.long_names,
    "silent streams": streams.silent_streams,
    "texts beyond the credit": streams.own_flood,
    "frames": streams.frames,
    "headers of who acknowledges nothing": streams.unacknowledged,
    "watches": streams.watches,
    "8,000 calls": workers.gathered,
    "thoughts without end": workers.thoughts,
    "talk without end": workers.talk,
    "a provider that drips": workers.drips,
    "results that are too large": workers.results,
    "tools that hang": workers.hanging,
}

# What still falls short of its limit, by the first word of what is told.
# - gRPC's core takes 16 MiB of headers, which become 32, of each connection that has not acknowledged its settings, and
#   no option makes that less; the connection is cut after a second. 160 MiB of five.
SHORT = {"headers of who acknowledges nothing": "RSS"}


@pytest.mark.parametrize("name", ATTACKS)
async def test_nobody_else_is_harmed(name: str, one_house: House, when_quiet: Seen, capsys) -> None:
    def tell(seen: Seen) -> None:
        with capsys.disabled():
            print(f"\n  {name}: {seen}", end=" ")

    harm = await one_house.harm(ATTACKS[name], when_quiet, tell)
    assert not await one_house.left()
    assert not [each for each in harm if each.split()[0] != SHORT.get(name)]
    if harm:
        pytest.xfail(f"known to fall short: {', '.join(harm)}")
