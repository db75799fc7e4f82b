"""What a session has to append to its log: one step is under way, and what comes meanwhile makes the next."""

import asyncio
import time
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from dispatcher.core.entries import Entry, StopEntry
from dispatcher.core.log import Append, Applied, Outcome, Refused
from dispatcher.core.session import Session
from dispatcher.live.ports import Batch, Owner
from dispatcher.store.asking import RETRY_SECONDS
from dispatcher.store.ports import StoreUnavailable
from shared.flags import Flag

logger = structlog.get_logger()


class _Submitted(NamedTuple):
    """session: the core that it was made for."""

    future: asyncio.Future[Outcome]
    session: Session
    change: Append
    batch: Batch


class Appends:
    """Of one session. backlog: packets received and not yet in the log."""

    def __init__(self, owner: Owner) -> None:
        self.backlog = 0
        self._owner = owner
        self._pending: Batch = []
        self._under_way: Batch = []
        self._flying = False
        self._free = Flag()  # not held
        self._free.set()
        self._step: _Submitted | None = None  # with the store
        self._drained = Flag()
        self._drained.set()

    @property
    def busy(self) -> bool:
        """Something is on its way to the log."""
        return self._flying or bool(self._pending)

    @property
    def unlogged(self) -> list[Entry]:
        """What is on its way to the log."""
        return [entry for entry, _ in self._under_way + self._pending]

    async def drained(self) -> None:
        """Return when nothing is on its way to the log."""
        await self._drained.wait()

    def add(self, entries: Sequence[Entry]) -> None:
        """Append these, in one step with whatever else is pending then."""
        received = time.perf_counter()
        for entry in entries:
            self._pending.append((entry, received))
        if entries[-1].sequence:
            self._count(1)
        self._drained.clear()
        stops = isinstance(entries[-1].body, StopEntry)
        if stops:
            self._withdraw()
        self._flush()
        while stops and self._step and self._step.future.done():
            self._answered(self._step.future)  # what follows from a stop waits for no turn of the loop

    def _withdraw(self) -> None:
        """A stop does not wait for the step under way, which may stand in a long queue: it is submitted with that step
        again. What the log has of it by then is skipped (rule 4).
        """
        step = self._step
        if step and self._free.is_set() and step.future.cancel():
            self._step, self._flying = None, False
            self._pending = step.batch + self._pending

    def hold(self, held: bool) -> None:
        """While held nothing is submitted, nor repeated: the epoch is about to change."""
        if held:
            self._free.clear()
        else:
            self._free.set()
            self._flush()

    def forget(self) -> None:
        """What is pending belongs to an epoch that is over; it comes again."""
        self._count(-self.backlog)
        self._pending.clear()
        self._drained.set()

    def _flush(self) -> None:
        session = self._owner.session
        if self._flying or not self._free.is_set() or not self._pending or not self._owner.owned:
            return
        self._flying = True
        batch, self._pending = self._pending, []
        self._under_way = batch
        change = Append(session.epoch, tuple(map(itemgetter(0), batch)), session.record.head.commander_id)
        future = self._owner.host.store.submit(self._owner.session_id, change)
        self._step = _Submitted(future, session, change, batch)
        future.add_done_callback(self._answered)

    def _answered(self, future: "asyncio.Future[Outcome]") -> None:
        if self._step is None or self._step.future is not future:
            return  # withdrawn, or seen to already
        _, session, change, batch = self._step
        self._step = None
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or isinstance(error, StoreUnavailable):
            self._owner.host.spawn(self._repeat(session, change, batch))
        elif error:
            self._done(error, session, batch)
        elif self._outdated(change, session, future.result()):
            self._owner.host.spawn(self._repeat(session, change, batch))
        else:
            self._done(future.result(), session, batch)

    def _outdated(self, change: Append, session: Session, outcome: Outcome) -> bool:
        """It was refused under the epoch from before this instance took the session back, or while it does: that is no
        one else's epoch, and says nothing.
        """
        superseded = isinstance(outcome, Refused) and outcome.code == "superseded"
        return superseded and (change.epoch != session.epoch or not self._free.is_set())

    async def _repeat(self, session: Session, change: Append, batch: Batch) -> None:
        """The outcome is unknown, or says nothing: the same sequences again, until the store has an answer."""
        delay = RETRY_SECONDS[0]
        while self._has(session):
            logger.warning("append_retried", session_id=self._owner.session_id, seconds=delay)
            await asyncio.sleep(delay)
            await self._free.wait()  # it may be taken back meanwhile, under the next epoch
            delay = min(delay * 2, RETRY_SECONDS[1])
            try:
                again = replace(change, epoch=session.epoch)
                outcome = await self._owner.host.store.submit(self._owner.session_id, again)
            except StoreUnavailable:
                continue
            if not self._outdated(again, session, outcome):
                self._done(outcome, session, batch)
                return
        self._end_step()
        self._go_on()

    def _done(self, outcome: Outcome | BaseException, session: Session, batch: Batch) -> None:
        if self._has(session):
            if not isinstance(outcome, Applied):
                self.forget()
            else:
                self._count(-min(self.backlog, _packets(batch)))
        self._end_step()
        self._owner.answered(outcome, session, batch)  # what follows may be a step already
        self._go_on()

    def _end_step(self) -> None:
        self._flying = False
        self._under_way = []

    def _go_on(self) -> None:
        self._flush()
        if not self._flying:
            self._drained.set()
            self._owner.maybe_settled()

    def _has(self, session: Session) -> bool:
        """This instance has the session, and that is its core."""
        return self._owner.owned and self._owner.session is session

    def _count(self, packets: int) -> None:
        self.backlog += packets
        self._owner.host.metrics.backlog_packets.inc(packets)


def _packets(batch: Batch) -> int:
    """How many it has; the entries of one share its sequence."""
    if len(batch) == 1:
        return int(batch[0][0].sequence > 0)
    return len({entry.sequence for entry, _ in batch if entry.sequence})
