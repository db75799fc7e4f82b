"""The sessions as users and operators see them, and what holds those of this instance together."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Container
from itertools import chain
from typing import Literal

import structlog
from msgspec.structs import replace

from dispatcher.core.entries import Decision, Entry, StopEntry
from dispatcher.core.holds import Fits, Hold
from dispatcher.core.log import LIVE, Applied, CommanderName, Head, Record, Request, Settle
from dispatcher.core.tenant_limits import TenantLimit
from dispatcher.core.tokens import KEY_BYTES
from dispatcher.live import clock, ids
from dispatcher.live.desk import Desk
from dispatcher.live.fleet import MAX_ORDERS, FleetStop, TooManyOrders, check_holds, hold_commanders
from dispatcher.live.neighbours import Neighbours
from dispatcher.live.pool import ConnectedCommander, QueueFull
from dispatcher.live.ports import Unlogged
from dispatcher.live.quotas import Quotas
from dispatcher.live.runners import Runners
from dispatcher.live.sweep import Sweep
from dispatcher.metrics import Metrics
from dispatcher.policies.outcomes import Violation
from dispatcher.policies.rules import RuleSet
from dispatcher.policing.prompts import Prompt
from dispatcher.settings import DispatcherSettings
from dispatcher.store.asking import until_known
from dispatcher.store.ports import Created, IdempotencyKey, StopKept, Store, StoreUnavailable
from dispatcher.tools.registry import Registry
from shared.records import UNSAID
from shared.traces import Traces

logger = structlog.get_logger()

ALL = 1_000_000  # sessions among which one instance finds, at its start, those to take up
MAX_KEPT_STOPS = 10_000  # sessions whose stop the store is still to take


class LiveSessions:
    """Creates and stops them; `runners` has those that live here, `desk` serves Commanders."""

    def __init__(
        self,
        store: Store,
        rules: RuleSet,
        registry: Registry,
        metrics: Metrics,
        settings: DispatcherSettings,
        policy_status: Callable[[], dict[str, object]] = dict,
        traces: Traces | None = None,
        limit_of: Callable[[str], TenantLimit | None] = lambda _: None,
    ) -> None:
        """policy_status: for operators. traces: told of sessions that are complete. limit_of: a tenant's."""
        self.registry, self.metrics = registry, metrics
        self.closing = asyncio.Event()
        self.policy_status = policy_status
        self._queue_limit, self._queue_bytes = settings.queue_limit, settings.queue_bytes
        self._queue_seconds = settings.queue_seconds
        self._creating: Counter[str] = Counter()  # by what is wanted: on their way into the log
        self._creating_of: Counter[str] = Counter()  # the same, by tenant
        self._creating_bytes = 0  # of their prompts
        self.runners = Runners(store, rules, registry, metrics, settings, self._waits, self._alive, self._ended, traces)
        self.desk = Desk(self.runners, metrics, settings)
        self.pool = self.desk.pool
        every_wait = settings.grace_seconds + settings.queue_seconds + settings.stop_seconds
        self.sweep = Sweep(self.runners, metrics, every_wait, self.pool.waits, self._take_up)
        self.neighbours = Neighbours(store.replicas, self.runners, self.pool, settings) if store.replicas else None
        self._kept_stops: set[tuple[str, str | None]] = set()  # session and tenant: whose it is, is not known yet
        self._orders: set[FleetStop] = set()
        self.quotas = Quotas(self.runners, limit_of, self.stop)

    @property
    def store(self) -> Store:
        return self.runners.store

    def _waits(self, record: Record) -> None:
        self.pool.enlist(record)

    def _ended(self, commander: CommanderName, well: bool) -> None:
        self.pool.ended(commander, well)

    async def _alive(self) -> Container[str]:
        return await self.neighbours.alive() if self.neighbours else ()

    # ---- users and operators

    async def create(self, request: Request, key: IdempotencyKey | None = None, token: str = "") -> Created:
        """A new session, or the one that the key was bound to. token: of its user's issuer, for tools that may forward
        it. Raises OnHold, PromptRefused, PromptUnread, QueueFull, OverLimit, StoreUnavailable.
        """
        runners = self.runners
        await check_holds(self.store, request)
        prompt = Prompt(request, runners.rules, runners.clock, runners.judges, self.metrics)
        await prompt.read()
        await self._check_queue(request)
        texts = (request.parameters_json, *texts_of(request))
        secret = secrets.token_bytes(KEY_BYTES)
        request = replace(request, prompt_bytes=sum(map(_bytes, texts)), assignment_key=secret)
        record = Record(ids.session_id(), request, Head(since=request.created_at))
        self._creating[request.wanted] += 1
        self._creating_of[request.tenant] += 1
        self._creating_bytes += request.prompt_bytes
        try:
            created = await self.store.create(record, key, await self.quotas.limit(request.tenant))
        except StoreUnavailable:
            runners.find_again(record.session_id)
            raise
        finally:
            self._creating[request.wanted] -= 1
            self._creating_of[request.tenant] -= 1
            self._creating_bytes -= request.prompt_bytes
            self._creating += Counter()  # forget the agents with none
            self._creating_of += Counter()
        if created.fresh:
            if token and self.registry.forwards_tokens:
                runners.tokens.keep(created.record.session_id, token)
            self.pool.enlist(created.record)
            if prompt.observed:
                runners.spawn(prompt.observe(created.record.session_id, self._stop_by_policy))
        return created

    async def _check_queue(self, request: Request) -> None:
        """Of the places in the queue, and the bytes, a tenant gets no more than it leaves free: alone half of them, of
        two a third. So one that floods never takes the last, whoever else there is. Raises QueueFull.
        """
        slots = self.pool.free(request.wanted) - self._creating[request.wanted]
        if slots > 0:
            return
        replicas, tenant = self.store.replicas, request.tenant
        waiting = await replicas.waiting_count() if replicas else self.pool.waiting
        free = self._queue_limit - (waiting - slots)
        free_bytes = self._queue_bytes - (self.pool.prompt_bytes + self._creating_bytes)
        own = own_bytes = 0
        if tenant:  # else access is open, and nobody is to be kept from it
            own, own_bytes = self.pool.waiting_of(tenant)
            own += self._creating_of[tenant]
        if free <= own or free_bytes <= own_bytes:
            raise QueueFull

    async def stop(
        self,
        session_id: str,
        reason: str,
        author: Literal["user", "operator", "dispatcher"],
        detail: str = "",
        tenant: str | None = None,
    ) -> Record | None:
        """Stop a session for good; repeated, it is answered like the first time. tenant: whose it has to be; None:
        anybody's. None: unknown.

        Raises StopKept where the store is away: it is tried until the store answers; StoreUnavailable where too many
        are. reason: one of `shared.records.STOP_REASONS`.
        """
        stop = StopEntry(ids.stop_id(), reason, author, detail=detail)
        try:
            return await self._stop(session_id, stop, tenant)
        except StoreUnavailable as error:
            if (session_id, tenant) not in self._kept_stops:
                if len(self._kept_stops) >= MAX_KEPT_STOPS:
                    self.runners.find_again(session_id)
                    raise
                self._kept_stops.add((session_id, tenant))
                self.runners.spawn(self._stop_when_it_can_be(session_id, stop, tenant))
            raise StopKept(str(error)) from error

    async def delete(self, record: Record) -> None:
        """Drop an ended session whole, once its tokens are counted. Raises StoreUnavailable."""
        await self.quotas.settle(record)
        await self.store.delete(record.session_id)

    def stop_fleet(self, fits: Fits, reason: str, detail: str = "", hold: Hold | None = None) -> FleetStop:
        """Stop all sessions that fit, whether somebody listens to what comes of it or not. hold: placed before.
        Raises TooManyOrders.
        """
        if len(self._orders) >= MAX_ORDERS:
            raise TooManyOrders
        order = FleetStop(self.store, lambda session_id: self.stop(session_id, reason, "operator", detail), fits, hold)
        self._orders.add(order)
        self.runners.spawn(order.run()).add_done_callback(lambda _: self._orders.discard(order))
        return order

    async def _stop_when_it_can_be(self, session_id: str, stop: StopEntry, tenant: str | None) -> None:
        try:
            await until_known(lambda: self._stop(session_id, stop, tenant))
        finally:
            self._kept_stops.discard((session_id, tenant))

    async def _stop_by_policy(self, session_id: str, violation: Violation) -> None:
        stop = StopEntry(ids.stop_id(), violation.reason, "policy", violation.policy, violation.detail)
        await until_known(lambda: self._stop(session_id, stop))

    async def _stop(self, session_id: str, stop: StopEntry, tenant: str | None = None) -> Record | None:
        """Raises StoreUnavailable: the outcome is unknown until it was asked for again."""
        runners = self.runners
        if tenant is not None and not await self._is_of(session_id, tenant):
            return None
        if runner := runners.by_session.get(session_id):
            runner.facts.stop_detected()
        outcome = await self.store.submit(session_id, Settle(Entry(stop, clock.now())))
        if not isinstance(outcome, Applied):
            return None
        self.pool.withdraw(session_id)
        told = runners.observe(session_id, outcome)
        if not told and outcome.entries and outcome.head.over:  # it waited; else whoever has it counts it
            self.metrics.stopped(stop.reason)
            self.metrics.session_over("stopped")
            logger.info("session_stopped", session_id=session_id, reason=stop.reason, author=stop.author, each=True)
            runners.completed(session_id)
        return await self.store.load(session_id)

    async def _is_of(self, session_id: str, tenant: str) -> bool:
        """What is another's takes the steps that what is unknown takes."""
        runner = self.runners.by_session.get(session_id)
        if runner and runner.session.record.request.tenant == tenant:
            return True
        record = await self.store.brief(session_id)
        return record is not None and record.request.tenant == tenant

    async def decide(self, session_id: str, decision: Decision) -> Applied | None:
        """Log it, if it is the first and fits (rule 40); what came of it. None: unknown. Raises StoreUnavailable."""
        outcome = await self.store.submit(session_id, Settle(Entry(decision, clock.now())))
        if not isinstance(outcome, Applied):
            return None
        self.runners.observe(session_id, outcome)
        return outcome

    def unlogged(self, session_id: str) -> Unlogged | None:
        """None: it does not live at this instance."""
        runner = self.runners.by_session.get(session_id)
        return Unlogged(runner.facts.last_step, runner.session.held) if runner else None

    @property
    def instance(self) -> str:
        return self.runners.instance

    def commanders(self) -> list[ConnectedCommander]:
        """Those that are connected to this instance."""
        return self.pool.connected()

    async def agents(self) -> list[str]:
        """The names that are offered now, or were within the queue time. Raises StoreUnavailable."""
        return sorted(offer for offer in await self._offers() if "\0" not in offer)

    async def features(self, agent: str) -> frozenset[str] | None:
        """What some Commander of that agent honours; None: nobody offers it. Raises StoreUnavailable."""
        offers = await self._offers()
        if agent not in offers:
            return None
        said = [offer.removeprefix(f"{agent}\0").split(",") for offer in offers if offer.startswith(f"{agent}\0")]
        return frozenset(chain.from_iterable(said)) - {""} if said else frozenset(UNSAID)

    async def _offers(self) -> set[str]:
        return self.pool.offers().union(await self.store.offered(time.time() - self._queue_seconds))

    def trouble(self) -> list[str]:
        """Why this instance cannot serve now; empty: it is ready. For operators."""
        replicas = self.store.replicas
        reasons = (
            self.desk.upkeep.trouble,
            f"deaf to other instances: {replicas.trouble}" if replicas and replicas.trouble else "",
            "draining" if self.pool.draining else "",
        )
        return [reason for reason in reasons if reason]

    # ---- life

    async def recover(self) -> None:
        """Where no other instance uses the store: take up every session whose log is not complete; the grace
        runs from now. Raises StoreUnavailable.
        """
        await hold_commanders(self.store, self.pool)
        if self.neighbours:
            await self.neighbours.join()
            return
        for record in await self.store.select((*LIVE, "stopped"), ALL):
            await self._take_up(record)

    async def _take_up(self, record: Record) -> None:
        """What the log says of it, and nobody looks after."""
        if record.head.state == "waiting":
            self.pool.enlist(record)
        elif not record.head.complete:
            await self.runners.take_over(record)

    def drain(self) -> None:
        """No assignments any more."""
        self.pool.draining = True

    async def shut_down(self) -> None:
        """Stop what lives: its log does not outlive this process."""
        for session_id in list(self.runners.by_session):
            await self.stop(session_id, "Shutdown", "dispatcher")
        for record in await self.store.select(LIVE, ALL):
            await self.stop(record.session_id, "Shutdown", "dispatcher")

    async def close(self) -> None:
        """Let go of what runs. The log stays as it is."""
        await self.runners.close()
        if self.neighbours:
            await self.neighbours.resign()


def texts_of(request: Request) -> list[str]:
    """What of a request may be large, beside its parameters."""
    texts = [tool.description + tool.parameters_json_schema for tool in request.tools]
    for message in request.messages:
        texts += [
            message.content,
            message.name,
            message.parts_json,
            *(call.arguments_json for call in message.tool_calls),
        ]
    return texts


def _bytes(text: str) -> int:
    """As UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
