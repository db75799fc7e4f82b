"""One suite for every store behind `dispatcher.store.ports`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
from msgspec.structs import replace

from dispatcher.core.entries import (
    Approval,
    Assigned,
    Body,
    Call,
    Decision,
    Entry,
    Failed,
    Finished,
    Started,
    StopEntry,
    StopSent,
    Text,
    size_of,
)
from dispatcher.core.holds import Fits, Hold
from dispatcher.core.log import (
    Applied,
    Change,
    Fence,
    Head,
    Record,
    Request,
    Requeue,
    Settle,
    State,
    TakeBack,
    TakeOver,
)
from dispatcher.core.tokens import assignment_token, digest
from dispatcher.store.factory import open_store
from dispatcher.store.ports import (
    MAX_OFFERED,
    READ_BYTES,
    Follower,
    IdempotencyKey,
    Place,
    Store,
    StoreUnavailable,
    place,
)
from shared.records import MAX_TEXT_BYTES, Content, Error, Message, Stopped, Thought, Tool, ToolResult, Unknown, Usage
from tests.contracts.sessions import (
    TOKEN,
    acquire,
    append,
    assign,
    bodies,
    brought,
    call,
    failed,
    finished,
    head_of,
    numbered,
    refusal,
    result,
    running,
    said,
    stop,
    waiting,
)
from tests.logs import read_all

SECONDS = 30  # no wait in these tests takes longer


@pytest.fixture(params=["memory", "sqlite", "redis", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "cluster":
        return f"redis://{request.getfixturevalue('cluster')[0].address}"
    if request.param == "redis":
        return f"redis://{request.getfixturevalue('redis').address}/0"
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/logs/sessions.db"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = await open_store(url)
    yield store
    await store.close()


# ---- creating


async def test_a_created_session_is_loaded_as_it_was(store: Store) -> None:
    record = waiting("s1")
    created = await store.create(record)
    assert created.fresh
    assert created.same_request
    assert created.record == record
    assert await store.load("s1") == record
    assert (await store.read("s1", 0, 10)).entries == []


async def test_all_of_a_request_is_kept(store: Store) -> None:
    told = ('{"x":1}', "conversation", "00-1-2-01", True, 9)
    secret = (b"\x00key", b"\xffdigest")
    tools = (Tool("search", "", "{}", client=True),)
    request = Request(
        "a", (Message("user", "hi"),), 100.5, "user", *told, *secret, tools, "tenant", "subject", ("tools",), "{}"
    )
    request = replace(request, claims=(("claim", "x"),), tracestate="vendor=x")
    assert all(getattr(request, field) for field in Request.__struct_fields__)
    record = replace(waiting("s1"), request=request)
    await store.create(record)
    assert await store.load("s1") == record


async def test_an_id_is_taken_once(store: Store) -> None:
    await store.create(waiting("s1"))
    again = await store.create(brought("s1"))
    assert (again.fresh, again.same_request) == (False, False)
    assert again.record == waiting("s1")
    assert await store.load("s1") == waiting("s1")


async def test_a_key_answers_with_its_session(store: Store) -> None:
    key = IdempotencyKey("0123456789abcdef", b"body", expires_at=1000.0)
    await store.create(waiting("s1"), key)
    await store.submit("s1", assign())
    again = await store.create(waiting("s2"), key)
    assert (again.fresh, again.same_request, again.record.session_id) == (False, True, "s1")
    assert again.record.head.state == "running"
    other = await store.create(waiting("s3"), IdempotencyKey(key.key, b"other body", 2000.0))
    assert (other.fresh, other.same_request, other.record.session_id) == (False, False, "s1")
    assert await store.load("s2") is None
    assert await store.load("s3") is None


async def test_a_key_binds_until_it_expires(store: Store) -> None:
    key = "0123456789abcdef"
    await store.create(waiting("s1", created_at=100.0), IdempotencyKey(key, b"body", 200.0))
    before = await store.create(waiting("s2", created_at=199.0), IdempotencyKey(key, b"body", 299.0))
    assert before.record.session_id == "s1"
    after = await store.create(waiting("s3", created_at=200.0), IdempotencyKey(key, b"other", 300.0))
    assert after.fresh
    bound = await store.create(waiting("s4", created_at=201.0), IdempotencyKey(key, b"other", 301.0))
    assert bound.record.session_id == "s3"


async def test_a_key_of_a_dropped_session_binds_no_more(store: Store) -> None:
    key = IdempotencyKey("0123456789abcdef", b"body", 1000.0)
    await store.create(waiting("s1"), key)
    await store.submit("s1", Settle(stop()))
    assert await store.delete("s1")
    assert (await store.create(waiting("s2"), key)).fresh


async def test_one_of_many_creations_with_a_key_wins(store: Store) -> None:
    key = IdempotencyKey("0123456789abcdef", b"body", 1000.0)
    created = await asyncio.gather(*(store.create(waiting(f"s{n}"), key) for n in range(20)))
    assert [answer.fresh for answer in created].count(True) == 1
    assert len({answer.record.session_id for answer in created}) == 1


# ---- rules 1 and 2: assign, acquire


async def test_a_waiting_session_is_assigned_once(store: Store) -> None:
    await store.create(waiting())
    outcomes = await asyncio.gather(*(store.submit("s", assign(f"c{n}")) for n in range(5)))
    assert [isinstance(outcome, Applied) for outcome in outcomes] == [True, False, False, False, False]
    assert {refusal(outcome) for outcome in outcomes[1:]} == {"not_waiting"}
    head = head_of(outcomes[0])
    assert (head.state, head.generation, head.epoch, head.commander_id) == ("running", 1, 1, "c0")
    assert [entry.body for entry in (await store.read("s", 0, 10)).entries] == [Assigned(1, "c0")]


async def test_an_acquire_fences(store: Store) -> None:
    await running(store)
    head = head_of(await store.submit("s", Requeue(2, now=130.0)))
    assert (head.state, head.since, head.takeovers) == ("waiting", 130.0, 1)
    head = head_of(await store.submit("s", assign("c2")))
    assert (head.generation, head.epoch) == (2, 3)
    assert refusal(await store.submit("s", acquire("c1", 1))) == "fenced"
    assert refusal(await store.submit("s", acquire("c1", 2))) == "fenced"
    assert refusal(await store.submit("s", append(2, said(1)))) == "superseded"
    assert head_of(await store.submit("s", acquire("c2", 2))).epoch == 4
    rolled_back = head_of(await store.submit("s", acquire("c9", 9)))
    assert (rolled_back.generation, rolled_back.commander_id, rolled_back.epoch) == (9, "c9", 5)


async def test_an_open_shows_the_token_of_its_assignment(store: Store) -> None:
    record = waiting()
    await store.create(replace(record, request=replace(record.request, assignment_key=b"key")))
    first, second = (assignment_token(b"key", "s", generation, "c1") for generation in (1, 2))
    head_of(await store.submit("s", assign()))
    others = (b"", first[:-1], second, assignment_token(b"key", "t", 1, "c1"), assignment_token(b"", "s", 1, "c1"))
    for token in others:
        assert refusal(await store.submit("s", acquire("c1", 1, token=token))) == "unknown_session"
    assert refusal(await store.submit("s", acquire("c2", 1, token=first))) == "unknown_session"
    assert head_of(await store.submit("s", acquire("c1", 1, token=first))).epoch == 2
    assert refusal(await store.submit("s", acquire("c1", 2, token=first))) == "unknown_session"
    rolled_back = head_of(await store.submit("s", acquire("c1", 2, token=second)))
    assert (rolled_back.generation, rolled_back.epoch) == (2, 3)
    assert refusal(await store.submit("s", acquire("c1", 1, token=first))) == "fenced"


async def test_an_open_that_is_excused_shows_no_token(store: Store) -> None:
    record = waiting()
    await store.create(replace(record, request=replace(record.request, assignment_key=b"key")))
    head_of(await store.submit("s", assign()))
    excused = replace(acquire(token=b""), excused=True)
    assert refusal(await store.submit("s", replace(excused, token=b"wrong"))) == "unknown_session"
    assert head_of(await store.submit("s", excused)).epoch == 2


async def test_an_orphan_is_taken_over_once_and_its_stream_lives(store: Store) -> None:
    epoch = await running(store)
    outcomes = await asyncio.gather(*(store.submit("s", TakeOver(epoch, "i1", f"i{n}")) for n in (2, 3, 2)))
    assert [isinstance(outcome, Applied) for outcome in outcomes] == [True, False, True]
    assert refusal(outcomes[1]) == "superseded"
    head = head_of(outcomes[0])
    assert (head.instance, head.epoch, head.state) == ("i2", epoch, "running")
    assert head_of(await store.submit("s", append(epoch, said(1)))).sequence == 1
    head_of(await store.submit("s", append(epoch, finished(2))))
    assert refusal(await store.submit("s", TakeOver(epoch, "i2", "i3"))) == "ended"


async def test_a_waiting_session_is_nobodys(store: Store) -> None:
    await running(store)
    head_of(await store.submit("s", Requeue(2, now=130.0)))
    assert refusal(await store.submit("s", TakeOver(2, "i1", "i2"))) == "superseded"
    assert refusal(await store.submit("s", TakeBack(2, "i1"))) == "gap"


async def test_a_session_that_is_taken_back_is_nobodys_to_conclude(store: Store) -> None:
    epoch = await running(store)
    head_of(await store.submit("s", TakeOver(epoch, "i1", "i2")))
    for _ in range(2):  # repeated, it is the same
        head = head_of(await store.submit("s", TakeBack(epoch, "i1")))
        assert (head.instance, head.epoch, head.state) == ("i1", epoch + 1, "running")
    assert refusal(await store.submit("s", Requeue(epoch, now=130.0))) == "superseded"
    assert refusal(await store.submit("s", append(epoch, failed()))) == "superseded"
    assert head_of(await store.submit("s", append(epoch + 1, said(1)))).sequence == 1
    assert refusal(await store.submit("s", TakeBack(epoch, "i2"))) == "superseded"


async def test_a_session_that_a_commander_brought_is_its_own(store: Store) -> None:
    await store.create(brought())
    assert head_of(await store.submit("s", acquire("c1", 0))).epoch == 1
    assert refusal(await store.submit("s", acquire("c2", 0))) == "exists"
    for token in (b"", b"another", digest(TOKEN)):
        assert refusal(await store.submit("s", acquire("c1", 0, token=token))) == "exists"
    assert refusal(await store.submit("s", acquire("c1", 1))) == "unknown_session"
    assert refusal(await store.submit("s", assign())) == "not_waiting"


async def test_a_session_that_is_not_there(store: Store) -> None:
    assert refusal(await store.submit("none", assign())) == "unknown_session"
    assert refusal(await store.submit("none", Settle(stop()))) == "unknown_session"
    assert await store.load("none") is None
    assert (await store.read("none", 0, 10)).entries == []
    assert await store.delete("none") is False


# ---- rule 4: append


async def test_appended_entries_are_numbered_and_read_as_they_were(store: Store) -> None:
    epoch = await running(store)
    entries = [
        said(1, "wörd 夜莺\n", decided=7),
        call(2),
        said(3, "", decided=7),
        said(3, "x" * 70_000, decided=70_007),
        numbered(Finished("length", Usage(3, 2**32 - 1)), 4),
    ]
    first = await store.submit("s", append(epoch, *entries[:2]))
    assert isinstance(first, Applied)
    assert [entry.offset for entry in first.entries] == [2, 3]
    second = head_of(await store.submit("s", append(epoch, *entries[2:])))
    assert (second.sequence, second.offset, second.decided) == (4, 6, 70_007)
    decided = [7, 7, 7, 70_007, 70_007]  # an entry that says nothing of it stands where the log is
    assert (await store.read("s", 1, 10)).entries == [
        replace(entry, offset=offset, decided=reached)
        for offset, (entry, reached) in enumerate(zip(entries, decided, strict=True), 2)
    ]
    record = await store.load("s")
    assert record
    assert record.head == second


async def test_every_kind_of_entry_is_read_as_it_was(store: Store) -> None:
    epoch = await running(store)
    kinds: list[Body] = [
        Thought("plan", "to say"),
        Content("said"),
        Call("search", '{"q": "x"}', "c", "i1", refused=True),
        ToolResult("search", "{}", "c", "INVALID_ARGUMENTS"),
        Text(),
        Unknown(),
        Error("busy", "give it to another", retryable=True),
        StopEntry("stop", "PolicyViolation", "policy", "names", "phrase 1"),
        StopSent("stop", 1796003780.123456),
        Stopped("stop", 2**63, 2**32 - 1, 2**64 - 1),
        Finished(),
        Error("late"),
        Failed("protocol_error", "gap"),
    ]
    outcome = await store.submit("s", append(epoch, *(numbered(body, n) for n, body in enumerate(kinds, 1))))
    assert isinstance(outcome, Applied)
    assert await bodies(store) == kinds
    assert (await store.read("s", 1, 100)).entries == list(outcome.entries)


@pytest.mark.parametrize("small", [0, 20])
async def test_large_entries_are_read_a_few_at_a_time(store: Store, small: int) -> None:
    """small: entries in front of them."""
    epoch = await running(store)
    count = small + 12
    for sequence in range(1, count + 1):
        await store.submit("s", append(epoch, said(sequence, "x" * (MAX_TEXT_BYTES if sequence > small else 1))))
    first, more = await store.read("s", 0, 100)
    assert sum(map(size_of, first[:-1])) < READ_BYTES <= sum(map(size_of, first))
    assert more
    whole = await read_all(store, "s")
    assert [entry.offset for entry in whole] == list(range(1, count + 2))
    assert whole[: len(first)] == first


async def test_what_is_stored_is_not_stored_again(store: Store) -> None:
    epoch = await running(store)
    await store.submit("s", append(epoch, said(1, "a"), said(2, "b")))
    again = await store.submit("s", append(epoch, said(1, "a"), said(2, "b")))
    assert isinstance(again, Applied)
    assert again.entries == ()
    overlapping = await store.submit("s", append(epoch, said(2, "b"), said(3, "c")))
    assert isinstance(overlapping, Applied)
    assert [entry.sequence for entry in overlapping.entries] == [3]
    assert await bodies(store) == [Content("a"), Content("b"), Content("c")]


async def test_a_gap_is_refused_whole(store: Store) -> None:
    epoch = await running(store)
    assert refusal(await store.submit("s", append(epoch, said(1), said(3)))) == "gap"
    assert refusal(await store.submit("s", append(epoch, said(2)))) == "gap"
    assert await bodies(store) == []
    assert head_of(await store.submit("s", append(epoch, said(1)))).sequence == 1


async def test_after_the_end_only_repetitions_are_welcome(store: Store) -> None:
    epoch = await running(store)
    await store.submit("s", append(epoch, said(1), finished(2)))
    head = head_of(await store.submit("s", append(epoch, said(1), finished(2))))
    assert (head.state, head.over, head.offset) == ("finished", True, 3)
    assert refusal(await store.submit("s", append(epoch, said(3)))) == "ended"
    assert refusal(await store.submit("s", append(epoch, failed()))) == "ended"
    assert refusal(await store.submit("s", append(epoch - 1, said(1)))) == "superseded"
    assert head_of(await store.submit("s", acquire())).sequence == 2  # its last generation still gets its Welcome


async def test_changes_of_one_session_are_applied_in_order(store: Store) -> None:
    epoch = await running(store)
    outcomes = await asyncio.gather(*(store.submit("s", append(epoch, said(n, f"{n} "))) for n in range(1, 301)))
    assert [head_of(outcome).sequence for outcome in outcomes] == list(range(1, 301))
    assert await bodies(store) == [Content(f"{n} ") for n in range(1, 301)]


async def test_sessions_do_not_mix(store: Store) -> None:
    names = [f"s{n}" for n in range(40)]
    epochs = await asyncio.gather(*(running(store, name) for name in names))

    async def write(name: str, epoch: int) -> None:
        for n in range(1, 21):
            head_of(await store.submit(name, append(epoch, said(n, f"{name}:{n}"))))

    await asyncio.gather(*(write(name, epoch) for name, epoch in zip(names, epochs, strict=True)))
    for name in names:
        assert await bodies(store, name) == [Content(f"{name}:{n}") for n in range(1, 21)]


async def test_a_change_that_cannot_be_kept_fails_alone(store: Store) -> None:
    epoch = await running(store)
    await running(store, "other")
    impossible = append(epoch, said(1), said(2, decided=None))  # type: ignore[arg-type]
    outcomes = await asyncio.gather(
        store.submit("other", append(epoch, said(1))),
        store.submit("s", impossible),
        store.submit("s", append(epoch, said(1, "kept"))),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], Applied)
    assert isinstance(outcomes[1], TypeError)
    assert isinstance(outcomes[2], Applied)
    assert await bodies(store) == [Content("kept")]


async def test_an_unknown_outcome_is_repeated_safely(store: Store) -> None:
    epoch = await running(store)
    store.submit("s", append(epoch, said(1), call(2))).cancel()
    head = head_of(await store.submit("s", append(epoch, said(1), call(2))))
    assert (head.sequence, head.offset, list(head.calls)) == (2, 3, ["call"])
    assert len(await bodies(store)) == 2


async def test_a_withdrawn_append_is_carried_out_once_with_what_follows_it(store: Store) -> None:
    """As a stop withdraws the step under way, whether it has been carried out by then or not."""
    epoch = await running(store)
    await store.create(waiting("other"))
    for late in (False, True):
        first = 1 if not late else 4
        withdrawn = store.submit("s", append(epoch, said(first), said(first + 1)))
        if late:
            await store.read("other", 0, 1)
        withdrawn.cancel()
        again = append(epoch, said(first), said(first + 1), said(first + 2))
        assert head_of(await store.submit("s", again)).sequence == first + 2
    assert [entry.sequence for entry in (await store.read("s", 1, 10)).entries] == [1, 2, 3, 4, 5, 6]


# ---- without an epoch: results and stops


async def test_a_result_is_logged_once(store: Store) -> None:
    epoch = await running(store)
    assert "call" in head_of(await store.submit("s", append(epoch, call(1)))).calls
    outcomes = await asyncio.gather(
        store.submit("s", Settle(result(text="1"))),
        store.submit("s", Settle(result(text="2"))),
        store.submit("s", Settle(result("unknown"))),
    )
    assert [len(outcome.entries) for outcome in outcomes if isinstance(outcome, Applied)] == [1, 0, 0]
    assert head_of(outcomes[2]).calls == {}
    assert (await bodies(store))[1:] == [ToolResult("search", "1", "call", "OK")]


async def test_a_call_that_has_to_be_approved_is_decided_on_once_and_started_once(store: Store) -> None:
    epoch = await running(store)
    await store.submit("s", append(epoch, numbered(Call("search", "{}", "call", "i1", approval="user"), 1)))
    asked = Entry(Approval("call", "search", "user", "{}", "digest", 200.0), 110.0)
    decided = [Entry(Decision("call", how, "user", "digest"), 120.0) for how in ("approve", "deny")]
    started = [Entry(Started("call", "search", instance), 130.0) for instance in ("i1", "i2")]
    outcomes = [await store.submit("s", Settle(entry)) for entry in (*started, asked, asked, *decided, *started)]
    assert [len(outcome.entries) for outcome in outcomes if isinstance(outcome, Applied)] == [0, 0, 1, 0, 1, 0, 1, 0]
    record = await store.load("s")
    assert record
    assert record.head.calls["call"].instance == "i1"
    assert (await bodies(store))[1:] == [asked.body, decided[0].body, started[0].body]


async def test_the_first_stop_wins_and_nothing_is_released_after_it(store: Store) -> None:
    epoch = await running(store)
    await store.submit("s", append(epoch, said(1, "before", decided=6)))
    outcomes = await asyncio.gather(
        store.submit("s", Settle(stop("stop-1", "UserCancel", at=120.0))),
        store.submit("s", Settle(stop("stop-2", "Timeout", at=121.0))),
        store.submit("s", append(epoch, said(2, "after", decided=11), finished(3))),
    )
    head = head_of(outcomes[-1])
    assert (head.state, head.reason, head.ended_at, head.over, head.decided) == (
        "stopped",
        "UserCancel",
        120.0,
        True,
        6,
    )
    read = (await store.read("s", 0, 10)).entries
    assert [entry.body.stop_id for entry in read if isinstance(entry.body, StopEntry)] == ["stop-1"]
    assert "".join(entry.released for entry in read) == "before"
    assert [entry.body for entry in read if isinstance(entry.body, Content)] == [Content("before"), Content("after")]


async def test_a_stopped_session_is_never_assigned(store: Store) -> None:
    await store.create(waiting())
    head = head_of(await store.submit("s", Settle(stop())))
    assert (head.state, head.over) == ("stopped", True)
    assert refusal(await store.submit("s", assign())) == "not_waiting"
    epoch = await running(store, "s2")
    await store.submit("s2", Settle(stop()))
    assert refusal(await store.submit("s2", Requeue(epoch, 130.0))) == "ended"
    head = head_of(await store.submit("s2", Fence(epoch)))
    assert (head.state, head.generation, head.over) == ("stopped", 2, True)
    assert refusal(await store.submit("s2", acquire())) == "fenced"
    assert refusal(await store.submit("s2", append(epoch, said(1)))) == "superseded"


# ---- reading and following


async def test_reading_from_an_offset(store: Store) -> None:
    epoch = await running(store)
    await store.submit("s", append(epoch, *(said(n) for n in range(1, 6))))
    with store.follow("s"):  # what comes from here on is at hand
        await store.submit("s", append(epoch, *(said(n) for n in range(6, 10))))
        for after, limit in ((0, 100), (0, 3), (4, 2), (7, 2), (9, 5), (10, 5), (1000, 5)):
            entries, more = await store.read("s", after, limit)
            assert [entry.offset for entry in entries] == list(range(after + 1, min(after + limit, 10) + 1))
            assert more or after + limit >= 10
            assert not more or len(entries) == limit


async def test_a_follower_reads_the_whole_log(store: Store) -> None:
    epoch = await running(store)
    await store.submit("s", append(epoch, said(1)))
    offsets: list[int] = []

    async def read_to_the_end(follower: Follower) -> None:
        while True:
            while entries := (await store.read("s", offsets[-1] if offsets else 0, 7)).entries:
                offsets.extend(entry.offset for entry in entries)
            if (record := await store.load("s")) and record.head.over and record.head.offset == offsets[-1]:
                return
            await follower.wait(SECONDS)

    with store.follow("s") as follower:
        reading = asyncio.create_task(read_to_the_end(follower))
        for n in range(2, 400):
            head_of(await store.submit("s", append(epoch, said(n))))
        await store.submit("s", append(epoch, finished(400)))
        await asyncio.wait_for(reading, SECONDS)
    assert offsets == list(range(1, 402))


async def test_a_lagging_follower_reads_what_is_no_longer_at_hand(store: Store) -> None:
    epoch = await running(store)
    with store.follow("s"):
        for n in range(1, 400):
            head_of(await store.submit("s", append(epoch, said(n, f"{n}"))))
        for after in (0, 100, 200, 390, 399):
            read = (await store.read("s", after, 1000)).entries
            assert [entry.offset for entry in read] == list(range(after + 1, 401))
        await store.submit("s", append(epoch, *(said(n, "x" * 60_000) for n in range(400, 420))))
        assert [entry.offset for entry in await read_all(store, "s", 399)] == list(range(400, 421))


async def test_a_follower_waits_until_the_log_grows(store: Store) -> None:
    epoch = await running(store)
    with store.follow("s") as one, store.follow("s") as two, store.follow("other") as other:
        waits = [asyncio.create_task(follower.wait(SECONDS)) for follower in (one, two)]
        await asyncio.sleep(0)
        assert not any(wait.done() for wait in waits)
        await store.submit("s", append(epoch, said(1)))
        assert await asyncio.wait_for(asyncio.gather(*waits), SECONDS) == [False, False]
        await store.submit("s", append(epoch, said(2)))
        started = monotonic()
        await one.wait(SECONDS)  # it grew since the last wait
        assert monotonic() - started < SECONDS / 2
        assert not await one.wait(0.001)  # nothing since: the limit holds
        await other.wait(0.001)
        async with asyncio.timeout(SECONDS):
            while await woken(store, one, append(epoch, said(2))):  # a repetition adds nothing
                pass  # that something may have been missed is told once, when the subscription is there


async def cut(follower: Follower) -> None:
    """Return when it says that what was read may be there no more; until then it may say that the log has grown."""
    while not await follower.wait(SECONDS):
        pass


async def woken(store: Store, follower: Follower, change: Change) -> bool:
    """Whether the follower's wait is over when that was submitted."""
    waits = asyncio.create_task(follower.wait(SECONDS))
    await store.submit("s", change)
    await store.load("s")
    over = waits.done()
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    return over


