"""The port behind which session logs are kept, and its specification. One test suite runs over every adapter."""

from asyncio import Future
from collections.abc import Callable, Container, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from dispatcher.core.entries import Entry
from dispatcher.core.holds import Hold
from dispatcher.core.log import Change, Head, Outcome, Record, State
from dispatcher.core.tenant_limits import TenantLimit

MAX_OFFERED = 4096  # names of agents, the latest: they are read at each request
READ_BYTES = 1024 * 1024  # of a log, at once: four of the largest entries, and as many usual ones as anybody asks for


class StoreUnavailable(Exception):
    """The log cannot be reached, or did not answer: the outcome of a change is unknown. Try again."""


class StopKept(StoreUnavailable):
    """So a stop could not be logged yet. It is tried until it can be, for as long as this process lives."""


class StoreMisconfigured(Exception):
    """The store cannot be used at all; the text is one line for the operator (exit status 2)."""


class IdempotencyKey(msgspec.Struct, frozen=True):
    """A client's key, the fingerprint of the body that it came with, and when it stops to bind (Unix seconds; compared
    with the `created_at` of the session that is to be made). A key whose session was dropped binds no more.
    """

    key: str
    fingerprint: bytes
    expires_at: float


class Created(msgspec.Struct, frozen=True):
    """`fresh`: this call made the session. Else `record` is the one that was there; `same_request`: under the same
    fingerprint, or False where the id, or the key for another body, was taken.
    """

    record: Record
    fresh: bool
    same_request: bool = True


Place: TypeAlias = tuple[float, str]  # of a session among others: when it ended, or else entered its state; its id


def place(session_id: str, head: Head) -> Place:
    return head.ended_at or head.since, session_id


class LogPart(NamedTuple):
    """Of a log: entries that follow each other. more: it may have others after them."""

    entries: list[Entry]
    more: bool


def part_of(sized: Iterable[tuple[Entry, int]], limit: int) -> LogPart:
    """What `Store.read` answers with. sized: at most `limit` entries, each with its bytes; taken as far as they are
    read.
    """
    entries: list[Entry] = []
    size = 0
    for entry, its_size in sized:
        entries.append(entry)
        size += its_size
        if size >= READ_BYTES:
            return LogPart(entries, more=True)
    return LogPart(entries, more=len(entries) == limit)


def resolve(future: Future[Any], value: Any) -> None:
    """What was asked for is there, or is the exception that it met. Who has stopped waiting is not told."""
    if future.done():
        return
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)


Feed: TypeAlias = Callable[[float], bool]


class Follower(Protocol):
    """Hears of a session's log growing. It may miss a nudge in a store with several writers, so wait with a limit.

    late: seconds from the news to the return of the last wait, which a busy event loop makes long; None: there was no
    need to wait. followers: of this log, at this instance.
    """

    late: float | None

    @property
    def followers(self) -> int: ...

    async def wait(self, seconds: float, feed: Feed | None = None) -> bool:
        """Return when the log has grown, or the session is gone, since the last call returned; or after `seconds`.

        True: what was read may be there no more, for the session was dropped, or its log rolled back.
        feed: called where the log has grown, with the seconds since the news; where it answers True, the wait goes on.
        """

    def recent(self, after: int, limit: int) -> LogPart | None:
        """What `Store.read` would answer, if that is at hand."""


class Waiting(msgspec.Struct, frozen=True):
    """A session that waits for a Commander. agent: as in `Request.wanted`. since: Unix seconds. tenant: whose it is."""

    session_id: str
    agent: str
    since: float
    tenant: str = ""


class Listener(Protocol):
    """Hears of what other instances do, on the event loop. News may be lost, so it looks again now and then."""

    def enlisted(self, waiting: Waiting) -> None:
        """A session waits."""

    def withdrawn(self, session_id: str) -> None:
        """It does not wait any more."""

    def grown(self, session_id: str) -> None:
        """Another instance changed a session that this one has or had, or for which it runs a tool."""


