"""The runner without sockets: what it does when the store fails it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from dispatcher.core.entries import Entry, Finished, StopEntry
from dispatcher.core.log import Append, Change, Outcome, Record, Refused, Settle, TakeBack, TakeOver
from dispatcher.live import appends as module
from dispatcher.live import ports
from dispatcher.live.ports import Carried
from dispatcher.live.runner import Runner
from dispatcher.live.sessions import LiveSessions
from dispatcher.metrics import Metrics
from dispatcher.policies.phrases import PhraseSet, PhraseStream
from dispatcher.policing.load import load as load_policies
from dispatcher.settings import DispatcherSettings
from dispatcher.store.asking import until_known
from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import Store, StoreUnavailable
from dispatcher.tools.context import Context
from dispatcher.tools.load import load as load_tools
from dispatcher.tools.registry import NOBODYS, Registry, ToolOutput
from shared import turns
from shared.records import (
    MAX_OPEN_CALLS,
    Ack,
    Content,
    DownstreamSignal,
    Open,
    Stop,
    Thought,
    ToolCall,
    ToolResult,
    Upstream,
    Welcome,
)
from tests.dispatcher.tools.fakes import FakeTool, spec

OPEN = Open("c", token=b"its own")
REGISTRY: list[CollectorRegistry] = []  # of the test that runs


class Link:
    """A stream's side that keeps what it is told; Acks are taken at once."""

    def __init__(self) -> None:
        self.alive, self.full = True, False
        self.sends: dict[str, Callable[[ports.Link], Awaitable[bool]]] = {}  # that wait for room
        self.runner: Runner | None = None
        self.signals: list[DownstreamSignal] = []
        self.closed: list[str] = []

    def attach(self, carried: Carried) -> None:
        assert isinstance(carried, Runner)
        self.runner = carried

    def wait_for_room(self, session_id: str, send: Callable[[ports.Link], Awaitable[bool]]) -> None:
        self.sends[session_id] = send

    def send(self, session_id: str, signal: DownstreamSignal) -> None:
        self.signals.append(signal)

    def send_ack(self, carried: Carried, at_once: bool) -> None:
        self.signals.append(Ack(carried.take_ack()))

    def close(self, session_id: str, code: str) -> None:
        self.closed.append(code)

    def leave(self, session_id: str, over: bool) -> None:
        raise AssertionError("it leaves with a code in these tests")

    def kinds(self) -> list[type]:
        return [type(signal) for signal in self.signals]


class Unanswered(NamedTuple):
    """An append that stands in the store's queue until the test is over, or of which only the answer is late."""

    carried_out: bool