async def test_a_follower_hears_that_the_session_is_gone(store: Store) -> None:
    epoch = await running(store)
    await store.submit("s", append(epoch, finished(1)))
    with store.follow("s") as follower:
        assert not await follower.wait(0.001)
        gone = asyncio.create_task(cut(follower))
        await asyncio.sleep(0)
        assert await store.delete("s")
        await asyncio.wait_for(gone, SECONDS)
        assert not await follower.wait(0.001)
        assert (await store.read("s", 0, 10)).entries == []


# ---- selecting and dropping


async def test_sessions_are_selected_by_state_the_oldest_first(store: Store) -> None:
    for name, since in (("s1", 30.0), ("s2", 10.0), ("s3", 20.0), ("s4", 40.0)):
        await store.create(waiting(name, created_at=since))

    async def names(*states: State, limit: int = 10) -> list[str]:
        return [record.session_id for record in await store.select(states, limit)]

    assert await names("waiting") == ["s2", "s3", "s1", "s4"]
    assert await names("waiting", limit=2) == ["s2", "s3"]
    assert await names("running") == []
    await store.submit("s2", assign(now=50.0))
    await store.submit("s1", assign(now=45.0))
    assert await names("waiting") == ["s3", "s4"]
    assert await names("running") == ["s1", "s2"]
    assert await names("waiting", "running") == ["s3", "s4", "s1", "s2"]
    await store.submit("s2", Requeue(1, now=60.0))
    assert await names("waiting") == ["s3", "s4", "s2"]
    await store.submit("s3", Settle(stop()))
    assert await names("stopped", "failed", "finished") == ["s3"]
    assert [record.head.state for record in await store.select(["stopped"], 10)] == ["stopped"]


