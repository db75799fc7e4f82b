"""Session logs in one SQLite file (WAL): for one Dispatcher on one machine; survives `kill -9`.

One thread writes, another reads, a third checkpoints; the event loop never waits for the disk. What many ask for at
once is read once. One batch of changes is under way at a time, and what is submitted meanwhile makes the next (group
commit), of each session in its turn. Stops have a lane of their own: they wait for the transaction under way, and not
for a flood's megabytes that are queued. Large prompts have one too, so that nothing else waits for them.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, ParamSpec, TypeVar

import structlog

from dispatcher.core.entries import StopEntry
from dispatcher.core.holds import Hold
from dispatcher.core.log import Append, Applied, Change, Outcome, Record, Settle, State
from dispatcher.core.tenant_limits import TenantLimit
from dispatcher.store.followers import Hub
from dispatcher.store.ports import (
    Created,
    Follower,
    IdempotencyKey,
    LogPart,
    Place,
    Replicas,
    StoreUnavailable,
    resolve,
)
from dispatcher.store.sqlite.checkpoints import Checkpointer
from dispatcher.store.sqlite.file import lock
from dispatcher.store.sqlite.reader import Reader
from dispatcher.store.sqlite.reads import Reads
from dispatcher.store.sqlite.writer import Create, Job, JobResult, Operation, Writer
from dispatcher.store.turns import Turns
from shared import forks

EXPIRE_SESSIONS = 50  # dropped in one transaction, so that appends need not wait for a sweep
# Of a transaction. For 64 appends of some words one costs a third less CPU than four, and beside a busy loop half the
# wait.
MAX_JOBS = 64
# Of the one after a transaction that added more than LARGE_BYTES. With more of floods' appends, each costs no less, and
# all that follows from their answers comes at once, so that the event loop is late by as much: with 64 floods a stop
# took 37 ms instead of 22.
FEW_JOBS = 16
MAX_PROMPT_BYTES = 1024 * 1024  # of a transaction: with these it is full, so that no append waits for more than a few
# A prompt beyond that has to wait where it would keep others' appends from the disk.
LARGE_BYTES = 64 * 1024

P = ParamSpec("P")
T = TypeVar("T")

logger = structlog.get_logger()


class Queued(NamedTuple):
    """prompt_bytes: of a session that is to be made."""

    answer: asyncio.Future[Any]
    job: Job
    prompt_bytes: int


class _Lane:
    """Jobs, of each session in order. under_way: a batch of them is with the writer, or about to be handed over, or
    stalled, which it is by the checkpoint until its end. held: the next one shall be. most: jobs in the next one.
    """

    __slots__ = ("held", "most", "queued", "stalled", "under_way")

    def __init__(self) -> None:
        self.queued: Turns[Queued] = Turns()
        self.most = MAX_JOBS
        self.under_way = self.held = self.stalled = False

    def take(self) -> list[Queued]:
        """The next batch, without what was cancelled meanwhile."""
        batch: list[Queued] = []
        size = 0
        while self.queued and len(batch) < self.most and size < MAX_PROMPT_BYTES:
            if not (queued := self.queued.popleft()).answer.cancelled():
                batch.append(queued)
                size += queued.prompt_bytes
        return batch


class SqliteStore:
    """`dispatcher.store.ports.Store`, from `open` on. The writer, the reader and the checkpointer are each used on a
    thread of their own. resources: closes what was opened.
    """

    replicas: Replicas | None = None

    def __init__(
        self,
        writer: Writer,
        writing: ThreadPoolExecutor,
        reader: Reader,
        reading: ThreadPoolExecutor,
        checkpointer: Checkpointer,
        checkpointing: ThreadPoolExecutor,
        observe: Callable[[float, int], None] | None,
        resources: AsyncExitStack,
    ) -> None:
        self._writer, self._writing = writer, writing
        self._reader, self._reads = reader, Reads(reading)
        self._checkpointer, self._checkpointing = checkpointer, checkpointing
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._hub = Hub()
        self._jobs, self._stops, self._prompts = _Lane(), _Lane(), _Lane()
        self._checkpoint: asyncio.Task[None] | None = None
        self._remains = False  # of what was deleted, in the WAL
        self._open = True
        self._closing = asyncio.Lock()
        self._resources = resources

    @classmethod
    async def open(
        cls, path: Path, full: bool = False, observe: Callable[[float, int], None] | None = None
    ) -> "SqliteStore":
        """full: each commit is synced to the disk (`synchronous=FULL`), so that it survives a power cut too.
        observe: called with the seconds that a transaction took, hand-over to the writer included, and the entries in
        it. Raises StoreMisconfigured.
        """
        async with AsyncExitStack() as stack:

            def thread(name: str) -> ThreadPoolExecutor:
                made = ThreadPoolExecutor(1, f"store-{name}")
                stack.callback(made.shutdown, wait=False)
                return made

            writing, reading, checkpointing = thread("writer"), thread("reader"), thread("checkpointer")
            path = await _in(writing, path.absolute)
            locked = await _in(writing, lock, path)
            stack.callback(os.close, locked)
            stack.enter_context(forks.withheld(descriptors=(locked,)))
            writer = await _in(writing, Writer, path, full)
            stack.push_async_callback(_in, writing, writer.close)
            reader = await _in(reading, Reader, path)
            stack.push_async_callback(_in, reading, reader.close)
            checkpointer = await _in(checkpointing, Checkpointer, path)
            stack.push_async_callback(_in, checkpointing, checkpointer.close)
            return cls(writer, writing, reader, reading, checkpointer, checkpointing, observe, stack.pop_all())

    async def close(self) -> None:
        async with self._closing:
            if self._open:
                self._open = False
                self._reads.close()
                queued = True
                while queued:
                    last = self._put("", lambda _: None)
                    await asyncio.wait([last, *([self._checkpoint] if self._checkpoint else [])])
                    queued = bool(self._jobs.queued or self._prompts.queued)  # what has its turn after it
            await self._resources.aclose()

    # ---- writing

    def submit(self, session_id: str, change: Change) -> asyncio.Future[Outcome]:
        return self._enqueue(session_id, (session_id, change))

    async def create(
        self, record: Record, key: IdempotencyKey | None = None, limit: TenantLimit | None = None
    ) -> Created:
        prompt_bytes = record.request.prompt_bytes
        created: Created = await self._enqueue(record.session_id, Create(record, key, limit), prompt_bytes)
        if created.fresh:
            self._checkpointer.wrote(prompt_bytes)
        return created

    async def metered(self, tenant: str) -> list[Record]:
        return await self._reads.ask(self._reader.metered, tenant)

    async def settle(self, record: Record, tokens: int, day: int) -> None:
        await self._enqueue(record.session_id, lambda writer: writer.settle(record, tokens, day))

    async def settled(self, tenant: str, day: int) -> int:
        return await self._reads.ask(self._reader.settled, tenant, day)

    async def delete(self, session_id: str) -> bool:
        operation: Operation = lambda writer: writer.delete(session_id)  # noqa: E731
        deleted: bool = await self._enqueue(session_id, operation)
        if deleted:
            self._hub.gone(session_id)
            await self._erase()
        return deleted

    async def expire(self, ended_before: float) -> int:
        total = 0
        while True:
            dropped: list[str] = await self._enqueue("", lambda writer: writer.expire(ended_before, EXPIRE_SESSIONS))
            for session_id in dropped:
                self._hub.gone(session_id)
            total += len(dropped)
            if len(dropped) < EXPIRE_SESSIONS:
                if total or self._remains:
                    await self._erase()
                return total

    async def _erase(self) -> None:
        """What was deleted leaves every file; if that cannot be now, with the next that is deleted or expires."""
        self._remains = True
        try:
            await _in(self._writing, self._writer.rewrite)
            self._remains = not await _in(self._checkpointing, self._checkpointer.erase)
        except StoreUnavailable as error:
            logger.warning("checkpoint_failed", exc_info=error)

    async def offer(self, instance: str, agents: Iterable[str], now: float) -> None:
        names = list(agents)
        await self._enqueue("", lambda writer: writer.offer(names, now))

    async def hold(self, hold: Hold) -> None:
        await self._enqueue("", lambda writer: writer.hold(hold))

    async def lift(self, hold_id: str) -> bool:
        lifted: bool = await self._enqueue("", lambda writer: writer.lift(hold_id))
        return lifted

    def _enqueue(self, turn: str, job: Job, prompt_bytes: int = 0) -> asyncio.Future[Any]:
        """turn: whose it is, a session's or, empty, nobody's."""
        if self._open:
            return self._put(turn, job, prompt_bytes)
        refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        refused.set_exception(StoreUnavailable("the store is closed"))
        return refused

    def _put(self, turn: str, job: Job, prompt_bytes: int = 0) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        lane = self._stops if _goes_ahead(job) else self._prompts if prompt_bytes > LARGE_BYTES else self._jobs
        lane.queued.append(turn, Queued(future, job, prompt_bytes))
        if not lane.under_way:
            lane.under_way = True
            if lane is self._stops:
                self._hand_over(lane)
            else:  # not at once: what else is submitted in this turn of the loop goes with it
                self._loop.call_soon(self._hand_over, lane)
        return future

    def _hand_over(self, lane: _Lane) -> None:
        if self._checkpoint and lane is not self._stops and (lane.held or self._checkpointer.behind):
            lane.stalled = True
            return
        batch = lane.take()
        lane.under_way = bool(batch)
        if batch:
            self._writing.submit(self._carry_out, lane, batch, perf_counter())

    def _carry_out(self, lane: _Lane, batch: list[Queued], started: float) -> None:
        """On the writer thread."""
        answers: list[JobResult]
        try:
            answers = self._writer.carry_out([queued.job for queued in batch])
        except StoreUnavailable as error:
            answers = [JobResult(StoreUnavailable(str(error))) for _ in batch]
        self._loop.call_soon_threadsafe(self._resolve, lane, batch, answers, perf_counter() - started)

    def _resolve(self, lane: _Lane, batch: list[Queued], answers: list[JobResult], seconds: float) -> None:
        added = size = 0
        for (future, job, _), answer in zip(batch, answers, strict=True):
            value = answer.value
            resolve(future, value)
            if isinstance(value, Applied) and value.entries and isinstance(job, tuple):
                added += len(value.entries)
                size += sum(answer.sizes)
                # Last: a stop is on its way to its Commander before its readers are woken.
                self._hub.publish(job[0], value.entries, answer.sizes)
        if added and self._observe:
            self._observe(seconds, added)
        lane.most = FEW_JOBS if size > LARGE_BYTES else MAX_JOBS
        # After the callbacks of these futures, so that what they submit goes with the next batch.
        self._loop.call_soon(self._hand_over, lane)
        self._checkpointer.wrote(size)
        if self._checkpointer.due and self._open and self._checkpoint is None:
            self._checkpoint = self._loop.create_task(self._checkpointed())

    async def _checkpointed(self) -> None:
        self._checkpointer.begin()
        try:
            for lane in (self._prompts, self._jobs):  # without large prompts most can be moved beside appends
                if await _in(self._checkpointing, self._checkpointer.run):
                    break
                lane.held = True
                await _in(self._writing, lambda: None)  # the transaction under way is done
            else:
                await _in(self._checkpointing, self._checkpointer.run)
        except StoreUnavailable as error:  # the log is whole without; appends say for themselves what is wrong
            logger.warning("checkpoint_failed", exc_info=error)
        finally:
            self._checkpoint = None
            for lane in (self._jobs, self._prompts):
                lane.held = False
                if lane.stalled:
                    lane.stalled = False
                    self._hand_over(lane)

    # ---- reading

    async def load(self, session_id: str) -> Record | None:
        return await self._reads.ask(self._reader.load, session_id, turn=session_id)

    async def brief(self, session_id: str) -> Record | None:
        return await self._reads.ask(self._reader.brief, session_id, turn=session_id)

    async def read(self, session_id: str, after: int, limit: int) -> LogPart:
        self._check_open()
        recent = self._hub.recent(session_id, after, limit)
        if recent is not None:
            return recent
        return await self._reads.ask(self._reader.entries, session_id, after, limit, turn=session_id)

    def follow(self, session_id: str) -> AbstractContextManager[Follower]:
        return self._hub.follow(session_id)

    async def select(self, states: Iterable[State], limit: int) -> list[Record]:
        return await self._reads.ask(self._reader.select, tuple(states), limit)

    async def page(self, states: Iterable[State], limit: int, before: Place | None = None) -> list[Record]:
        return await self._reads.ask(self._reader.page, tuple(states), limit, before)

    async def offered(self, since: float) -> list[str]:
        return await self._reads.ask(self._reader.offered, since)

    async def holds(self, now: float) -> list[Hold]:
        return await self._reads.ask(self._reader.holds, now)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailable("the store is closed")


async def _in(thread: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, partial(function, *args, **named))


def _goes_ahead(job: Job) -> bool:
    """A stop does, by itself or with the packet that a rule has stopped. Nothing is queued that it has to come after:
    of its session one append is under way at a time. A result does not: a session may have many.
    """
    match job:
        case (_, Settle(entry)):
            return isinstance(entry.body, StopEntry)
        case (_, Append(entries=entries)):
            return any(isinstance(entry.body, StopEntry) for entry in entries)
    return False
