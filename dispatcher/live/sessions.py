"""The sessions of this instance: made, given to Commanders, opened, stopped, and found again after a restart."""

import asyncio
import time
from collections import ChainMap, Counter
from collections.abc import Callable, Container, Coroutine, Iterable
from typing import Any, Literal, TypeVar

import msgspec
import structlog

from dispatcher.core.entries import Assigned, Entry, Failed, StopEntry
from dispatcher.core.history import assignment_of
from dispatcher.core.limits import Limits
from dispatcher.core.log import LIVE, Acquire, Append, Applied, Assign, Head, Record, Request, Settle, TakeOver
from dispatcher.core.session import Session
from dispatcher.live import ids
from dispatcher.live.neighbours import Neighbours
from dispatcher.live.pool import Pool, QueueFull
from dispatcher.live.ports import Link
from dispatcher.live.runner import Runner
from dispatcher.live.tasks import Tasks
from dispatcher.live.upkeep import Upkeep
from dispatcher.metrics import Metrics
from dispatcher.policies.gate import Gate
from dispatcher.policies.outcomes import Violation
from dispatcher.policies.rules import RuleSet
from dispatcher.policing.judges import Judges
from dispatcher.policing.prompts import Prompt
from dispatcher.policing.timed import PolicyClock
from dispatcher.settings import DispatcherSettings
from dispatcher.store.asking import read_all, until_known
from dispatcher.store.ports import Created, IdempotencyKey, Store, StoreUnavailable
from dispatcher.tools.registry import Registry
from shared.records import Assignment, Open

log = structlog.get_logger()

T = TypeVar("T")

ALL = 1_000_000  # sessions among which one instance finds, at its start, those to take up