async def test_sessions_are_listed_and_looked_up_without_their_prompts(store: Store) -> None:
    asked = Request("default", (Message("user", "x" * 1000),), 100.0, "user", '{"y": 1}', "conversation", "trace", True)
    await store.create(Record("s", asked, Head(since=100.0)))
    brief = Record("s", replace(asked, messages=(), parameters_json=""), Head(since=100.0))
    assert await store.select(["waiting"], 10) == await store.page(["waiting"], 10) == [brief]
    assert (await store.brief("s"), await store.brief("none")) == (brief, None)
    assert await store.load("s") == Record("s", asked, Head(since=100.0))


async def test_pages_of_sessions_are_the_newest_first_and_miss_none(store: Store) -> None:
    """By when they ended, or else entered their state; where that is the same, by their names."""
    for name, at in (("s1", 10.0), ("s2", 20.0), ("s3", 20.0), ("s4", 20.0), ("s5", 30.0), ("s6", 5.0)):
        await store.create(waiting(name, created_at=at))
    for name, at in (("s5", 40.0), ("s6", 40.0)):
        await store.submit(name, Settle(replace(stop(), at=at)))
    await store.submit("s1", assign(now=35.0))
    everything: tuple[State, ...] = ("waiting", "running", "stopped")

    async def pages(limit: int, *states: State) -> list[str]:
        names: list[str] = []
        before: Place | None = None
        while records := await store.page(states, limit, before):
            assert len(records) <= limit
            names += [record.session_id for record in records]
            before = place(records[-1].session_id, records[-1].head)
        return names

    for limit in (1, 2, 3, 10):
        assert await pages(limit, *everything) == ["s6", "s5", "s1", "s4", "s3", "s2"]
        assert await pages(limit, "waiting") == ["s4", "s3", "s2"]
        assert await pages(limit, "stopped") == ["s6", "s5"]
        assert await pages(limit, "failed") == []


