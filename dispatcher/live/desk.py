"""Where Commanders get their sessions: assigned to them from the queue, or opened by them on a stream."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Literal

from msgspec.structs import replace

from dispatcher.core.entries import Entry, Failed
from dispatcher.core.history import HistoryReader, assignment_of
from dispatcher.core.log import Acquire, Applied, Assign, CommanderName, Head, Record, Request
from dispatcher.core.tokens import digest
from dispatcher.live import clock, ids
from dispatcher.live.fleet import OnHold, check_holds
from dispatcher.live.pool import Pool
from dispatcher.live.ports import Carried, Link
from dispatcher.live.runners import Runners
from dispatcher.live.upkeep import Upkeep
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from dispatcher.store.asking import in_parts, until_known
from dispatcher.store.ports import Created, StoreUnavailable
from shared.records import Assignment, Open
from shared.turns import in_turns

# Sessions that live on this instance, each in some 15 KiB. From then on none is taken that a Commander brings: users'
# are bounded by the queue and by slots, and these by nothing else.
MAX_LIVE = 4096


class Desk:
    """What streams and the pool ask of the sessions."""

    def __init__(self, runners: Runners, metrics: Metrics, settings: DispatcherSettings) -> None:
        self.metrics, self.settings = metrics, settings
        self.pool = Pool(self, metrics, settings.queue_seconds)
        self._runners, self._instance, self.pace = runners, runners.instance, runners.pace
        self._tokenless_opens = settings.tokenless_opens
        self.upkeep = Upkeep(runners.store, runners.instance, self.pool.offers, settings.retention_seconds)

    # ---- opened on a stream

    async def open(
        self, link: Link, session_id: str, opening: Open, given: bool = False, credential: str = ""
    ) -> str | None:
        """A Commander opens the session on a stream: Welcome is sent, or the `closed` code is returned. given: its
        assignment was sent on that stream, and waits for this. credential: as in a Commander's name.

        Also when the stream is gone meanwhile: what the log gave to it must not be left to nobody.
        """
        return await asyncio.shield(self.spawn(self._open(link, session_id, opening, given, credential)))

    async def _open(self, link: Link, session_id: str, opening: Open, excused: bool, credential: str) -> str | None:
        now, commander = clock.now(), CommanderName(opening.commander_id, credential)
        try:
            if opening.generation == 0 and not await self._runners.store.brief(session_id):
                if await self._closed(commander):
                    return "unavailable"
                brought = await self._bring(session_id, commander, "commander", now, digest(opening.token))
                excused = brought.fresh
            acquire = Acquire(
                opening.commander_id,
                opening.generation,
                self._instance,
                now,
                opening.token,
                excused or self._tokenless_opens,
                credential,
            )
            outcome = await self._runners.store.submit(session_id, acquire)
            if not isinstance(outcome, Applied):
                return outcome.code
            self.pool.withdraw(session_id)
            if not await self._runners.take_up(session_id, link, opening.awaiting_call_ids, outcome.head.epoch):
                return "superseded"
        except StoreUnavailable:
            self._runners.find_again(session_id)
            return "unavailable"
        return None

    async def open_older(self, link: Link, session_id: str) -> Carried | str:
        """The session of a peer of the published contract, which brings no `open`: its runner, or why not."""
        return await asyncio.shield(self.spawn(self._open_older(link, session_id)))

    async def _open_older(self, link: Link, session_id: str) -> Carried | str:
        commander, now = CommanderName(ids.commander_id()), clock.now()
        with self._runners.bringing(session_id):
            try:
                if await self._closed(commander):
                    return "unavailable"
                created = await self._bring(session_id, commander, "older", now)
                if not created.fresh:
                    return "exists"
                acquire = Acquire(commander.commander_id, 0, self._instance, now, excused=True)
                outcome = await self._runners.store.submit(session_id, acquire)
                if not isinstance(outcome, Applied):
                    return outcome.code
                return await self._runners.take_up(session_id, link, (), outcome.head.epoch) or "superseded"
            except StoreUnavailable:
                self._runners.find_again(session_id)
                return "unavailable"

    async def _closed(self, commander: CommanderName) -> bool:
        """No session is taken that this Commander brings. Raises StoreUnavailable."""
        if len(self._runners.by_session) >= MAX_LIVE:
            self.metrics.refused("chatstream", "sessions")
            return True
        try:
            unsaid = Request("", (), clock.now())  # it says nothing of what it is for
            await check_holds(self._runners.store, unsaid, commander)
        except OnHold:
            self.metrics.refused("chatstream", "on_hold")
            return True
        return False

    async def _bring(
        self,
        session_id: str,
        commander: CommanderName,
        origin: Literal["commander", "older"],
        now: float,
        owner_sha256: bytes = b"",
    ) -> Created:
        request = Request("", (), now, origin, owner_sha256=owner_sha256)
        head = Head(
            state="running",
            commander_id=commander.commander_id,
            credential=commander.credential,
            instance=self._instance,
            since=now,
        )
        return await self._runners.store.create(Record(session_id, request, head))

    # ---- assigned from the queue

    async def assign(
        self, session_id: str, commander: CommanderName, continues: Callable[[str], bool]
    ) -> Assignment | None:
        """Give a waiting session to that Commander, in the log first; the history is read after that (rule 1)."""
        try:
            record = await self._runners.store.load(session_id)
            if record is None:
                return None
            commander_id, credential = commander
            may_go_on = continues(record.request.agent)
            change = Assign(commander_id, self._instance, may_go_on, clock.now(), credential)
            outcome = await self._runners.store.submit(session_id, change)
        except StoreUnavailable:
            self._runners.find_again(session_id)
            return None
        if not isinstance(outcome, Applied):
            return None
        epoch = outcome.head.epoch
        runner = await until_known(lambda: self._runners.take_up(session_id, None, (), epoch))
        if runner is None or runner.session.head.final:
            return None  # it was stopped meanwhile
        runner.facts.assigned(outcome)
        history = await until_known(lambda: self._history(session_id, outcome.head))
        if history.too_large:
            failed = Entry(Failed("history_too_large"), clock.now(), outcome.head.generation)
            await self._runners.fail(session_id, epoch, failed)
            return None
        tools = self._runners.registry.offered(record.request.agent)
        traceparent = self._runners.traceparent(session_id, record.request, outcome.head.generation)
        request = replace(record.request, traceparent=traceparent)
        given = Record(session_id, request, outcome.head)
        return assignment_of(given, history.history(outcome.head.sequence), tools)

    async def _history(self, session_id: str, head: Head) -> HistoryReader:
        """Raises StoreUnavailable."""
        reader = HistoryReader()
        if head.sequence:
            async for part in in_parts(self._runners.store, session_id, head.offset):
                await in_turns(reader.take(part))
        return reader

    async def unserved(self, session_id: str) -> None:
        """It has waited for `DISPATCHER_QUEUE_SECONDS`."""
        await self._runners.unserved(session_id)

    def lost(self, session_id: str, generation: int, sent: bool = True) -> None:
        """That generation's Commander does not hold it: no grace. sent: it was told of it."""
        self.pace.take(partial(self._runners.lost, session_id, generation, sent))

    async def keep_known(self, offers: Iterable[str]) -> None:
        """A Commander that offers these has come, or is gone."""
        await self.upkeep.offer_soon(offers)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run it to its end; a fault in it is logged, and harms nothing else."""
        return self._runners.spawn(work)