class Late:
    """An append that is carried out at once, and answered when the test says."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.carried_out: asyncio.Future[Outcome] | None = None

    def come(self) -> None:
        assert self.carried_out
        self.answer.set_result(self.carried_out.result())


class Scripted:
    """A store whose next appends fail as the script says; an empty script, or None in it: it works."""

    def __init__(self, store: Store) -> None:
        self._store, self.script = (
            store,
            list[Exception | Outcome | Unanswered | Late | asyncio.Future[Outcome] | None](),
        )
        self.appends: list[Append] = []

    def submit(self, session_id: str, change: Change) -> asyncio.Future[Outcome]:
        if not isinstance(change, Append):
            return self._store.submit(session_id, change)
        self.appends.append(change)
        if not self.script:
            return self._store.submit(session_id, change)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        match self.script.pop(0):
            case None:
                return self._store.submit(session_id, change)
            case asyncio.Future() as later:
                return later
            case Late() as late:
                late.carried_out = self._store.submit(session_id, change)
                return late.answer
            case Exception() as error:
                future.set_exception(error)
            case Unanswered(carried_out):
                if carried_out:
                    self._store.submit(session_id, change)
            case outcome:
                future.set_result(outcome)
        return future

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.fixture
async def store(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.001, 0.01))
    return Scripted(MemoryStore())


@pytest.fixture
async def sessions(store: Scripted) -> AsyncIterator[LiveSessions]:
    REGISTRY[:] = [CollectorRegistry()]
    settings = DispatcherSettings(grace_seconds=60)
    metrics = Metrics(REGISTRY[0])
    tools = Registry(load_tools(None).tools.values())
    sessions = LiveSessions(cast("Store", store), load_policies(None), tools, metrics, settings)
    yield sessions
    await sessions.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def opened(sessions: LiveSessions) -> tuple[Link, Runner]:
    link = Link()
    assert await sessions.desk.open(link, "s", OPEN) is None
    assert link.runner
    assert link.kinds() == [Welcome]
    return link, link.runner


def memory(store: Scripted) -> MemoryStore:
    assert isinstance(store._store, MemoryStore)
    return store._store


def say(runner: Runner, *texts: str) -> None:
    start = runner.session._accepted
    for number, text in enumerate(texts, start + 1):
        runner.receive(Upstream("s", Content(text), number, 0, 10))


def gauge(name: str) -> float | None:
    return REGISTRY[0].get_sample_value(f"dispatcher_{name}")


async def test_until_known_asks_again() -> None:
    answers: list[Exception | str] = [StoreUnavailable(), StoreUnavailable(), "answer"]

    async def ask() -> str:
        match answers.pop(0):
            case Exception() as error:
                raise error
            case answer:
                return answer

    assert await until_known(ask) == "answer"
    answers[:] = [ValueError()]
    with pytest.raises(ValueError):  # noqa: PT011
        await until_known(ask)


async def test_an_append_is_repeated_with_what_came_meanwhile_behind_it(
    sessions: LiveSessions, store: Scripted
) -> None:
    link, runner = await opened(sessions)
    store.script += [StoreUnavailable(), StoreUnavailable()]
    say(runner, "a")
    await asyncio.sleep(0)
    say(runner, "b", "c")
    assert gauge("backlog_packets") == 3
    assert Ack not in link.kinds()
    await runner.appends.drained()
    sequences = [[entry.sequence for entry in append.entries] for append in store.appends]
    assert sequences == [[1], [1], [1], [2, 3]]
    assert gauge("backlog_packets") == 0
    assert link.signals[-1] == Ack(3)


@pytest.fixture
async def policed(store: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveSessions]:
    """With a policy that reads all there is to read; every step of a turn is its last."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    file = tmp_path / "rules.toml"
    reads = '["content", "thoughts", "arguments", "results"]'
    file.write_text(f'[[policy]]\nname = "x"\nkind = "phrases"\nphrases = ["night x"]\nreads = {reads}\n')
    metrics, tools = Metrics(CollectorRegistry()), Registry(load_tools(None).tools.values())
    sessions = LiveSessions(cast("Store", store), load_policies(file), tools, metrics, DispatcherSettings())
    yield sessions
    await sessions.close()


class Others:
    """What else has the event loop: how often it has had it."""

    def __init__(self) -> None:
        self.turns = 0
        self._next()

    def _next(self) -> None:
        self.turns += 1
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    def stop(self) -> int:
        self._handle.cancel()
        return self.turns


@pytest.mark.parametrize(
    "payload",
    [
        Content("night " * 10_000),
        Thought("Planning", "night " * 10_000),
        ToolCall("t", '["' + "night " * 10_000 + '"]'),
    ],
    ids=["content", "thought", "arguments"],
)
async def test_others_have_the_loop_while_a_large_packet_is_read(
    policed: LiveSessions, store: Scripted, payload: Content | Thought | ToolCall
) -> None:
    _, runner = await opened(policed)
    packet, others = Upstream("s", payload, 1, 0, 60_000), Others()
    await runner.read_ahead(packet, turns.LoopTurn())
    assert others.stop() >= 60_000 // PhraseSet.slice
    assert not store.appends
    read: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhraseStream, "feed", lambda _, text: read.append(text))
        runner.receive(packet)
    assert read == []
    await runner.appends.drained()
    entry, *_ = (await policed.store.read("s", 0, 10)).entries
    assert entry.sequence == 1
    if isinstance(payload, Content):
        assert (entry.body, entry.released) == (payload, payload.text[: -len("night ")])