async def test_only_an_ended_session_is_deleted(store: Store) -> None:
    epoch = await running(store)
    await store.create(waiting("s2"))
    assert await store.delete("s") is False
    assert await store.delete("s2") is False
    await store.submit("s", append(epoch, said(1), finished(2)))
    assert await store.delete("s") is True
    assert await store.delete("s") is False
    assert await store.load("s") is None
    assert (await store.read("s", 0, 10)).entries == []
    assert refusal(await store.submit("s", append(epoch, said(1)))) == "unknown_session"
    assert await store.load("s2") is not None


async def test_a_deletion_among_changes_takes_its_place(store: Store) -> None:
    epoch = await running(store)
    ending = store.submit("s", append(epoch, finished(1)))
    deleting = asyncio.ensure_future(store.delete("s"))
    await asyncio.sleep(0)
    late = store.submit("s", append(epoch, finished(1)))
    creating = asyncio.ensure_future(store.create(waiting("s")))
    assert head_of(await ending).over
    assert await deleting
    assert refusal(await late) == "unknown_session"
    assert (await creating).fresh
    assert (await store.read("s", 0, 10)).entries == []


async def test_ended_sessions_expire(store: Store) -> None:
    for n in range(120):
        await store.create(waiting(f"s{n}"))
        await store.submit(f"s{n}", Settle(stop(at=200.0 + n)))
    await store.create(waiting("live", created_at=1.0))
    key = IdempotencyKey("0123456789abcdef", b"body", 300.0)
    await store.create(waiting("keyed"), key)
    assert await store.expire(200.0) == 0
    assert await store.expire(310.0) == 110
    assert await store.load("s109") is None
    assert await store.load("s110") is not None
    assert await store.load("live") is not None
    assert await store.load("keyed") is not None
    assert await store.expire(310.0) == 0
    assert await store.expire(1000.0) == 10