class Replicas(Protocol):
    """What the instances that share a store know of each other. Methods raise StoreUnavailable.

    instance: this one's name, random at each start.
    """

    instance: str

    @property
    def trouble(self) -> str:
        """Why this instance has heard no news of the others for longer than readers are to wait for them; or empty."""

    def listen(self, listener: Listener) -> None:
        """Tell that listener from now on, and no other."""

    async def renew(self) -> bool:
        """Renew this instance's lease, for LEASE_SECONDS. False: it had ended, or this is the first."""

    async def resign(self) -> None:
        """Give the lease up: others may take over at once."""

    async def alive(self) -> frozenset[str]:
        """The instances that have a lease."""

    async def orphans(self, held: Container[str]) -> list[Record]:
        """Sessions that are not complete, do not wait, and belong to an instance without a lease; or to this one,
        though they are none of the `held`: the log was rolled back. Without their prompts. What waits without being
        enlisted is enlisted on the way. May answer with none for at most SWEEP_SECONDS if it sees no lease ended.
        """

    async def waiting(self, limit: int) -> list[Waiting]:
        """Those that wait, the oldest first."""

    async def waiting_count(self) -> int:
        """How many wait."""


LEASE_SECONDS = 10.0  # renewed every RENEW_SECONDS (rule 34)
RENEW_SECONDS = 2.0
SWEEP_SECONDS = 30.0


class Store(Protocol):
    """Keeps session logs. Methods raise StoreUnavailable when the log cannot be reached.

    replicas: None where one instance alone uses the store.
    """

    replicas: Replicas | None

    async def close(self) -> None:
        """Finish what is under way and let go. May be called twice."""

    async def create(
        self, record: Record, key: IdempotencyKey | None = None, limit: TenantLimit | None = None
    ) -> Created:
        """Keep a new session, and bind the key to it, in one atomic step.

        limit: of the session's tenant. What begins under one is counted, over all instances; what began without is
        not. A session that was there is answered whatever the limit. Raises OverLimit: nothing was made.
        """

    async def metered(self, tenant: str) -> list[Record]:
        """The tenant's sessions that began under a limit of tokens and are not settled, without their prompts."""

    async def settle(self, record: Record, tokens: int, day: int) -> None:
        """Count these for that day of its tenant's (days since 1970), if it is `metered`, which it is no more then.
        Of earlier days than the one before, what was counted may be forgotten.
        """

    async def settled(self, tenant: str, day: int) -> int:
        """The tokens that were counted for that day."""

    def submit(self, session_id: str, change: Change) -> "Future[Outcome]":
        """Carry out `dispatcher.core.log.apply` in one atomic, durable step.

        Changes that one process submits for a session are applied in that order, but a stop may go ahead of what is
        queued. Those that come while a step is under way are carried out together (group commit).
        A session that is not there: Refused `unknown_session`.
        A future that fails with StoreUnavailable, or is cancelled, says nothing of whether the change was applied.
        """

    async def load(self, session_id: str) -> Record | None: ...

    async def brief(self, session_id: str) -> Record | None:
        """As `load`, without its prompt, which may be a thousand times the rest."""

    async def read(self, session_id: str, after: int, limit: int) -> LogPart:
        """At most `limit` entries with an offset above `after`, in order, the last one that with which they have
        READ_BYTES; and whether there may be more by now. None of an unknown session.
        """

    def follow(self, session_id: str) -> AbstractContextManager[Follower]: ...

    async def select(self, states: Iterable[State], limit: int) -> list[Record]:
        """Sessions in one of `states`, those that entered it first (`head.since`) first, without their prompts."""

    async def page(self, states: Iterable[State], limit: int, before: Place | None = None) -> list[Record]:
        """Sessions in one of `states`, the newest first by their places; only those that come behind that one. Without
        their prompts.
        """

    async def delete(self, session_id: str) -> bool:
        """Drop an ended session whole. False: it is unknown or live."""

    async def expire(self, ended_before: float) -> int:
        """Drop the sessions that ended before that time (Unix seconds), never a live one; how many. Keys that stopped
        to bind, offers that were made and holds that ended before it go too, and offers that MAX_OFFERED others came
        after.
        """

    async def offer(self, instance: str, agents: Iterable[str], now: float) -> None:
        """Keep that this instance's Commanders offer these agents now (Unix seconds)."""

    async def offered(self, since: float) -> list[str]:
        """The agents that some instance offered at or after that time, sorted; of more than MAX_OFFERED the latest."""

    async def hold(self, hold: Hold) -> None:
        """Keep it. From then on every instance is told of it. Repeated: it is kept already."""

    async def holds(self, now: float) -> list[Hold]:
        """Those that end after that time (Unix seconds), the first to end first."""

    async def lift(self, hold_id: str) -> bool:
        """Drop it. False: it is unknown."""