async def test_a_large_text_of_the_log_is_read_again_in_slices(policed: LiveSessions) -> None:
    link, runner = await opened(policed)
    runner.receive(Upstream("s", Content("night " * 10_000), 1, 0, 60_000))
    await runner.appends.drained()
    others, again = Others(), Link()
    assert await policed.desk.open(again, "s", OPEN) is None
    assert others.stop() >= 60_000 // PhraseSet.slice
    assert (again.kinds(), link.closed, runner.session.held) == ([Welcome], ["superseded"], len("night "))


@pytest.mark.parametrize("rounds", [0, 5])
async def test_changed_rules_read_in_turns_what_was_said_and_what_is_said_meanwhile(
    policed: LiveSessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr("dispatcher.live.runner.RULE_ROUNDS", rounds)
    monkeypatch.setattr(policed.runners, "_reload_running", True)
    link, runner = await opened(policed)
    say(runner, *["word "] * 100, "a d")
    await runner.appends.drained()
    file = tmp_path / "others.toml"
    file.write_text('[[policy]]\nname = "y"\nkind = "phrases"\nphrases = ["a day"]\n')
    before = runner.session._guard
    policed.runners.use(load_policies(file))
    for _ in range(20):
        await asyncio.sleep(0)
    assert (runner.session._guard is before) == (rounds > 0), "a hundred packets are a hundred turns, or one"
    say(runner, "a")
    await until(lambda: runner.session._guard is not before)
    say(runner, "y")
    await until(lambda: Stop in link.kinds())
    record = await policed.store.load("s")
    assert record
    assert (record.head.state, record.head.reason) == ("stopped", "PolicyViolation")


async def test_a_long_log_is_read_a_part_at_a_time(
    policed: LiveSessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever takes it up, and by changed rules."""
    for reader in ("dispatcher.store.asking", "dispatcher.live.runner"):
        monkeypatch.setattr(f"{reader}.READ_ENTRIES", 2)
    monkeypatch.setattr(policed.runners, "_reload_running", True)
    _, runner = await opened(policed)
    say(runner, *["word "] * 8, "a d", "night")
    await runner.appends.drained()
    link, before = Link(), runner.session
    assert await policed.desk.open(link, "s", OPEN) is None
    assert (runner.session is before, runner.session.offset, runner.session.held) == (False, before.offset, 5)
    file, guard = tmp_path / "others.toml", runner.session._guard
    file.write_text('[[policy]]\nname = "y"\nkind = "phrases"\nphrases = ["a dnight owl"]\n')
    policed.runners.use(load_policies(file))
    await until(lambda: runner.session._guard is not guard)
    say(runner, " owl")
    await until(lambda: Stop in link.kinds())


async def test_what_was_missed_of_a_log_is_read_a_part_at_a_time(
    sessions: LiveSessions, store: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.live.runner.READ_ENTRIES", 2)
    link, runner = await opened(sessions)
    head, known, reads, read = runner.session.head, runner.session.offset, list[int](), memory(store).read

    async def note(session_id: str, after: int, limit: int) -> tuple[list[Entry], bool]:
        reads.append(after)
        return await read(session_id, after, limit)

    monkeypatch.setattr(memory(store), "read", note)
    said = tuple(Entry(Content("word "), 0.0, head.generation, number) for number in range(1, 7))
    memory(store).submit("s", Append(head.epoch, said, "c"))
    memory(store).submit("s", Settle(Entry(StopEntry("stop", "UserCancel", "user"), 0.0)))
    for _ in range(3):
        runner.grown()  # each finds that more is missed; one reads it
    await until(lambda: Stop in link.kinds())
    assert runner.session.offset == known + 7
    assert sorted(set(reads)) == [known, known + 2, known + 4, known + 6]
    assert len(reads) <= 5, "the news is looked at once more"


async def test_rules_that_change_while_a_log_is_read_are_those_that_it_is_read_by(
    policed: LiveSessions, tmp_path: Path
) -> None:
    _, runner = await opened(policed)
    say(runner, *["word "] * 100, "a d")
    await runner.appends.drained()
    file, link = tmp_path / "others.toml", Link()
    file.write_text('[[policy]]\nname = "y"\nkind = "phrases"\nphrases = ["a day"]\n')
    others = load_policies(file)
    opening = asyncio.create_task(policed.desk.open(link, "s", OPEN))
    for _ in range(20):
        await asyncio.sleep(0)
    assert policed.runners._taken_up
    policed.runners.use(others)
    assert await opening is None
    say(runner, "ay")
    await until(lambda: Stop in link.kinds())


async def test_a_stop_between_two_slices_of_a_packet_lets_none_of_it_out(policed: LiveSessions) -> None:
    link, runner = await opened(policed)
    packet = Upstream("s", Content("night " * 1000), 1, 0, 6000)
    slices = runner.session.read_ahead(packet)
    next(slices)
    await policed.stop("s", "UserCancel", "user")
    await until(lambda: Stop in link.kinds())
    assert len([*slices]) >= 6000 // PhraseSet.slice
    runner.receive(packet)
    await until(lambda: runner.session.offset == 2)
    entries = (await policed.store.read("s", 0, 10)).entries
    assert [(entry.released, entry.decided) for entry in entries] == [("", 0), ("", 0)]


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_stop_waits_for_no_step_under_way(sessions: LiveSessions, store: Scripted, carried_out: bool) -> None:
    link, runner = await opened(sessions)
    store.script.append(Unanswered(carried_out))
    texts = ["a" * 65_000, "b" * 65_000, "c" * 65_000, "d" * 10_000]  # the built-in budget ends at 200,000
    say(runner, texts[0])
    await asyncio.sleep(0)
    say(runner, *texts[1:3])
    assert len(store.appends) == 1
    say(runner, texts[3])
    await runner.appends.drained()
    assert [[entry.sequence for entry in append.entries] for append in store.appends] == [[1], [1, 2, 3, 4, 4]]
    await until(lambda: Stop in link.kinds() and Ack in link.kinds())
    assert link.signals[-1] == Ack(4)
    entries = (await sessions.store.read("s", 0, 10)).entries
    assert [entry.body for entry in entries[:-1]] == [Content(text) for text in texts]
    assert isinstance(entries[-1].body, StopEntry)
    assert "".join(entry.released for entry in entries) == "".join(texts)[:200_000]
    await until(lambda: runner.session.offset == 5)
    assert gauge("backlog_packets") == 0
    assert REGISTRY[0].get_sample_value("dispatcher_packets_total", {"kind": "content"}) == 4


async def test_a_refused_append_closes_the_session_and_forgets_what_waits(
    sessions: LiveSessions, store: Scripted
) -> None:
    link, runner = await opened(sessions)
    store.script.append(Refused("superseded"))
    say(runner, "a", "b", "c")
    await until(lambda: link.closed)
    assert link.closed == ["superseded"]
    assert gauge("backlog_packets") == 0
    say(runner, "d")
    assert len(store.appends) == 1, "closed: dropped"


@pytest.mark.parametrize("noticed_by", ["a packet", "the grace's end"])
async def test_a_session_whose_log_is_gone_is_let_go(sessions: LiveSessions, store: Scripted, noticed_by: str) -> None:
    """As when Redis comes back empty."""
    link, runner = await opened(sessions)
    say(runner, "a")
    await until(lambda: Ack in link.kinds())
    memory(store)._records.clear()
    if noticed_by == "a packet":
        say(runner, "b")
        await until(lambda: link.closed == ["unknown_session"])
    else:
        runner.detach(link)
        runner.lost()
    await until(lambda: not sessions.runners.by_session)


async def test_a_session_that_is_deleted_before_its_last_result_comes_is_let_go(
    sessions: LiveSessions, store: Scripted
) -> None:
    """Its user was told of the stop, and deleted it, before the call that was under way had its result."""
    answer = asyncio.Event()
    sessions.runners.registry = Registry([FakeTool(spec("act"), answer)])
    link, runner = await opened(sessions)
    runner.receive(Upstream("s", ToolCall("act", "{}", "c"), 1, 0, 10))
    await until(lambda: runner.tools and not runner.appends.busy)
    runner.detach(link)
    memory(store)._records.clear()
    answer.set()
    await until(lambda: not sessions.runners.by_session)


async def test_a_session_that_another_instance_was_given_after_a_rollback_is_let_go(
    sessions: LiveSessions, store: Scripted
) -> None:
    """Epochs count on from where the log was rolled back to."""
    link, runner = await opened(sessions)
    runner.detach(link)
    record = memory(store)._records["s"]
    head = replace(record.head, instance="another", epoch=record.head.epoch - 1)
    memory(store)._records["s"] = replace(record, head=head)
    runner.grown()
    await until(lambda: not sessions.runners.by_session)


async def test_what_cannot_be_stored_fails_the_session(sessions: LiveSessions, store: Scripted) -> None:
    """A fault that no repetition mends: the packets behind it are a gap, and must not hide the end."""
    link, runner = await opened(sessions)
    store.script.append(ValueError("no such thing can be stored"))
    say(runner, "a", "b", "c")
    await until(lambda: link.closed)
    assert link.closed == ["invalid"]
    record = await sessions.store.load("s")
    assert record
    assert (record.head.state, record.head.code, record.head.sequence) == ("failed", "protocol_error", 0)
    assert gauge("backlog_packets") == 0


async def test_a_dead_link_is_as_none(sessions: LiveSessions) -> None:
    link = Link()
    link.alive = False
    assert await sessions.desk.open(link, "s", Open("c")) is None
    assert not link.signals
    assert "grace" in sessions.runners.by_session["s"].deadlines


async def test_a_long_log_is_read_again_in_turns_and_what_it_gets_meanwhile_is_not_missed(
    sessions: LiveSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, runner = await opened(sessions)
    say(runner, *["word "] * 200)
    await runner.appends.drained()
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    link, before = Link(), runner.session.epoch
    others = Others()
    opening = asyncio.create_task(sessions.desk.open(link, "s", OPEN))
    async with asyncio.timeout(10):
        while (record := await sessions.store.load("s")) and record.head.epoch == before:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert await sessions.stop("s", "UserCancel", "user")
    assert not opening.done(), "the stop came in between"
    assert await opening is None
    assert others.stop() >= 200
    await until(lambda: Stop in link.kinds())
    assert (link.kinds()[0], link.closed, old.closed) == (Welcome, [], ["superseded"])


async def test_results_wait_in_the_log_while_the_stream_is_full(sessions: LiveSessions) -> None:
    link, runner = await opened(sessions)
    link.full = True
    for number in range(1, MAX_OPEN_CALLS + 3):
        runner.receive(Upstream("s", ToolCall("nothing", "{}", f"c{number}"), number, 0, 10))
    await until(lambda: runner.session._calls.unsent >= MAX_OPEN_CALLS and not runner.tools)
    assert runner.session.waits
    assert runner.session._calls.unsent == MAX_OPEN_CALLS
    assert ToolResult not in link.kinds()
    link.full = False
    send = link.sends.pop("s")
    while await send(link):
        pass
    wanted = [f"c{number}" for number in range(1, MAX_OPEN_CALLS + 3)]
    await until(lambda: link.kinds().count(ToolResult) == len(wanted))
    assert {signal.call_id for signal in link.signals if isinstance(signal, ToolResult)} == set(wanted)
    assert not runner.session.waits


async def test_a_call_is_over_once_its_result_is_logged_and_sent(sessions: LiveSessions, store: Scripted) -> None:
    answer = asyncio.Event()
    sessions.runners.registry = Registry([FakeTool(spec("act"), answer)])
    link, runner = await opened(sessions)
    runner.receive(Upstream("s", ToolCall("act", "{}", "c1"), 1, 0, 10))
    over = asyncio.create_task(runner.tools_over())
    await until(lambda: runner.tools)
    answer.set()
    await asyncio.wait_for(over, 30)
    assert link.kinds().count(ToolResult) == 1
    link.full = True
    runner.receive(Upstream("s", ToolCall("act", "{}", "c2"), 2, 0, 10))
    await until(lambda: runner.session._calls.unsent == 1 and not runner.tools)
    over = asyncio.create_task(runner.tools_over())
    await asyncio.sleep(0)
    assert not over.done()
    link.full = False
    assert not await link.sends.pop("s")(link)
    await asyncio.wait_for(over, 30)
    assert link.kinds().count(ToolResult) == 2
    answer.clear()
    runner.receive(Upstream("s", ToolCall("act", "{}", "c3"), 3, 0, 10))
    await until(lambda: runner.tools)
    over = asyncio.create_task(runner.tools_over())
    await asyncio.sleep(0)
    memory(store)._records.clear()  # nothing can be logged
    answer.set()
    await asyncio.wait_for(over, 30)


async def test_what_waits_for_a_stream_that_is_gone_holds_up_nobody(sessions: LiveSessions) -> None:
    link, runner = await opened(sessions)
    link.full = True
    for number in range(1, MAX_OPEN_CALLS + 3):
        runner.receive(Upstream("s", ToolCall("nothing", "{}", f"c{number}"), number, 0, 10))
    await until(lambda: runner.session._calls.unsent >= MAX_OPEN_CALLS and not runner.tools)
    runner.detach(link)
    await until(lambda: not runner.session.waits and not runner.session.head.calls)
    assert not await link.sends["s"](link)
    assert ToolResult not in link.kinds()


async def test_closing_twice_lets_go_once(sessions: LiveSessions) -> None:
    _, runner = await opened(sessions)
    runner.close()
    runner.close()
    assert not runner.deadlines
    assert gauge("held_characters") == 0


async def test_closing_counts_nothing_as_on_its_way(sessions: LiveSessions, store: Scripted) -> None:
    _, runner = await opened(sessions)
    store.script.append(Unanswered(carried_out=False))
    say(runner, "a", "b")
    assert gauge("backlog_packets") == 2
    runner.close()
    assert gauge("backlog_packets") == 0


async def test_time_stands_in_the_log(sessions: LiveSessions) -> None:
    before = time.time()
    _, runner = await opened(sessions)
    say(runner, "a")
    await runner.appends.drained()
    [entry] = (await sessions.store.read("s", 0, 10)).entries
    assert before <= entry.at <= time.time()


async def test_a_session_that_another_took_over_unheard_is_taken_back_at_its_next_step(
    sessions: LiveSessions, store: Scripted
) -> None:
    link, runner = await opened(sessions)
    own, epoch = runner.host.instance, runner.session.epoch
    memory(store).submit("s", TakeOver(epoch, own, "another"))
    say(runner, "a")
    await until(lambda: runner.session.epoch == epoch + 1)
    record = await sessions.store.load("s")
    assert record
    assert (record.head.instance, record.head.sequence, link.closed) == (own, 1, [])


async def test_a_session_that_is_taken_back_while_it_is_taken_over_is_left_to_its_instance(
    sessions: LiveSessions, store: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, runner = await opened(sessions)
    epoch = runner.session.epoch
    memory(store).submit("s", TakeOver(epoch, sessions.runners.instance, "another"))
    sessions.runners.by_session.clear()
    load = store._store.load
    record = await load("s")
    assert record

    async def load_late(session_id: str) -> Record | None:
        memory(store).submit(session_id, TakeBack(epoch, "another"))
        return await load(session_id)

    monkeypatch.setattr(store._store, "load", load_late)
    await sessions.runners.take_over(record)
    await until(lambda: not sessions.runners.by_session)
    record = await load("s")
    assert record
    assert (record.head.instance, record.head.epoch) == ("another", epoch + 1)


async def test_a_session_that_has_ended_unheard_is_let_go_with_its_grace(
    sessions: LiveSessions, store: Scripted
) -> None:
    link, runner = await opened(sessions)
    head = runner.session.head
    runner.detach(link)
    memory(store).submit("s", Append(head.epoch, (Entry(Finished("stop"), 0.0, head.generation, 1),), "c"))
    runner.deadlines.come("grace")
    await until(lambda: not sessions.runners.by_session)


class LateTakeBack:
    """A TakeBack is carried out at once, and its answer is under way until `answer` is called."""

    def __init__(self, store: Scripted) -> None:
        self._inner, self.carried_out = store.submit, asyncio.Event()
        self._late: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._outcome: asyncio.Future[Outcome] | None = None

    def submit(self, session_id: str, change: Change) -> asyncio.Future[Outcome]:
        if not isinstance(change, TakeBack):
            return self._inner(session_id, change)
        self._outcome = self._inner(session_id, change)
        self.carried_out.set()
        return self._late

    def answer(self) -> None:
        assert self._outcome
        self._late.set_result(self._outcome.result())


@pytest.mark.parametrize("came", [StoreUnavailable(), Refused("superseded")], ids=["of no outcome", "refused"])
async def test_an_append_that_meets_a_take_back_is_repeated_under_its_epoch(
    sessions: LiveSessions, store: Scripted, monkeypatch: pytest.MonkeyPatch, came: Exception | Outcome
) -> None:
    """The lease had ended while the store was away. The epoch from before the take-back is nobody else's."""
    link, runner = await opened(sessions)
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.0, 0.0))
    taking = LateTakeBack(store)
    monkeypatch.setattr(store, "submit", taking.submit)
    append: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    store.script.append(append)
    say(runner, "a")
    before = runner.session.epoch
    back = asyncio.create_task(runner.take_back())
    await taking.carried_out.wait()
    if isinstance(came, Exception):
        append.set_exception(came)
    else:
        append.set_result(came)
    for _ in range(10):  # turns of the loop in which it would be repeated too early
        await asyncio.sleep(0)
    taking.answer()
    await back
    await runner.appends.drained()
    assert link.closed == []
    assert [append.epoch for append in store.appends] == [before, before + 1]
    assert link.signals[-1] == Ack(1)
    assert gauge("backlog_packets") == 0


