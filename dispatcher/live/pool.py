"""The Commanders that are connected here, their slots, and the sessions that wait for one."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from dispatcher.core.log import CommanderName, Record
from dispatcher.live.outliers import Outliers
from dispatcher.metrics import Metrics
from dispatcher.store.ports import Waiting
from shared.records import FEATURES, Assignment, Status

logger = structlog.get_logger()

MAX_SLOTS = 1024  # that a Commander is believed to have; more would draw every session to it

MAX_ASSIGNING = 4  # sessions on their way to one Commander, each with up to a message's bytes

# A list that the store gave may be that old; and that long another instance's sessions are left to it.
SETTLED_SECONDS = 2.0

RETRY_AFTER_SECONDS = 5

MAX_TURNS = 10_000  # tenants of which it is known when they had their last turn


class QueueFull(Exception):
    """More sessions wait than `DISPATCHER_QUEUE_LIMIT`, or more of prompts than `DISPATCHER_QUEUE_BYTES` allows, or
    more of the tenant's than it leaves to others. retry_after: seconds.
    """

    def __init__(self) -> None:
        super().__init__("too many sessions wait for a Commander")
        self.retry_after = RETRY_AFTER_SECONDS


class PoolStream(Protocol):
    """A Commander's stream, as far as the pool needs it."""

    @property
    def full(self) -> bool:
        """Much waits to be read: nothing large is to be added."""

    def assign(self, assignment: Assignment) -> None:
        """Queue it for the one writer."""


class Member:
    """A Commander's stream that takes assignments. Its slots are counted by its own status and what was sent since."""

    def __init__(self, stream: PoolStream, status: Status, credential: str = "") -> None:
        """credential: as in its name, which its first status gives it for good."""
        self.stream, self.status = stream, status
        self.name = CommanderName(status.commander_id, credential)
        self.sent = 0  # assignments, on this stream
        self.reserved = 0  # slots for assignments that are on their way through the log
        self.draining = False
        self.gone = False
        self._unopened: list[tuple[int, str, int]] = []  # (its number on this stream, session, generation)

    @property
    def free(self) -> int:
        """Slots that are really free."""
        if self.draining or self.gone:
            return 0
        under_way = max(0, self.sent - self.status.assignments_received)
        free = min(self.status.free_slots, MAX_SLOTS - len(self.status.running))
        return max(0, free - under_way - self.reserved)

    @property
    def able(self) -> bool:
        """One may be sent now."""
        return self.free > 0 and self.reserved < MAX_ASSIGNING and not self.stream.full

    def assign(self, assignment: Assignment) -> None:
        self.sent += 1
        self._unopened.append((self.sent, assignment.session_id, assignment.generation))
        self.stream.assign(assignment)

    def awaits(self, session_id: str, generation: int) -> bool:
        """That assignment was sent on this stream, and was not opened there yet."""
        return any(item[1:] == (session_id, generation) for item in self._unopened)

    def opened(self, session_id: str) -> None:
        self._unopened = [item for item in self._unopened if item[1] != session_id]

    def dropped(self, held: set[tuple[str, int]]) -> list[tuple[str, int]]:
        """(session, generation) of assignments that the Commander has received, never opened and does not hold."""
        received = self.status.assignments_received
        lost = [item for item in self._unopened if item[0] <= received and item[1:] not in held]
        if lost:
            gone = set(lost)
            self._unopened = [item for item in self._unopened if item not in gone]
        return [(session_id, generation) for _, session_id, generation in lost]


class ConnectedCommander(msgspec.Struct, frozen=True):
    """For operators. running: sessions, as it says. free: slots. It gets none where an operator holds it, where it is
    ejected, as its sessions have failed, and where it is draining, as it leaves.
    """

    commander_id: str
    credential: str
    agents: tuple[str, ...]
    running: int
    free: int
    held: bool
    ejected: bool
    draining: bool


