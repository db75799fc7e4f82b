"""The runners of this instance: begun from the log, found again where an answer was lost, taken over and taken back."""

import asyncio
from collections import ChainMap, Counter
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from dispatcher.core.entries import Assigned, Entry
from dispatcher.core.limits import Limits
from dispatcher.core.log import Append, Applied, CommanderName, Record, Request, TakeOver
from dispatcher.core.session import Session
from dispatcher.core.traced import SpanReader, invoked
from dispatcher.live import ids
from dispatcher.live.deadlines import Pace
from dispatcher.live.ports import Carried, Link
from dispatcher.live.runner import Runner
from dispatcher.live.shown_tokens import ShownTokens
from dispatcher.live.strict import misfit_of
from dispatcher.live.tasks import Tasks
from dispatcher.live.tool_starts import ToolStarts
from dispatcher.metrics import Metrics
from dispatcher.policies.gate import Gate
from dispatcher.policies.rules import RuleSet
from dispatcher.policing.judges import Judges
from dispatcher.policing.timed import PolicyClock
from dispatcher.settings import DispatcherSettings
from dispatcher.store.asking import in_parts, until_known
from dispatcher.store.ports import Store, StoreUnavailable
from dispatcher.tools.registry import Registry
from shared.records import Tool
from shared.spans import Span, TraceContext, invocation_span, trace_context
from shared.traces import Traces
from shared.turns import LoopTurn, in_turns

logger = structlog.get_logger()

T = TypeVar("T")