async def test_a_session_that_was_closed_here_and_stays_this_instances_gets_its_grace(
    sessions: LiveSessions, store: Scripted
) -> None:
    """Its Commander has let go, as it was told; nobody else has it."""
    link, runner = await opened(sessions)
    store.script.append(Refused("superseded"))
    say(runner, "a")
    await until(lambda: link.closed)
    await until(lambda: "grace" in sessions.runners.by_session["s"].deadlines)
    sessions.runners.by_session["s"].deadlines.come("grace")
    await until(lambda: not sessions.runners.by_session)
    record = await sessions.store.load("s")
    assert record
    assert (record.head.state, record.head.code) == ("failed", "commander_lost")


class Noting(Registry):
    """Notes whose calls it is asked to run."""

    def __init__(self) -> None:
        super().__init__(())
        self.contexts: list[Context] = []

    async def run(self, name: str, arguments_json: str, context: Context = NOBODYS) -> ToolOutput:
        self.contexts.append(context)
        return await super().run(name, arguments_json, context)


async def test_a_tool_is_told_who_asked(sessions: LiveSessions) -> None:
    tools = sessions.runners.registry = Noting()
    link, runner = await opened(sessions)
    record = runner.session.record
    known = replace(record.request, subject="u-1", tenant="acme", claims=(("email", "a@b.example"),))
    runner.session.record = replace(record, request=known)
    runner.receive(Upstream("s", ToolCall("t", "{}", "c"), 1, 0, 10))
    await until(lambda: ToolResult in link.kinds())
    [context] = tools.contexts
    assert (context.subject, context.tenant, context.claims) == ("u-1", "acme", {"email": "a@b.example"})
    await until(lambda: not runner.tools_run)