def offers_of(status: Status) -> list[str]:
    """What is kept in the store of a Commander's offer: each agent's name; and it, a NUL and what that honours."""
    honoured = ((agent, ",".join(sorted(status.features(agent).intersection(FEATURES)))) for agent in status.agents)
    return [offer for agent, features in honoured for offer in (agent, f"{agent}\0{features}")]


class Assigner(Protocol):
    """What the pool asks of the sessions."""

    async def assign(
        self, session_id: str, commander: CommanderName, continues: Callable[[str], bool]
    ) -> Assignment | None:
        """Give the session to that Commander in the log. None: it does not wait any more."""

    async def unserved(self, session_id: str) -> None:
        """Its time in the queue is over."""

    def lost(self, session_id: str, generation: int, sent: bool = True) -> None:
        """That generation's Commander does not hold it. sent: it was told of it."""

    async def keep_known(self, offers: Iterable[str]) -> None:
        """A Commander that offers these has come, or is gone: they stay known for a while."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> object: ...


class _Place(NamedTuple):
    """A waiting session's. own: it was enlisted here, not by another instance. at: when, in the loop's time. lost_by:
    the Commander that had it last; None: nobody, or it is not known here. prompt_bytes: of one of our own, else 0.
    queue: where it waits.
    """

    own: bool
    at: float
    timer: asyncio.TimerHandle
    lost_by: CommanderName | None
    prompt_bytes: int
    queue: "_Queue"


class _Queue(NamedTuple):
    """One of those that a tenant's sessions wait in: for each that is wanted one."""

    wanted: str
    tenant: str


