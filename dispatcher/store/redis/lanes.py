"""How the changes of sessions are carried out: one lane for each session, in which one step is under way at a time.

A step of a session that is known, as nearly all are, is one command and one callback: in a task of its own it took a
quarter more (107 µs instead of 85, of 16 at a time). Whatever else may come of it is seen to in a task.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias, TypeVar

from msgspec.structs import replace
from redis.exceptions import ResponseError

from dispatcher.core.entries import Entry, StopEntry
from dispatcher.core.log import Applied, Assign, Change, Head, Outcome, Record, Refused, Settle, apply
from dispatcher.store.blobs import encode, head_of, record_of, without_prompt
from dispatcher.store.followers import Hub
from dispatcher.store.ports import StoreUnavailable, resolve
from dispatcher.store.redis.hints import Hints
from dispatcher.store.redis.keys import Channels, session_keys
from dispatcher.store.redis.pipeline import Argument, Reply
from dispatcher.store.redis.scripts import STEP, Command, command
from dispatcher.store.redis.server import Servers

STEP_CHANGES = 256  # of one session in one step: Redis serves nobody else meanwhile
CONTEND_SECONDS = 5.0  # a step is tried again while other processes change the session
TURN_MS = 1000  # for which others let the one pass that has lost to them; they must not wait longer if it dies
TURN_SECONDS = (0.001, 0.01)  # a random time between two looks whether it is over

T = TypeVar("T")
Work: TypeAlias = Callable[[], Awaitable[Any]]


class Known(NamedTuple):
    """A session as it was when it was read or written last; `token` tells whether it still is, and none that what has
    become of it is not known. No prompt in it.
    """

    token: bytes
    record: Record


class _Step:
    """What a step makes of a session that is known."""

    def __init__(self, known: Known, changes: list[Change]) -> None:
        self.known, self.changes = known, changes
        self.record = known.record
        self.entries: list[Entry] = []
        self.blobs: list[bytes] = []
        self.head = b""
        self.outcomes = [self._outcome(change) for change in changes]

    def _outcome(self, change: Change) -> Outcome | Exception:
        try:
            outcome = apply(self.record, change)
            if not isinstance(outcome, Applied) or outcome.head is self.record.head:
                return outcome
            blobs, head = [encode(entry) for entry in outcome.entries], encode(outcome.head)
        except Exception as error:
            return error  # such as a number that has no place in a blob: the others are not to blame
        self.record, self.head = replace(self.record, head=outcome.head), head
        self.entries += outcome.entries
        self.blobs += blobs
        return outcome


Jobs: TypeAlias = list[tuple[asyncio.Future[Any], Change | Work]]


class _Try(NamedTuple):
    """A step as it was sent. nonce: under which the session waits for its turn, the same in each of a step's tries.
    began: the first one (`perf_counter`).
    """

    step: _Step
    token: bytes
    nonce: bytes
    began: float


class _Lane:
    """kept: beyond the steps under way. running: jobs are carried out, or about to be. task: that does it, if any."""

    __slots__ = ("kept", "known", "queued", "running", "session_id", "task")

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.kept = False
        self.known: Known | None = None
        self.queued: Jobs = []
        self.running = False
        self.task: asyncio.Task[None] | None = None

    def doubt(self) -> None:
        """What has become of the session is not known. It is not forgotten: others may have news of it."""
        self.known = self.known and Known(b"", self.known.record)

    def take(self) -> Jobs:
        """What is carried out next: work of its own, or changes, of which stops go ahead of the others."""
        end = next((n for n, (_, job) in enumerate(self.queued) if callable(job)), len(self.queued))
        if not end:
            return [self.queued.pop(0)]
        changes = self.queued[:end]
        taken = [queued for queued in changes if _stops(queued[1])] or changes[:STEP_CHANGES]
        if len(taken) < len(self.queued):
            futures = {future for future, _ in taken}
            self.queued = [queued for queued in self.queued if queued[0] not in futures]
        else:
            self.queued = []
        return taken


class Lanes:
    """observe: called with the seconds that a step took and the entries that it added.

    kept_changed: called with a session's id when its lane is kept from now on, or no longer.
    fresh: a step writes even where it changes nothing, so that replicas acknowledge what it confirms.
    """

    def __init__(
        self,
        servers: Servers,
        hub: Hub,
        hints: Hints,
        channels: Channels,
        instance: str,
        observe: Callable[[float, int], None] | None,
        kept_changed: Callable[[str], None],
        fresh: bool,
    ) -> None:
        self._servers, self._hub, self._hints, self._channels = servers, hub, hints, channels
        self._instance, self._observe, self._kept_changed, self._fresh = instance, observe, kept_changed, fresh
        self._lanes: dict[str, _Lane] = {}
        self._due: list[_Lane] = []  # begin at the end of this turn of the loop
        self._rested = asyncio.Event()  # a lane has no more to do

    def submit(self, session_id: str, change: Change) -> asyncio.Future[Outcome]:
        return self._enqueue(session_id, change)

    def run(self, session_id: str, work: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """Something else that is done to the session, in its place among the changes."""
        return self._enqueue(session_id, work)

    async def finish(self) -> None:
        """Return when nothing is under way any more."""
        while any(lane.running for lane in self._lanes.values()):
            self._rested.clear()
            await self._rested.wait()

    # ---- the sessions that this instance has, or runs a tool for

    def owned(self) -> Iterator[tuple[str, Known]]:
        """Those of which no step is under way."""
        for session_id, lane in self._lanes.items():
            if lane.known and not lane.running:
                yield session_id, lane.known

    async def read(self, session_id: str) -> Record | None:
        """The session as Redis has it, from which its lane learns. Raises StoreUnavailable."""
        known = await self._fetch(session_id)
        if known:
            self._learn(session_id, known)
        return known and known.record

    def _learn(self, session_id: str, known: Known) -> None:
        lane = self._lanes.get(session_id)
        if lane and lane.running:
            return  # the step under way knows better
        if self._keeps(known.record.head):
            lane = lane or self._lanes.setdefault(session_id, _Lane(session_id))
            lane.known = Known(known.token, without_prompt(known.record))
            self._keep(lane)
        elif lane:
            self._let_go(lane)

    def forget(self, session_id: str) -> None:
        """The session is gone."""
        lane = self._lanes.get(session_id)
        if lane and not lane.running:
            self._let_go(lane)

    def kept(self, session_id: str) -> bool:
        """Whoever changes the session tells this instance of it, on its own channel."""
        lane = self._lanes.get(session_id)
        return lane is not None and lane.kept

    def _keeps(self, head: Head) -> bool:
        return not head.complete and self._instance in _instances(head)

    def _keep(self, lane: _Lane) -> None:
        if not lane.kept:
            lane.kept = True
            self._kept_changed(lane.session_id)

    def _let_go(self, lane: _Lane) -> None:
        del self._lanes[lane.session_id]
        if lane.kept:
            self._kept_changed(lane.session_id)

    # ---- carrying out

    def _enqueue(self, session_id: str, job: Change | Work) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        lane = self._lanes.get(session_id)
        if lane is None:
            lane = self._lanes[session_id] = _Lane(session_id)
        lane.queued.append((future, job))
        if not lane.running:
            lane.running = True
            if not self._due:  # at the end of this turn of the loop: what else is submitted in it goes with it
                loop.call_soon(self._begin_due)
            self._due.append(lane)
        return future

    def _begin_due(self) -> None:
        due, self._due = self._due, []
        for lane in due:
            self._begin(lane)

    def _begin(self, lane: _Lane) -> None:
        jobs, known = lane.take(), lane.known
        if callable(jobs[0][1]) or not (known and known.token):
            self._drain_in_task(lane, jobs)
            return
        try:
            tried = _try(known, [change for _, change in jobs])  # type: ignore[misc] # no work among them
            sent = self._servers.send(self._command(lane.session_id, tried))
        except Exception as error:
            self._fail(lane, jobs, error)
            self._rest(lane)
        else:
            sent.add_done_callback(partial(self._replied, lane, jobs, tried))

    def _replied(self, lane: _Lane, jobs: Jobs, tried: _Try, sent: asyncio.Future[list[Reply]]) -> None:
        try:
            (reply,) = sent.result()
            if reply != 1:
                self._drain_in_task(lane, jobs, tried, reply)
                return
            _answer(jobs, self._done(lane, tried))
        except Exception as error:
            self._fail(lane, jobs, error)
        self._rest(lane)

    def _rest(self, lane: _Lane) -> None:
        """Its jobs are done: those that have come meanwhile are next."""
        if lane.queued:
            self._begin(lane)
            return
        lane.running = False
        self._rested.set()
        if lane.known and self._keeps(lane.known.record.head):
            self._keep(lane)
        else:
            self._let_go(lane)

    def _fail(self, lane: _Lane, jobs: Jobs, error: Exception) -> None:
        lane.doubt()
        _answer(jobs, [_failure(error) for _ in jobs])

    def _done(self, lane: _Lane, tried: _Try) -> list[Any]:
        """The outcome of each change, or what it alone met."""
        step = tried.step
        if step.head:
            lane.known = Known(tried.token, step.record)
            self._stepped(lane.session_id, step, perf_counter() - tried.began)
        else:
            self._hub.heard(lane.session_id, step.record.head.offset)  # it may confirm what was written unheard
        for change, outcome in zip(step.changes, step.outcomes, strict=True):
            if isinstance(change, Assign) and isinstance(outcome, Refused):
                self._hints.not_waiting(lane.session_id, step.record.head, outcome)
        return step.outcomes

    # ---- what is more than one command

    def _drain_in_task(self, lane: _Lane, jobs: Jobs, tried: _Try | None = None, reply: Reply = None) -> None:
        lane.task = asyncio.get_running_loop().create_task(self._drain(lane, jobs, tried, reply))

    async def _drain(self, lane: _Lane, jobs: Jobs, tried: _Try | None, reply: Reply) -> None:
        work = jobs[0][1]
        try:
            if callable(work):
                lane.doubt()
                answers = [await work()]
            else:
                changes: list[Change] = [change for _, change in jobs]  # type: ignore[misc]
                answers = await self._step(lane, changes, tried, reply)
        except Exception as error:
            self._fail(lane, jobs, error)
        else:
            _answer(jobs, answers)
        lane.task = None
        self._rest(lane)

    async def _step(self, lane: _Lane, changes: list[Change], tried: _Try | None, reply: Reply) -> list[Any]:
        """The outcome of each change, or what it alone met. tried: what the first try brought. Raises
        StoreUnavailable.
        """
        give_up = asyncio.get_running_loop().time() + CONTEND_SECONDS
        again = tried is None or isinstance(reply, ResponseError)  # nothing has come of it: another server has it
        while True:
            if again:
                known = lane.known
                if not (known and known.token):
                    known = await self._fetch(lane.session_id)
                    known = lane.known = known and Known(known.token, without_prompt(known.record))
                if known is None:
                    return self._unknown(lane.session_id, changes)
                tried = _try(known, changes, tried)
                reply = await self._servers.call(self._command(lane.session_id, tried))
            assert tried  # noqa: S101
            if reply == 1:
                return self._done(lane, tried)
            if reply is None:
                lane.known = None
                return self._unknown(lane.session_id, changes)
            if asyncio.get_running_loop().time() > give_up:
                raise StoreUnavailable("other processes change this session all the time")
            lane.known = Known(reply[0], replace(tried.step.record, head=head_of(reply[1])))
            if not reply[2]:  # it is another one's turn
                await asyncio.sleep(random.uniform(*TURN_SECONDS))  # noqa: S311 # not all at once
            again = True

    def _command(self, session_id: str, tried: _Try) -> Command:
        step, token = tried.step, tried.token
        before, head = step.known.record.head, step.record.head
        ended = head.ended_at if head.final and not before.final else ""
        first = step.entries[0].offset if step.entries else 0
        if not step.head:
            token = step.known.token if self._fresh else b""
        news: list[Argument] = []
        if step.entries:
            news += (self._channels.log(session_id), f"{head.offset} {self._instance}")
        for instance in self._others(before, head) if step.head else ():
            news += (self._channels.instance(instance), session_id)
        keys = session_keys(session_id)
        return STEP(
            keys,
            step.known.token,
            token,
            tried.nonce,
            TURN_MS,
            step.head,
            ended,
            first,
            len(step.blobs),
            *step.blobs,
            *news,
        )

    def _others(self, before: Head, after: Head) -> set[str]:
        """The instances that a step is told to."""
        if before.instance == after.instance == self._instance and not (before.calls or after.calls):
            return set()  # as nearly always
        return (_instances(before) | _instances(after)) - {self._instance, ""}

    async def _fetch(self, session_id: str) -> Known | None:
        keys = session_keys(session_id)
        token, request, head = await self._servers.read(command("HMGET", keys.head, "token", "request", "head"))
        return Known(token, record_of(session_id, request, head)) if token else None

    def _stepped(self, session_id: str, step: _Step, seconds: float) -> None:
        before = step.known.record
        self._hints.stepped(session_id, before.request, before.head, step.record.head)
        if step.entries:
            self._hub.publish(session_id, step.entries, [len(blob) for blob in step.blobs])
            if self._observe:
                self._observe(seconds, len(step.entries))

    def _unknown(self, session_id: str, changes: list[Change]) -> list[Any]:
        refused = Refused("unknown_session")
        if any(isinstance(change, Assign) for change in changes):
            self._hints.not_waiting(session_id, None, refused)
        return [refused for _ in changes]


def _stops(change: Change | Work) -> bool:
    return isinstance(change, Settle) and isinstance(change.entry.body, StopEntry)


def _instances(head: Head) -> set[str]:
    """Whom a change of the session concerns."""
    return {head.instance, *(call.instance for call in head.calls.values())}


def _try(known: Known, changes: list[Change], before: _Try | None = None) -> _Try:
    """before: the try that this one repeats."""
    token = os.urandom(8)
    nonce, began = (before.nonce, before.began) if before else (token, perf_counter())
    return _Try(_Step(known, changes), token, nonce, began)


def _answer(jobs: Jobs, answers: Sequence[Any]) -> None:
    for (future, _), value in zip(jobs, answers, strict=True):
        resolve(future, value)


def _failure(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(str(error) if isinstance(error, StoreUnavailable) else f"the store failed: {error}")