class Faulty(Registry):
    """Breaks its promise to answer whatever happens."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(())
        self._error = error

    async def run(self, name: str, arguments_json: str, context: Context = NOBODYS) -> ToolOutput:
        raise self._error


class OwnEnd(BaseException):
    pass


async def test_a_call_that_is_read_from_the_log_before_its_answer_comes_is_run(
    sessions: LiveSessions, store: Scripted
) -> None:
    """The answer to the append before it was lost, so the log is read, and has the call in it already."""
    tools = sessions.runners.registry = Noting()
    link, runner = await opened(sessions)
    lost, late = Late(), Late()
    lost.answer.set_exception(StoreUnavailable())
    store.script += [lost, None, late]
    say(runner, "a")
    await asyncio.sleep(0)
    runner.receive(Upstream("s", ToolCall("t", "{}", "c"), 2, 0, 10))
    await until(lambda: late.carried_out and runner.session.offset)
    assert not tools.contexts
    late.come()
    await until(lambda: ToolResult in link.kinds())
    assert len(tools.contexts) == 1
    await until(lambda: not runner.tools_run)


@pytest.mark.parametrize("error", [RuntimeError("canary"), OwnEnd("canary")])
async def test_a_fault_around_a_tool_is_answered(sessions: LiveSessions, error: BaseException) -> None:
    sessions.runners.registry = Faulty(error)
    link, runner = await opened(sessions)
    runner.receive(Upstream("s", ToolCall("t", "{}", "c"), 1, 0, 10))
    await until(lambda: ToolResult in link.kinds())
    [result] = [signal for signal in link.signals if isinstance(signal, ToolResult)]
    assert (result.call_id, result.status) == ("c", "TOOL_ERROR")
    assert "canary" not in result.result_json
    await until(lambda: not runner.tools_run)


async def test_a_stop_while_the_log_is_being_read_is_told_at_once(
    sessions: LiveSessions, store: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No runner is there yet that could hear of it, and what was read lacks it."""
    load, asked, late = store._store.load, asyncio.Event(), asyncio.Event()

    async def load_late(session_id: str) -> Record | None:
        if record := await load(session_id):
            asked.set()
            await late.wait()
        return record

    link = Link()
    with monkeypatch.context() as patch:
        patch.setattr(store._store, "load", load_late)
        opening = asyncio.create_task(sessions.desk.open(link, "s", OPEN))
        await asked.wait()
    assert await sessions.stop("s", "UserCancel", "user")
    late.set()
    assert await opening is None
    await until(lambda: Stop in link.kinds())
    assert link.kinds() == [Welcome, Stop]
    assert not sessions.runners._taken_up
    assert not sessions.runners._missed