class Pool:
    """Gives waiting sessions to free slots, where most slots are free and least has failed. Tenants take turns: who had
    none for longest is next, so that no flood of one keeps another waiting; of a tenant's the oldest goes first.
    """

    def __init__(self, assigner: Assigner, metrics: Metrics, queue_seconds: float) -> None:
        self.members: set[Member] = set()
        self.draining = False
        self._outliers = Outliers()
        # Commanders that get none, as an operator wants it: (id, credential); None: whatever that is
        self._held: frozenset[tuple[str, str | None]] = frozenset()
        self._assigner, self._metrics, self._queue_seconds = assigner, metrics, queue_seconds
        self._waiting: dict[_Queue, dict[str, float]] = {}  # session → waiting since (Unix seconds), oldest first
        self._turns: dict[str, int] = {}  # tenant → number of its last turn, the longest ago first
        self._turn = 0
        self._places: dict[str, _Place] = {}  # by session
        self._own = 0  # of them that are our own
        self.prompt_bytes = 0  # of the sessions that were enlisted here
        self.in_store: int | None = None  # sessions that wait, if several instances use the store

    # ---- the queue

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def waiting_of(self, tenant: str) -> tuple[int, int]:
        """How many sessions of a tenant wait, and the bytes of their prompts, as `prompt_bytes` counts them."""
        names = [session_id for queue, each in self._waiting.items() if queue.tenant == tenant for session_id in each]
        return len(names), sum(self._places[session_id].prompt_bytes for session_id in names)

    def waits(self, session_id: str) -> bool:
        """It has a place in the queue."""
        return session_id in self._places

    def enlist(self, record: Record) -> None:
        """The session waits for a slot. Repeated: it does already."""
        request = record.request
        waiting = Waiting(record.session_id, request.wanted, record.head.since, request.tenant)
        self._enlist(waiting, own=True, lost_by=record.head.commander, prompt_bytes=request.prompt_bytes)

    def heard(self, waiting: Waiting) -> None:
        """It waits, as another instance says."""
        self._enlist(waiting, own=False)

    def agree(self, listed: Sequence[Waiting], limit: int) -> None:
        """With the store's list, of `limit` at the most: news of other instances may have been lost."""
        for waiting in listed:
            self._place(waiting, own=False)
        if len(listed) < limit:
            settled = asyncio.get_running_loop().time() - SETTLED_SECONDS
            names = {waiting.session_id for waiting in listed}
            for session_id in [sid for sid, place in self._places.items() if place.at < settled and sid not in names]:
                self._displace(session_id)
        self._match()

    def _enlist(self, waiting: Waiting, own: bool, lost_by: CommanderName | None = None, prompt_bytes: int = 0) -> None:
        if self._place(waiting, own, lost_by, prompt_bytes):
            self._match()

    def _place(self, waiting: Waiting, own: bool, lost_by: CommanderName | None = None, prompt_bytes: int = 0) -> bool:
        """Give it a place. False: it has one."""
        session_id, loop = waiting.session_id, asyncio.get_running_loop()
        if session_id in self._places:
            return False
        queue = _Queue(waiting.agent, waiting.tenant)
        names = self._waiting.setdefault(queue, {})
        late = bool(names) and next(reversed(names.values())) > waiting.since
        names[session_id] = waiting.since
        if late:
            self._waiting[queue] = dict(sorted(names.items(), key=lambda item: item[1]))
        delay = max(0.0, waiting.since + self._queue_seconds - time.time()) + (0 if own else SETTLED_SECONDS)
        timer = loop.call_later(delay, self._overdue, session_id)
        self._places[session_id] = _Place(own, loop.time(), timer, lost_by, prompt_bytes, queue)
        self.prompt_bytes += prompt_bytes
        self._own += own
        return True

    def withdraw(self, session_id: str) -> None:
        """It does not wait any more."""
        self._displace(session_id)
        self._count()

    def _displace(self, session_id: str) -> None:
        if place := self._places.pop(session_id, None):
            place.timer.cancel()
            self.prompt_bytes -= place.prompt_bytes
            self._own -= place.own
            names = self._waiting[place.queue]
            del names[session_id]
            if not names:
                del self._waiting[place.queue]

    def _overdue(self, session_id: str) -> None:
        self.withdraw(session_id)
        self._assigner.spawn(self._assigner.unserved(session_id))

    # ---- members

    def agents(self) -> set[str]:
        """The names that Commanders connected here offer."""
        return {agent for member in self.members for agent in member.status.agents}

    def offers(self) -> set[str]:
        """Those names, and what the agents honour (`offers_of`)."""
        return {offer for member in self.members for offer in offers_of(member.status)}

    def free(self, wanted: str) -> int:
        return sum(member.free for member in self._offering(wanted))

    def join(self, member: Member) -> None:
        self.members.add(member)
        self._assigner.spawn(self._assigner.keep_known(offers_of(member.status)))
        self._match()

    def leave(self, member: Member) -> None:
        member.gone = True
        self.members.discard(member)
        if member.name not in self._names():
            self._outliers.forget(member.name)
        self._assigner.spawn(self._assigner.keep_known(offers_of(member.status)))
        self._count()

    def drain(self, member: Member) -> None:
        """No assignment follows on its stream."""
        member.draining = True
        self._count()

    def report(self, member: Member, status: Status) -> None:
        """A Commander's heartbeat, or news."""
        member.status = status
        held = {(running.session_id, running.generation) for running in status.running}
        for session_id, generation in member.dropped(held):
            self._assigner.lost(session_id, generation)
        self._match()

    def ended(self, commander: CommanderName, well: bool) -> None:
        """A session of that Commander has ended well; or it has failed, or was lost by it."""
        names = self._names()
        if commander not in names:
            return
        if well:
            self._outliers.served(commander)
        elif seconds := self._outliers.failed(commander, names - {commander}):
            logger.warning("commander_ejected", **commander._asdict(), seconds=seconds)
            self._metrics.ejections.inc()
            asyncio.get_running_loop().call_later(seconds, self._back, commander)
            self._count()

    def _back(self, commander: CommanderName) -> None:
        logger.info("commander_back", **commander._asdict())
        self._outliers.back(commander)
        if commander not in self._names():
            self._outliers.forget(commander)
        self._match()

    def _names(self) -> set[CommanderName]:
        return {member.name for member in self.members}

    def hold(self, held: Iterable[tuple[str, str | None]]) -> None:
        """These get no session until they are not among those that are held any more: (id, credential), which is None
        where it may be any.
        """
        before, self._held = self._held, frozenset(held)
        if self._held != before:
            self._match()

    def roomy(self) -> None:
        """A stream that was full is read again."""
        self._match()

    # ---- assignment

    def _match(self) -> None:
        while not self.draining and (found := self._next()):
            session_id, member = found
            self._take_turn(self._places[session_id].queue.tenant)
            self.withdraw(session_id)
            member.reserved += 1
            self._assigner.spawn(self._assign(session_id, member))
        self._count()

    def _next(self) -> tuple[str, Member] | None:
        """Of the tenant that had no turn for longest, of those that a free slot can serve, the session that waits
        longest.
        """
        best: tuple[tuple[int, float], str, Member] | None = None
        ables: dict[str, list[Member]] = {}
        for queue, names in self._waiting.items():
            wanted = queue.wanted
            if (able := ables.get(wanted)) is None:
                able = ables[wanted] = [member for member in self._offering(wanted) if member.able]
            for session_id, since in names.items() if able else ():
                place = self._turns.get(queue.tenant, 0), since
                if best and place >= best[0]:
                    break
                if fit := self._fit(able, wanted, self._places[session_id].lost_by):
                    best = (place, session_id, max(fit, key=self._share))
                    break
        return best[1:] if best else None

    def _take_turn(self, tenant: str) -> None:
        self._turn += 1
        self._turns.pop(tenant, None)
        self._turns[tenant] = self._turn
        if len(self._turns) > MAX_TURNS:
            del self._turns[next(iter(self._turns))]

    def _offering(self, wanted: str) -> list[Member]:
        """Those that offer the agent, with all that it has to honour, and are neither ejected nor held."""
        agent, *needs = wanted.split("\0")
        return [
            member
            for member in self.members
            if agent in member.status.agents
            and member.status.features(agent).issuperset(needs)
            and not self._on_hold(member.name)
            and not self._outliers.ejected(member.name)
        ]

    def connected(self) -> list[ConnectedCommander]:
        """One for each stream, by name."""
        return [
            ConnectedCommander(
                *member.name,
                member.status.agents,
                len(member.status.running),
                member.free,
                held=self._on_hold(member.name),
                ejected=self._outliers.ejected(member.name),
                draining=member.draining,
            )
            for member in sorted(self.members, key=lambda member: member.name)
        ]

    def _on_hold(self, commander: CommanderName) -> bool:
        return bool(self._held) and (commander in self._held or (commander.commander_id, None) in self._held)

    def _fit(self, able: list[Member], wanted: str, lost_by: CommanderName | None) -> list[Member]:
        """Those of the able that may have the session: not who has just lost it, while another is there."""
        fit = [member for member in able if member.name != lost_by]
        if fit or any(m.name != lost_by and not m.draining for m in self._offering(wanted)):
            return fit
        return able

    def _share(self, member: Member) -> float:
        """The more have failed in a row, the less of its free slots count."""
        return member.free / (1 + self._outliers.failures(member.name))

    async def _assign(self, session_id: str, member: Member) -> None:
        continues = member.status.continues.__contains__
        try:
            assignment = await self._assigner.assign(session_id, member.name, continues)
        finally:
            member.reserved -= 1
        if assignment and (member.gone or member.draining):
            self._assigner.lost(session_id, assignment.generation, sent=False)
        elif assignment:
            member.assign(assignment)
        self._match()

    def _count(self) -> None:
        names = self._names()
        ejected = set(filter(self._outliers.ejected, names))
        none = ejected.union(filter(self._on_hold, names))
        free = sum(member.free for member in self.members if member.name not in none)
        self._metrics.pool(len(names), free, self._own, len(ejected))
        self._metrics.waiting_sessions.set(self.waiting if self.in_store is None else self.in_store)