class Runners:
    """By session. A runner's `Host`.

    waits     called with the record of a session that waits for a Commander again
    ended     told whose session has ended, and whether well
    alive     asked for the instances that are not known to be gone; raises StoreUnavailable
    traces    told of sessions that are complete; None: nobody is
    instance  random at each start; tool calls name it
    """

    def __init__(
        self,
        store: Store,
        rules: RuleSet,
        registry: Registry,
        metrics: Metrics,
        settings: DispatcherSettings,
        waits: Callable[[Record], None],
        alive: Callable[[], Awaitable[Container[str]]],
        ended: Callable[[CommanderName, bool], None],
        traces: Traces | None = None,
    ) -> None:
        self.store, self.registry, self.metrics = store, registry, metrics
        self.instance = store.replicas.instance if store.replicas else ids.instance()
        self.log_thoughts = settings.log_thoughts
        self.judges = Judges(metrics)
        self.tokens = ShownTokens()
        self.starts = ToolStarts()
        self.pace = Pace()
        self.by_session: dict[str, Runner] = {}
        self._limits = msgspec.convert(settings, Limits, from_attributes=True)  # of the same names
        self._reload_running = settings.policy_reload_running
        self._waits, self._alive, self._ended, self._traces = waits, alive, ended, traces
        self._taken_up: Counter[str] = Counter()  # sessions whose logs are being read
        # How often one changed meanwhile, or its runner was done with it: what was read before may lack a stop or a
        # result, of which nobody tells the core that is built from it; and a call without its result would run again
        # (rule 15).
        self._missed: Counter[str] = Counter()
        self._bringing: Counter[str] = Counter()  # sessions of older peers, on their way into the log
        self._tasks = Tasks(lambda error: logger.error("task_failed", exc_info=error))
        self.use(rules)
        metrics.running.set_function(
            lambda: sum(each.owned and each.session.head.state == "running" for each in self.by_session.values())
        )
        metrics.approvals_waiting.set_function(lambda: sum(each.approvals_waiting for each in self.by_session.values()))

    def use(self, rules: RuleSet) -> None:
        """The rules of sessions that are rebuilt from now on; by `DISPATCHER_POLICY_RELOAD_RUNNING` of all sessions."""
        self.metrics.know(policies=(policy.name for policy in rules.policies))
        self.rules, self.clock = rules, PolicyClock(rules, self.metrics)
        if self._reload_running and self.by_session:
            self.spawn(self._take_rules(list(self.by_session.values())))

    async def _take_rules(self, runners: list[Runner]) -> None:
        """One after the other: each reads its whole log."""
        for runner in runners:
            await asyncio.wait({self.spawn(runner.take_rules(self._gate))})

    # ---- begun from the log

    async def take_up(
        self,
        session_id: str,
        link: Link | None,
        awaiting_call_ids: tuple[str, ...] = (),
        epoch: int | None = None,
        anew: bool = False,
    ) -> Runner | None:
        """Rebuild the session from its log and go on with it. None: it is gone, or another has the epoch. anew: also
        where nobody was given it since, unless its stream is here. Raises StoreUnavailable.
        """
        self._taken_up[session_id] += 1
        try:
            while True:
                missed, rules = self._missed[session_id], self.rules
                record = await self.store.load(session_id)
                if record is None or (epoch is not None and record.head.epoch != epoch):
                    return None
                before = self.by_session.get(session_id)
                known = before.session.offset if before else record.head.offset
                session, news = await self._rebuild(record, frozenset(awaiting_call_ids), known)
                if missed == self._missed[session_id] and rules is self.rules:
                    break
        finally:
            self._taken_up[session_id] -= 1
            if not self._taken_up[session_id]:
                del self._taken_up[session_id], self._missed[session_id]
        runner = self.by_session.get(session_id)
        if runner is None:
            runner = self.by_session[session_id] = Runner(self, session)
        anew = anew and runner.link is None
        if link or anew or runner.session is session or runner.session.epoch < session.epoch:
            runner.begin(session, link, awaiting_call_ids, anew)
        runner.observe(Applied(record.head, tuple(news)))
        return runner

    async def _rebuild(self, record: Record, awaited: Container[str], known: int) -> tuple[Session, list[Entry]]:
        """The core, of the log as far as that head knows it, and the entries after `known`. Of a long log no more than
        a part is in memory, and others have the loop in between: policies read it for long. Raises StoreUnavailable.
        """
        session: Session | None = None
        news: list[Entry] = []
        async for part in in_parts(self.store, record.session_id, record.head.offset):
            session = session or self._core(record, part, awaited)
            await in_turns(session.replayed(part))
            news += [entry for entry in part if entry.offset > known]
        return session or self._core(record, [], awaited), news

    def _core(self, record: Record, first: list[Entry], awaited: Container[str]) -> Session:
        gate, approval = self._gate(record, first), self._approval(record.request.agent)
        misfit = misfit_of(record.request)
        return Session(_without_prompt(record), (), gate, self._limits, self.instance, approval, misfit, awaited)

    def _approval(self, agent: str) -> Callable[[str], str]:
        """Who has to approve that agent's calls, by the tool."""
        return lambda tool: self.registry.approval(tool, agent)

    def _gate(self, record: Record, first: list[Entry]) -> Gate:
        """A fresh one of today's rules. Time limits count from the first assignment, which is among the log's first
        entries where there is one.
        """
        started = next((entry.at for entry in first if isinstance(entry.body, Assigned)), record.request.created_at)
        return self.clock.gate(started)

    @contextmanager
    def bringing(self, session_id: str) -> Iterator[None]:
        """Meanwhile a peer brings the session into the log: found without a stream, it would fail."""
        self._bringing[session_id] += 1
        try:
            yield
        finally:
            self._bringing[session_id] -= 1
            self._bringing += Counter()  # forget those with none

    # ---- what becomes of one without its Commander

    def find_again(self, session_id: str) -> None:
        """The outcome of a step is unknown: where the log gave the session to this instance, it must know of it. From
        another's silence nothing may be concluded here.
        """
        self.spawn(self._find_again(session_id))

    async def _find_again(self, session_id: str) -> None:
        record = await until_known(lambda: self.store.load(session_id))
        if record and record.head.state == "waiting":
            self._waits(record)
        elif record and not record.head.complete and record.head.instance == self.instance:
            await until_known(lambda: self.take_up(session_id, None))

    async def unserved(self, session_id: str) -> None:
        """It has waited for `DISPATCHER_QUEUE_SECONDS`."""
        record = await until_known(lambda: self.store.load(session_id))
        if record is None or record.head.state != "waiting":
            return
        session, _ = await until_known(lambda: self._rebuild(record, (), record.head.offset))
        if session_id not in self.by_session:
            runner = self.by_session[session_id] = Runner(self, session)
            runner.unserved()

    async def fail(self, session_id: str, epoch: int, failed: Entry) -> None:
        """Append that end, as the one who has the epoch."""
        outcome = await until_known(lambda: self.store.submit(session_id, Append(epoch, (failed,))))
        if isinstance(outcome, Applied):
            self.observe(session_id, outcome)

    def lost(self, session_id: str, generation: int, sent: bool = True) -> None:
        """That generation's Commander does not hold it: no grace. sent: it was told of it."""
        runner = self.by_session.get(session_id)
        if runner and runner.session.head.generation == generation:
            runner.lost(sent)

    # ---- the runners' host

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run it to its end; a fault in it is logged, and harms nothing else."""
        return self._tasks.spawn(work)

    async def look_again(self, session_id: str) -> None:
        """The log knows more than the core did: rebuild it, and begin its grace anew."""
        await until_known(lambda: self.take_up(session_id, None, anew=True))

    def judge_calls(self, settle_gone: Callable[[Container[str]], None]) -> None:
        """Tool calls of instances that are gone get an answer."""
        self.spawn(self._judge_calls(settle_gone))

    async def _judge_calls(self, settle_gone: Callable[[Container[str]], None]) -> None:
        settle_gone(await until_known(self._alive))

    def requeued(self, runner: Carried, record: Record) -> None:
        """Its Commander is lost, or gave it back: it waits again."""
        self.settled(runner)
        self._waits(record)

    def ended(self, commander: CommanderName, well: bool) -> None:
        """A session of that Commander has ended well; or it has failed, or was lost by it."""
        self._ended(commander, well)

    def settled(self, runner: Carried) -> None:
        """Nothing is left to do for it here."""
        if self.by_session.get(runner.session_id) is runner:
            del self.by_session[runner.session_id]
            self._changed(runner.session_id)

    # ---- traces

    def completed(self, session_id: str) -> None:
        """Its log is, and no other instance tells of it."""
        self.tokens.drop(session_id)
        if self._traces:
            self.spawn(self._tell(session_id, self._traces))

    async def _tell(self, session_id: str, traces: Traces) -> None:
        if record := await until_known(lambda: self.store.load(session_id)):
            context = _context(session_id, record.request)
            traces.tell(context, await until_known(lambda: self._spans(record, context, traces.texts)))

    async def _spans(self, record: Record, context: TraceContext, texts: bool) -> list[Span]:
        """Raises StoreUnavailable."""
        reader, turn = SpanReader(record, context, texts=texts), LoopTurn()
        async for part in in_parts(self.store, record.session_id, record.head.offset):
            for entry in part:
                reader.take(entry)
                await turn.step()
        return reader.spans()

    def trace(self, session_id: str, request: Request) -> TraceContext | None:
        """For the lines of its log and its exemplars, sampled or not; None: nobody is told of traces."""
        if self._traces is None:
            return None
        return self._traces.sampled(_context(session_id, request), invoked(request.agent))

    def traceparent(self, session_id: str, request: Request, generation: int) -> str:
        """For what is done for the session under that generation: where nobody is told of traces, as it came."""
        if (context := self.trace(session_id, request)) is None:
            return request.traceparent
        return context.traceparent(invocation_span(session_id, generation))

    def _changed(self, session_id: str) -> None:
        """Of one whose log is being read: it is read again."""
        if self._taken_up[session_id]:
            self._missed[session_id] += 1

    # ---- other instances

    @property
    def held(self) -> Container[str]:
        """The sessions that this instance has to do with, whenever that is asked."""
        return ChainMap[str, Any](self.by_session, self._bringing)

    def grown(self, session_id: str) -> None:
        """Another instance changed the session in the log."""
        self._changed(session_id)
        if runner := self.by_session.get(session_id):
            runner.grown()

    def observe(self, session_id: str, outcome: Applied) -> bool:
        """What was logged here as no append of the session: who has it here is told. Returns whether somebody has."""
        self._changed(session_id)
        runner = self.by_session.get(session_id)
        if runner:
            runner.observe(outcome)
        return runner is not None

    async def take_over(self, record: Record) -> None:
        """Nobody has the session any more; its grace runs from now. Raises StoreUnavailable."""
        session_id, head = record.session_id, record.head
        try:
            outcome = await self.store.submit(session_id, TakeOver(head.epoch, head.instance, self.instance))
            if isinstance(outcome, Applied):
                # Its own: a failover has lost that it was done with it.
                event = "session_found_again" if head.instance == self.instance else "session_taken_over"
                logger.info(event, session_id=session_id, gone=head.instance)
                runner = await self.take_up(session_id, None)
                if runner and runner.session.head.instance != self.instance:
                    runner.grown()  # it was taken back meanwhile, and the news of that came before there was a runner
        except StoreUnavailable:
            self.find_again(session_id)  # if it is this instance's now, nobody else finds it
            raise

    async def take_back(self) -> None:
        """This instance's lease had ended: it still has the sessions whose streams it has."""
        turn, taken = LoopTurn(), []
        for runner in list(self.by_session.values()):
            taken.append(self.spawn(runner.take_back()))
            await turn.step()
        await asyncio.gather(*taken)

    def judge_all_calls(self) -> None:
        """Look again at the tool calls that other instances should have answered."""
        for runner in list(self.by_session.values()):
            runner.judge_calls()

    # ---- life

    @property
    def running(self) -> bool:
        """Some session's Commander is connected here, or a tool of it runs here."""
        return any(each.tools or (each.link and not each.session.head.over) for each in self.by_session.values())

    async def close(self) -> None:
        """Let go of what runs. The log stays as it is."""
        for runner in list(self.by_session.values()):
            runner.close()
        self.pace.close()
        await self._tasks.cancel()
        await self.judges.close()


def _context(session_id: str, request: Request) -> TraceContext:
    return trace_context(request.traceparent, session_id, request.tracestate)


def _without_prompt(record: Record) -> Record:
    """What a session needs of its record while it runs: of its prompt, which may be thousands of times that, no more
    than which tools are the client's. An assignment reads all of it.
    """
    names = tuple(Tool(tool.name, "", "", client=True) for tool in record.request.tools)
    brief = replace(record.request, messages=(), parameters_json="", tools=names, shown_json="")
    return replace(record, request=brief)
