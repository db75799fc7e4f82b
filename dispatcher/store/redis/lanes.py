"""How the changes of sessions are carried out: one lane for each session, in which one step is under way at a time."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias, TypeVar

from msgspec.structs import replace

from dispatcher.core.entries import Entry, StopEntry
from dispatcher.core.log import Applied, Assign, Change, Head, Outcome, Record, Refused, Settle, apply
from dispatcher.store.blobs import encode, head_of, record_of, without_prompt
from dispatcher.store.followers import Hub
from dispatcher.store.ports import StoreUnavailable
from dispatcher.store.redis.hints import Hints
from dispatcher.store.redis.keys import Channels, session_keys
from dispatcher.store.redis.pipeline import Argument
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
        self.record = known.record
        self.entries: list[Entry] = []
        self.blobs: list[bytes] = []
        self.head = b""
        self.instances = _instances(known.record.head)
        self.outcomes = [self._outcome(change) for change in changes]
        self.instances |= _instances(self.record.head)

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


class _Lane:
    """kept: beyond the steps under way."""

    __slots__ = ("kept", "known", "queued", "running", "session_id")

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.kept = False
        self.known: Known | None = None
        self.queued: list[tuple[asyncio.Future[Any], Change | Work]] = []
        self.running: asyncio.Task[None] | None = None

    def doubt(self) -> None:
        """What has become of the session is not known. It is not forgotten: others may have news of it."""
        self.known = self.known and Known(b"", self.known.record)

    def take(self) -> list[tuple[asyncio.Future[Any], Change | Work]]:
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

    def submit(self, session_id: str, change: Change) -> asyncio.Future[Outcome]:
        return self._enqueue(session_id, change)

    def run(self, session_id: str, work: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """Something else that is done to the session, in its place among the changes."""
        return self._enqueue(session_id, work)

    async def finish(self) -> None:
        """Return when nothing is under way any more."""
        while running := [lane.running for lane in self._lanes.values() if lane.running]:
            await asyncio.wait(running)

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
            # It begins at the end of this turn of the loop: what else is submitted in it goes with it.
            lane.running = loop.create_task(self._drain(lane))
        return future

    async def _drain(self, lane: _Lane) -> None:
        while lane.queued:
            jobs = lane.take()
            work = jobs[0][1]
            try:
                if callable(work):
                    lane.doubt()
                    answers = [await work()]
                else:
                    answers = await self._step(lane, [change for _, change in jobs])  # type: ignore[misc]
            except Exception as error:
                lane.doubt()
                answers = [_failure(error) for _ in jobs]
            for (future, _), answer in zip(jobs, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        lane.running = None
        if lane.known and self._keeps(lane.known.record.head):
            self._keep(lane)
        else:
            self._let_go(lane)

    async def _step(self, lane: _Lane, changes: list[Change]) -> list[Any]:
        """The outcome of each change, or what it alone met. Raises StoreUnavailable."""
        started = perf_counter()
        nonce = os.urandom(8)
        give_up = asyncio.get_running_loop().time() + CONTEND_SECONDS
        while True:
            known = lane.known
            if not (known and known.token):
                known = await self._fetch(lane.session_id)
                known = lane.known = known and Known(known.token, without_prompt(known.record))
            if known is None:
                return self._unknown(lane.session_id, changes)
            step = _Step(known, changes)
            token = os.urandom(8)
            reply = await self._servers.call(self._command(lane.session_id, known, step, nonce, token))
            if reply == 1:
                break
            if reply is None:
                lane.known = None
                return self._unknown(lane.session_id, changes)
            if asyncio.get_running_loop().time() > give_up:
                raise StoreUnavailable("other processes change this session all the time")
            lane.known = Known(reply[0], replace(known.record, head=head_of(reply[1])))
            if not reply[2]:  # it is another one's turn
                await asyncio.sleep(random.uniform(*TURN_SECONDS))  # noqa: S311 # not all at once
        if step.head:
            lane.known = Known(token, step.record)
            self._stepped(lane.session_id, known.record, step, perf_counter() - started)
        else:
            self._hub.heard(lane.session_id, step.record.head.offset)  # it may confirm what was written unheard
        for change, outcome in zip(changes, step.outcomes, strict=True):
            if isinstance(change, Assign) and isinstance(outcome, Refused):
                self._hints.not_waiting(lane.session_id, step.record.head, outcome)
        return step.outcomes

    def _command(self, session_id: str, known: Known, step: _Step, nonce: bytes, token: bytes) -> Command:
        head = step.record.head
        ended = head.ended_at if head.final and not known.record.head.final else ""
        first = step.entries[0].offset if step.entries else 0
        if not step.head:
            token = known.token if self._fresh else b""
        news: list[Argument] = []
        if step.entries:
            news += (self._channels.log(session_id), f"{head.offset} {self._instance}")
        for instance in step.instances - {self._instance, ""} if step.head else ():
            news += (self._channels.instance(instance), session_id)
        keys = session_keys(session_id)
        return STEP(
            keys, known.token, token, nonce, TURN_MS, step.head, ended, first, len(step.blobs), *step.blobs, *news
        )

    async def _fetch(self, session_id: str) -> Known | None:
        keys = session_keys(session_id)
        token, request, head = await self._servers.read(command("HMGET", keys.head, "token", "request", "head"))
        return Known(token, record_of(session_id, request, head)) if token else None

    def _stepped(self, session_id: str, before: Record, step: _Step, seconds: float) -> None:
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


def _failure(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(str(error) if isinstance(error, StoreUnavailable) else f"the store failed: {error}")