async def test_a_result_that_comes_while_the_log_is_being_read_is_sent(
    sessions: LiveSessions, store: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner is busy with another call, so it stays; the core that it had is told, not the one that is built."""
    answer, stays = asyncio.Event(), asyncio.Event()
    sessions.runners.registry = Registry([FakeTool(spec("act"), answer), FakeTool(spec("other"), stays)])
    _, runner = await opened(sessions)
    runner.receive(Upstream("s", ToolCall("act", "{}", "c1"), 1, 0, 10))
    runner.receive(Upstream("s", ToolCall("other", "{}", "c2"), 2, 0, 10))
    await until(lambda: len(runner.session.head.calls) == 2)
    load, asked, late = store._store.load, 0, asyncio.Event()

    async def load_late(session_id: str) -> Record | None:
        nonlocal asked
        asked += 1
        record = await load(session_id)
        if asked == 2:  # the one before is of the opening itself
            await late.wait()
        return record

    link = Link()
    monkeypatch.setattr(store._store, "load", load_late)
    opening = asyncio.create_task(sessions.desk.open(link, "s", replace(OPEN, awaiting_call_ids=("c1", "c2"))))
    await until(lambda: asked == 2)
    answer.set()
    await until(lambda: memory(store)._records["s"].head.calls.keys() == {"c2"})
    late.set()
    assert await opening is None
    assert link.kinds() == [Welcome]
    assert not await link.sends.pop("s")(link)  # from the log: what a session has found of results is not in memory
    assert link.kinds() == [Welcome, ToolResult]
    stays.set()
    await until(lambda: link.kinds() == [Welcome, ToolResult, ToolResult])


async def test_a_log_that_was_read_before_its_runner_was_done_runs_no_call_again(
    sessions: LiveSessions, store: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's answer comes late: meanwhile the call's result was logged, and nothing was left to do here."""
    answer, late = asyncio.Event(), asyncio.Event()
    act = FakeTool(spec("act"), answer)
    sessions.runners.registry = Registry([act])
    link, runner = await opened(sessions)
    runner.receive(Upstream("s", ToolCall("act", "{}", "c1"), 1, 0, 10))
    await until(lambda: act.running)
    load, asked = store._store.load, 0

    async def load_late(session_id: str) -> Record | None:
        nonlocal asked
        asked += 1
        record = await load(session_id)
        await late.wait()
        return record

    monkeypatch.setattr(store._store, "load", load_late)
    taking_up = asyncio.create_task(sessions.runners.take_up("s", None, anew=True))
    await until(lambda: asked)
    runner.detach(link)
    runner.close()  # as where another instance has it
    answer.set()
    await until(lambda: "s" not in sessions.runners.by_session)
    late.set()
    again = await taking_up
    assert again
    await again.tools_over()
    assert len(act.calls) == 1
    assert not sessions.runners._taken_up
    assert not sessions.runners._missed