class Sessions:
    """What both edges work with. `instance`: random at each start; tool calls name it."""

    def __init__(
        self, store: Store, rules: RuleSet, registry: Registry, metrics: Metrics, settings: DispatcherSettings
    ) -> None:
        self.store, self.registry, self.metrics, self.settings = store, registry, metrics, settings
        self._limits = msgspec.convert(settings, Limits, from_attributes=True)  # of the same names
        self.instance = store.replicas.instance if store.replicas else ids.instance()
        self.log_thoughts = settings.log_thoughts
        self.closing = asyncio.Event()
        self.pool = Pool(self, metrics, settings.queue_seconds)
        self.draining = False
        self.judges = Judges(metrics)
        self.policy_status: Callable[[], dict[str, object]] = dict  # for operators
        self._runners: dict[str, Runner] = {}
        self.use(rules)
        metrics.running.set_function(
            lambda: sum(runner.owned and runner.session.head.state == "running" for runner in self._runners.values())
        )
        self._creating: Counter[str] = Counter()  # by agent: on their way into the log
        self._bringing: Counter[str] = Counter()  # sessions of older peers, on their way into the log
        self._tasks = Tasks(lambda error: log.error("task_failed", exc_info=error))
        self.upkeep = Upkeep(store, self.instance, self.pool.agents, settings.retention_seconds)
        self.neighbours = Neighbours(store.replicas, self, self.pool, settings) if store.replicas else None

    def use(self, rules: RuleSet) -> None:
        """The rules of sessions that are rebuilt from now on; by `DISPATCHER_POLICY_RELOAD_RUNNING` of all sessions."""
        self.metrics.know(policies=(policy.name for policy in rules.policies))
        self._rules, self._clock = rules, PolicyClock(rules, self.metrics)
        if self.settings.policy_reload_running:
            for runner in self._runners.values():
                self.spawn(runner.take_rules(self._gate))

    # ---- users and operators

    async def create(self, request: Request, key: IdempotencyKey | None = None) -> Created:
        """A new session, or the one that the key was bound to. Raises PromptRefused, PromptUnread, QueueFull,
        StoreUnavailable.
        """
        prompt = Prompt(request, self._rules, self._clock, self.judges, self.metrics)
        await prompt.read()
        slots = self.pool.free(request.agent) - self._creating[request.agent]
        if slots <= 0:
            replicas = self.store.replicas
            waiting = await replicas.waiting_count() if replicas else self.pool.waiting
            if waiting - slots >= self.settings.queue_limit:
                raise QueueFull
        record = Record(ids.session_id(), request, Head(since=request.created_at))
        self._creating[request.agent] += 1
        try:
            created = await self.store.create(record, key)
        except StoreUnavailable:
            self.spawn(self._find_again(record.session_id))
            raise
        finally:
            self._creating[request.agent] -= 1
            self._creating += Counter()  # forget the agents with none
        if created.fresh:
            self.pool.enlist(created.record)
            if prompt.observed:
                self.spawn(prompt.observe(created.record.session_id, self._stop_by_policy))
        return created

    async def stop(
        self, session_id: str, reason: str, author: Literal["user", "operator", "dispatcher"], detail: str = ""
    ) -> Record | None:
        """Stop a session for good; repeated, it is answered like the first time. None: unknown.

        Raises StoreUnavailable: try again. reason: one of `shared.records.STOP_REASONS`.
        """
        return await self._stop(session_id, StopEntry(ids.stop_id(), reason, author, detail=detail))

    async def _stop_by_policy(self, session_id: str, violation: Violation) -> None:
        stop = StopEntry(ids.stop_id(), violation.reason, "policy", violation.policy, violation.detail)
        await until_known(lambda: self._stop(session_id, stop))

    async def _stop(self, session_id: str, stop: StopEntry) -> Record | None:
        if runner := self._runners.get(session_id):
            runner.facts.stop_detected()
        try:
            outcome = await self.store.submit(session_id, Settle(Entry(stop, time.time())))
        except StoreUnavailable:
            self.spawn(self._find_again(session_id))
            raise
        if not isinstance(outcome, Applied):
            return None
        self.pool.withdraw(session_id)
        if runner := self._runners.get(session_id):
            runner.observe(outcome)
        elif outcome.entries and outcome.head.over:  # it waited; else whoever has it counts it
            self.metrics.stopped(stop.reason)
            self.metrics.session_over("stopped")
            log.info("session_stopped", session_id=session_id, reason=stop.reason, author=stop.author)
        return await self.store.load(session_id)

    async def agents(self) -> list[str]:
        """The names that are offered now, or were within the queue time. Raises StoreUnavailable."""
        offered = await self.store.offered(time.time() - self.settings.queue_seconds)
        return sorted(self.pool.agents().union(offered))

    def trouble(self) -> list[str]:
        """Why this instance cannot serve now; empty: it is ready. For operators."""
        reasons = [self.upkeep.trouble] if self.upkeep.trouble else []
        return [*reasons, "draining"] if self.draining else reasons

    # ---- Commanders

    async def open(self, link: Link, session_id: str, opening: Open) -> str | None:
        """A Commander opens the session on a stream: Welcome is sent, or the `closed` code is returned.

        Also when the stream is gone meanwhile: what the log gave to it must not be left to nobody.
        """
        return await asyncio.shield(self.spawn(self._open(link, session_id, opening)))

    async def _open(self, link: Link, session_id: str, opening: Open) -> str | None:
        now = time.time()
        acquire = Acquire(opening.commander_id, opening.generation, self.instance, now)
        try:
            if opening.generation == 0 and not await self.store.load(session_id):
                await self._bring(session_id, opening.commander_id, "commander", now)
            outcome = await self.store.submit(session_id, acquire)
            if not isinstance(outcome, Applied):
                return outcome.code
            self.pool.withdraw(session_id)
            if not await self._take_up(session_id, link, opening.awaiting_call_ids, outcome.head.epoch):
                return "superseded"
        except StoreUnavailable:
            self.spawn(self._find_again(session_id))
            return "unavailable"
        return None

    async def open_older(self, link: Link, session_id: str) -> Runner | str:
        """The session of a peer of the published contract, which brings no `open`: its runner, or why not."""
        return await asyncio.shield(self.spawn(self._open_older(link, session_id)))

    async def _open_older(self, link: Link, session_id: str) -> Runner | str:
        commander_id, now = ids.commander_id(), time.time()
        self._bringing[session_id] += 1  # or it would be found without a stream, and fail
        try:
            created = await self._bring(session_id, commander_id, "older", now)
            if not created.fresh:
                return "exists"
            outcome = await self.store.submit(session_id, Acquire(commander_id, 0, self.instance, now))
            if not isinstance(outcome, Applied):
                return outcome.code
            return await self._take_up(session_id, link, (), outcome.head.epoch) or "superseded"
        except StoreUnavailable:
            self.spawn(self._find_again(session_id))
            return "unavailable"
        finally:
            self._bringing[session_id] -= 1
            self._bringing += Counter()

    async def _bring(
        self, session_id: str, commander_id: str, origin: Literal["commander", "older"], now: float
    ) -> Created:
        request = Request("", (), now, origin)
        head = Head(state="running", commander_id=commander_id, instance=self.instance, since=now)
        return await self.store.create(Record(session_id, request, head))

    async def _take_up(
        self,
        session_id: str,
        link: Link | None,
        awaiting_call_ids: tuple[str, ...] = (),
        epoch: int | None = None,
        anew: bool = False,
    ) -> Runner | None:
        """Rebuild the session from its log and go on with it. None: it is gone, or another has the epoch. anew: also
        where nobody was given it since, unless its stream is here.
        """
        entries = await read_all(self.store, session_id)
        record = await self.store.load(session_id)
        if record is None or (epoch is not None and record.head.epoch != epoch):
            return None
        session = self._rebuild(record, entries)
        runner = self._runners.get(session_id)
        if runner is None:
            runner = self._runners[session_id] = Runner(self, session)
        anew = anew and runner.link is None
        if link or anew or runner.session is session or runner.session.epoch < session.epoch:
            runner.begin(session, link, awaiting_call_ids, anew)
        runner.observe(Applied(record.head, tuple(entries)))
        return runner

    def _rebuild(self, record: Record, entries: list[Entry]) -> Session:
        return Session(record, entries, self._gate(record, entries), self._limits, self.instance)

    def _gate(self, record: Record, entries: list[Entry]) -> Gate:
        """A fresh one of today's rules. Time limits count from the first assignment."""
        started = next((entry.at for entry in entries if isinstance(entry.body, Assigned)), record.request.created_at)
        return self._clock.gate(started)

    # ---- the pool's desk

    async def assign(self, session_id: str, commander_id: str, continues: Callable[[str], bool]) -> Assignment | None:
        """Give a waiting session to that Commander, in the log first; the history is read after that (rule 1)."""
        try:
            record = await self.store.load(session_id)
            if record is None:
                return None
            change = Assign(commander_id, self.instance, continues(record.request.agent), time.time())
            outcome = await self.store.submit(session_id, change)
        except StoreUnavailable:
            self.spawn(self._find_again(session_id))
            return None
        if not isinstance(outcome, Applied):
            return None
        epoch = outcome.head.epoch
        runner = await until_known(lambda: self._take_up(session_id, None, (), epoch))
        if runner is None or runner.session.head.final:
            return None  # it was stopped meanwhile
        runner.facts.assigned(outcome)
        entries = await until_known(lambda: read_all(self.store, session_id)) if outcome.head.sequence else []
        assignment = assignment_of(Record(session_id, record.request, outcome.head), entries, self.registry.tools)
        if assignment is None:
            failed = Entry(Failed("history_too_large"), time.time(), outcome.head.generation)
            await self._fail(session_id, epoch, failed)
        return assignment

    async def _fail(self, session_id: str, epoch: int, failed: Entry) -> None:
        outcome = await until_known(lambda: self.store.submit(session_id, Append(epoch, (failed,))))
        if isinstance(outcome, Applied) and (runner := self._runners.get(session_id)):
            runner.observe(outcome)

    async def _find_again(self, session_id: str) -> None:
        """The outcome of a step is unknown: where the log gave the session to this instance, it must know of it. From
        another's silence nothing may be concluded here.
        """
        record = await until_known(lambda: self.store.load(session_id))
        if record and record.head.state == "waiting":
            self.pool.enlist(record)
        elif record and not record.head.complete and record.head.instance == self.instance:
            await until_known(lambda: self._take_up(session_id, None))

    async def unserved(self, session_id: str) -> None:
        """It has waited for `DISPATCHER_QUEUE_SECONDS`."""
        entries = await until_known(lambda: read_all(self.store, session_id))
        record = await until_known(lambda: self.store.load(session_id))
        if record and record.head.state == "waiting" and session_id not in self._runners:
            runner = self._runners[session_id] = Runner(self, self._rebuild(record, entries))
            runner.unserved()

    async def keep_known(self, agents: Iterable[str]) -> None:
        """A Commander that offers these agents has come, or is gone."""
        await self.upkeep.offer_soon(agents)

    def lost(self, session_id: str, generation: int, sent: bool = True) -> None:
        """That generation's Commander does not hold it: no grace. sent: it was told of it."""
        runner = self._runners.get(session_id)
        if runner and runner.session.head.generation == generation:
            runner.lost(sent)

    # ---- the runners' host

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run it to its end; a fault in it is logged, and harms nothing else."""
        return self._tasks.spawn(work)

    async def look_again(self, session_id: str) -> None:
        """The log knows more than the core did: rebuild it, and begin its grace anew."""
        await until_known(lambda: self._take_up(session_id, None, anew=True))

    def requeued(self, runner: Runner, record: Record) -> None:
        """Its Commander is lost, or gave it back."""
        if record.head.takeovers > runner.session.record.head.takeovers:
            self.metrics.takeovers.inc()
        self.settled(runner)
        self.pool.enlist(record)

    def settled(self, runner: Runner) -> None:
        """Nothing is left to do for it here."""
        if self._runners.get(runner.session_id) is runner:
            del self._runners[runner.session_id]

    # ---- other instances

    def judge_calls(self, runner: Runner) -> None:
        """Tool calls of instances that are gone get an answer."""
        if self.neighbours:
            self.spawn(self._judge_calls(self.neighbours, runner))
        else:
            runner.settle_gone(())

    async def _judge_calls(self, neighbours: Neighbours, runner: Runner) -> None:
        runner.settle_gone(await until_known(neighbours.alive))

    @property
    def held(self) -> Container[str]:
        """The sessions that this instance has to do with, whenever that is asked."""
        return ChainMap[str, Any](self._runners, self._bringing)

    def grown(self, session_id: str) -> None:
        """Another instance changed the session in the log."""
        if runner := self._runners.get(session_id):
            runner.grown()

    async def take_over(self, record: Record) -> None:
        """Nobody has the session any more; its grace runs from now. Raises StoreUnavailable."""
        session_id, head = record.session_id, record.head
        try:
            outcome = await self.store.submit(session_id, TakeOver(head.epoch, head.instance, self.instance))
            if isinstance(outcome, Applied):
                # Its own: a failover has lost that it was done with it.
                event = "session_found_again" if head.instance == self.instance else "session_taken_over"
                log.info(event, session_id=session_id, gone=head.instance)
                await self._take_up(session_id, None)
        except StoreUnavailable:
            self.spawn(self._find_again(session_id))  # if it is this instance's now, nobody else finds it
            raise

    async def take_back(self) -> None:
        """This instance's lease had ended: it still has the sessions whose streams it has."""
        await asyncio.gather(*(runner.take_back() for runner in list(self._runners.values())))

    def judge_all_calls(self) -> None:
        """Look again at the tool calls that other instances should have answered."""
        for runner in list(self._runners.values()):
            runner.judge_calls()

    # ---- life

    async def recover(self) -> None:
        """Where no other instance uses the store: take up every session whose log is not complete; the grace
        runs from now.
        """
        if self.neighbours:
            await self.neighbours.join()
            return
        for record in await self.store.select((*LIVE, "stopped"), ALL):
            if record.head.state == "waiting":
                self.pool.enlist(record)
            elif not record.head.complete:
                await self.take_over(record)

    def drain(self) -> None:
        """No assignments any more."""
        self.draining = self.pool.draining = True

    @property
    def running(self) -> bool:
        """Some session's Commander is connected here, or a tool of it runs here."""
        return any(runner.tools or (runner.link and not runner.session.head.over) for runner in self._runners.values())

    async def shut_down(self) -> None:
        """Stop what lives: its log does not outlive this process."""
        for session_id in list(self._runners):
            await self.stop(session_id, "Shutdown", "dispatcher")
        for record in await self.store.select(LIVE, ALL):
            await self.stop(record.session_id, "Shutdown", "dispatcher")

    async def close(self) -> None:
        """Let go of what runs. The log stays as it is."""
        for runner in list(self._runners.values()):
            runner.close()
        await self._tasks.cancel()
        await self.judges.close()
        if self.neighbours:
            await self.neighbours.resign()