# ---- offers, closing


async def test_offers_are_known_since_they_were_made(store: Store) -> None:
    assert await store.offered(0.0) == []
    await store.offer("i1", ["writer", "writer\0tools", "default"], 100.0)
    await store.offer("i1", ["default"], 160.0)
    await store.offer("i2", [], 170.0)
    await store.offer("i2", ["default"], 150.0)
    assert await store.offered(100.0) == ["default", "writer", "writer\0tools"]
    assert await store.offered(101.0) == ["default"]
    assert await store.offered(160.0) == ["default"]
    assert await store.offered(160.5) == []
    await store.expire(120.0)
    assert await store.offered(0.0) == ["default"]


async def test_of_many_offers_the_latest_are_known(store: Store) -> None:
    """A Commander may offer ever new agents: they are read at each request."""
    await store.offer("i1", ["long ago"], 100.0)
    await store.offer("i1", [f"agent {number}" for number in range(MAX_OFFERED + 10)], 101.0)
    await store.offer("i1", ["long ago", "now"], 102.0)
    for _ in range(2):
        offered = await store.offered(0.0)
        assert len(offered) == MAX_OFFERED
        assert {"long ago", "now"} < set(offered)
        assert offered == sorted(offered)
        await store.expire(50.0)


async def test_holds_are_in_force_until_they_end_or_are_lifted(url: str, store: Store) -> None:
    def hold(hold_id: str, ends_at: float) -> Hold:
        return Hold(hold_id, Fits(agent="a", tenant="ä"), 100.0, ends_at, "RiskControl", "why")

    assert await store.holds(0.0) == []
    for each in (hold("late", 300.0), hold("soon", 200.0), hold("late", 300.0)):
        await store.hold(each)
    assert await store.holds(199.9) == [hold("soon", 200.0), hold("late", 300.0)]
    assert await store.holds(200.0) == [hold("late", 300.0)]
    assert [await store.lift(hold_id) for hold_id in ("late", "late", "gone")] == [True, False, False]
    await store.expire(200.0)
    assert await store.holds(0.0) == [hold("soon", 200.0)]
    if not url.startswith("memory:"):
        await store.close()
        again = await open_store(url)
        assert await again.holds(0.0) == [hold("soon", 200.0)]
        await again.expire(200.1)
        assert await again.holds(0.0) == []
        await again.close()


async def test_closing_finishes_what_is_under_way(store: Store) -> None:
    epoch = await running(store)
    appended = [store.submit("s", append(epoch, said(n))) for n in range(1, 20)]
    await store.close()
    assert [head_of(await future).sequence for future in appended] == list(range(1, 20))
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.submit("s", append(epoch, said(20)))
    with pytest.raises(StoreUnavailable):
        await store.read("s", 0, 10)
    with pytest.raises(StoreUnavailable):
        await store.load("s")
    with pytest.raises(StoreUnavailable):
        await store.create(waiting("s9"))


async def test_each_step_is_observed(url: str) -> None:
    seen: list[tuple[float, int]] = []
    store = await open_store(url, lambda seconds, entries: seen.append((seconds, entries)))
    epoch = await running(store)
    seen.clear()
    await store.submit("s", append(epoch, said(1), said(2)))
    await store.submit("s", append(epoch, said(2)))
    await store.close()
    assert [entries for _, entries in seen] == [2]
    assert all(0 <= seconds < SECONDS for seconds, _ in seen)
