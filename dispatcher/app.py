"""Composition root: what is opened, in which order, and how it drains. Closing order is the opening order reversed."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from dispatcher.access.audit import AuditLog
from dispatcher.access.certificates import Certificates, Edge
from dispatcher.access.watch import AccessFile
from dispatcher.gateway import hosts, limits
from dispatcher.gateway.app import operator_app, user_app
from dispatcher.gateway.receipts import ReceiptKey
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.grpc_edge.health import Health
from dispatcher.grpc_edge.service import AgentInteraction
from dispatcher.live import clock
from dispatcher.live.fleet import keep_holding
from dispatcher.live.sessions import LiveSessions
from dispatcher.metrics import Metrics, watch_loop
from dispatcher.policing.watch import PolicyFiles
from dispatcher.settings import DispatcherSettings, ServerTls
from dispatcher.store.factory import open_store
from dispatcher.store.ports import StoreMisconfigured, StoreUnavailable
from dispatcher.tools.keeper import ToolFiles
from shared import forks, wire
from shared.addresses import is_loopback
from shared.channel import server_options
from shared.errors import ConfigError
from shared.grpc_metrics import ServerMetrics
from shared.traces import Traces

logger = structlog.get_logger()

MOVE_SECONDS = 0.2  # between looks at whether the sessions have moved or ended, while draining
# A balancer that asks every second sends nobody here any more. Before that, what is under way when the port is closed
# would be lost, and most requests cannot be sent again.
NOTICED_SECONDS = 3.0
# That a thread waits for the GIL while the loop is busy. Each step of SQLite lets go of it: with Python's 5 ms a flood
# that keeps the loop busy makes a transaction of 2 ms last for 500, and all sessions wait for that.
SWITCH_SECONDS = 0.001
# Objects between two looks of the garbage collector: records, futures and frames of the hot path come and go without
# it. With Python's 700 it looked every 600 tokens, for 1 µs of each.
GARBAGE_OBJECTS = 10_000


async def start(settings: DispatcherSettings) -> "Dispatcher":
    """A server that serves. Raises ConfigError, one line for the operator, before anything is served; what was opened
    is closed again then.
    """
    stack = AsyncExitStack()
    try:
        return await _opened(settings, stack)
    except BaseException:
        await stack.aclose()
        raise


async def _opened(settings: DispatcherSettings, stack: AsyncExitStack) -> "Dispatcher":
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    if traces := Traces.of("midsentence-dispatcher"):
        stack.push_async_callback(traces.close)
    with _named("DISPATCHER_POLICIES"):
        policies = PolicyFiles(settings.policies, metrics)
        rules = policies.load()
    if missing := policies.unbounded:
        logger.warning("no_budget", missing=missing)
    with _named("DISPATCHER_TOOLS"):
        tools = ToolFiles(settings.tools, metrics)
        tools.load()
    stack.push_async_callback(tools.close)
    with _named("DISPATCHER_RECEIPT_KEY"):
        receipt_key = ReceiptKey.of(settings.receipt_key) if settings.receipt_key else None

    with _named("DISPATCHER_ACCESS"):
        access = AccessFile(settings.access, metrics)
    stack.push_async_callback(access.close)
    with _named("DISPATCHER_AUDIT_LOG"):
        audit = AuditLog(settings.audit_log, metrics)
    stack.callback(audit.close)
    certificates = _certificates(settings, metrics)
    users = bind("DISPATCHER_HTTP_ADDRESS", settings.http_address)
    stack.callback(users.close)
    operators = bind("DISPATCHER_OPERATOR_ADDRESS", settings.operator_address)
    stack.callback(operators.close)
    calls = ServerMetrics(registry)
    calls.method(f"/{wire.SERVICE}/ChatStream")
    server = grpc.aio.server(options=server_options(settings.keepalive), interceptors=[calls])
    # gRPC would say only on its own standard error why it cannot.
    with bind("DISPATCHER_GRPC_ADDRESS", settings.grpc_address) as listening:
        for name, each in (("GRPC", listening), ("HTTP", users), ("OPERATOR", operators)):
            _check_closed(f"DISPATCHER_{name}_ADDRESS", each, access)
    try:
        if shown := certificates.get("grpc"):
            grpc_port = server.add_secure_port(settings.grpc_address, shown.credentials())
        else:
            grpc_port = server.add_insecure_port(settings.grpc_address)
    except RuntimeError:
        raise ConfigError(f"DISPATCHER_GRPC_ADDRESS: cannot listen on {settings.grpc_address}") from None

    ports = Ports(grpc_port, users.getsockname()[1], operators.getsockname()[1])
    stack.enter_context(forks.withheld(ports=ports))

    try:
        store = await open_store(settings.store, metrics.appended)
    except StoreMisconfigured as error:
        raise ConfigError(f"DISPATCHER_STORE: {error}") from None
    stack.push_async_callback(store.close)
    sessions = LiveSessions(store, rules, tools.registry, metrics, settings, policies.status, traces, access.limit_of)
    stack.push_async_callback(sessions.close)

    serving = Health()
    health_pb2_grpc.add_HealthServicer_to_server(serving, server)
    service = AgentInteraction(sessions.desk, access, audit)
    service.register(server)
    if access.rules is None:  # the one service beside these that would answer whoever asks
        reflection.enable_server_reflection((wire.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)

    await tools.start()
    try:
        await sessions.recover()
    except StoreUnavailable as error:
        raise ConfigError(f"DISPATCHER_STORE: the store was lost while starting: {error}") from None
    works = [
        sessions.desk.upkeep.keep(),
        keep_holding(store, sessions.pool),
        sessions.sweep.keep(),
        sessions.quotas.keep(),
        watch_loop(metrics),
        clock.watch(),
        policies.watch(sessions.runners.use),
        tools.watch(),
        access.watch(),
        *(shown.watch() for shown in certificates.values()),
    ]
    if sessions.neighbours:
        works.append(sessions.neighbours.keep())
    stack.push_async_callback(_cancel, [asyncio.create_task(work) for work in works])
    await server.start()
    stack.push_async_callback(server.stop, None)
    of_users, of_operators = limits.connections()
    refused = partial(metrics.refused, "http")
    for app, listening, connections, shown in (
        (user_app(sessions, settings, metrics, access, audit), users, of_users, certificates.get("http")),
        (
            operator_app(sessions, registry, metrics, access, receipt_key, audit),
            operators,
            of_operators,
            certificates.get("operator"),
        ),
    ):
        http = HttpServer(
            hosts.checked(app, listening, settings.allowed_hosts, refused),
            listening,
            head_seconds=settings.http_head_seconds,
            idle_seconds=settings.http_idle_seconds,
            connections=connections,
            refused=refused,
            tls=shown.context if shown else None,
        )
        await http.start()
        stack.push_async_callback(http.close)
    for name in ("", wire.SERVICE):
        serving.serves(name)
    return Dispatcher(
        settings, ports, sessions, policies, tools, access, audit, certificates, server, service, serving, stack
    )


def _check_closed(setting: str, listening: socket.socket, access: AccessFile) -> None:
    """Nobody is let in from elsewhere because nobody thought of it. Raises ConfigError."""
    host = str(listening.getsockname()[0])
    if not (access.said or is_loopback(host)):
        raise ConfigError(
            f"{setting}: {host} can be reached from other machines; set DISPATCHER_ACCESS to a file of keys "
            "(`dispatcher keys new` writes it), or to `open` where whoever reaches it may use it"
        )


def _certificates(settings: DispatcherSettings, metrics: Metrics) -> dict[Edge, Certificates]:
    """Of the edges that speak TLS. Raises ConfigError."""
    files: dict[Edge, ServerTls] = {
        "grpc": settings.grpc_tls,
        "http": settings.http_tls,
        "operator": settings.operator_tls,
    }
    return {edge: Certificates(edge, each, metrics) for edge, each in files.items() if each.cert}


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Ports(NamedTuple):
    """Where it listens."""

    grpc: int
    http: int
    operator: int


class Dispatcher:
    """The server while it serves, from `start` on. stack: closes what was opened."""

    def __init__(
        self,
        settings: DispatcherSettings,
        ports: Ports,
        sessions: LiveSessions,
        policies: PolicyFiles,
        tools: ToolFiles,
        access: AccessFile,
        audit: AuditLog,
        certificates: dict[Edge, Certificates],
        server: grpc.aio.Server,
        service: AgentInteraction,
        serving: Health,
        stack: AsyncExitStack,
    ) -> None:
        self.settings, self.sessions, self.service = settings, sessions, service
        self.grpc_port, self.http_port, self.operator_port = ports
        self._policies, self._tools, self._access, self._certificates = policies, tools, access, certificates
        self._audit = audit
        self._server, self._health, self._stack = server, serving, stack
        self._leaving: asyncio.Task[None] | None = None

    def reload(self) -> None:
        """Read the policies, the tools, the access rules and the certificates again, now."""
        self.sessions.runners.spawn(self._policies.reload(self.sessions.runners.use))
        self.sessions.runners.spawn(self._tools.reload())
        self.sessions.runners.spawn(self._access.reload())
        for shown in self._certificates.values():
            self.sessions.runners.spawn(shown.reload())

    async def drain(self) -> None:
        """Not ready any more; sessions move or end, for `DISPATCHER_DRAIN_SECONDS` at most."""
        settings = self.settings
        self._audit.write("drain_begun")
        self._health.leave()
        self.sessions.drain()
        self.service.drain()
        # GOAWAY: streams go on, but none is opened here any more, and Commanders look up where else they can go, for
        # they know only the replicas that were there when they last looked.
        self._leaving = asyncio.create_task(self._server.stop(settings.drain_seconds + settings.stop_seconds))
        await asyncio.gather(self._moved(settings.drain_seconds), self._noticed(settings.drain_seconds))
        if settings.store.startswith("memory:"):
            await self.sessions.shut_down()
            await self._moved(settings.stop_seconds)

    async def _moved(self, seconds: float) -> None:
        """Return when no session's Commander is connected here any more, or after that time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.sessions.runners.running and loop.time() < until:  # noqa: ASYNC110 - many places end a session's stay here
            await asyncio.sleep(MOVE_SECONDS)

    async def _noticed(self, seconds: float) -> None:
        """Return when whoever sends users here has had time to send them to the others, if there are others."""
        if self.sessions.neighbours:
            await asyncio.sleep(min(seconds, NOTICED_SECONDS))

    async def close(self) -> None:
        """End what is still open. Readers come back by `retry:`, Commanders by themselves."""
        self.sessions.closing.set()
        await self._stack.aclose()
        if self._leaving:
            await self._leaving


@contextmanager
def _named(setting: str) -> Iterator[None]:
    """A wrong file is told with the setting that names it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{setting}: {error}") from None


async def serve(settings: DispatcherSettings) -> None:
    """Run the server until SIGTERM or SIGINT; a second one cuts the draining short. SIGHUP: `reload`."""
    sys.setswitchinterval(SWITCH_SECONDS)
    leave, loop = asyncio.Event(), asyncio.get_running_loop()
    cut = asyncio.Event()

    def signalled() -> None:
        (cut if leave.is_set() else leave).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    dispatcher = await start(settings)
    # What stays was frozen before the rules were read (`PolicyFiles.load`) and sessions taken up from the log.
    gc.set_threshold(GARBAGE_OBJECTS, *gc.get_threshold()[1:])
    loop.add_signal_handler(signal.SIGHUP, dispatcher.reload)
    logger.info(
        "serving",
        grpc_port=dispatcher.grpc_port,
        http_port=dispatcher.http_port,
        operator_port=dispatcher.operator_port,
        store=settings.store.partition(":")[0],
    )
    try:
        await leave.wait()
        logger.info("draining", seconds=settings.drain_seconds)
        draining = asyncio.create_task(dispatcher.drain())
        cutting = asyncio.create_task(cut.wait())
        await asyncio.wait({draining, cutting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, cutting):
            task.cancel()
        await asyncio.gather(draining, cutting, return_exceptions=True)
    finally:
        await dispatcher.close()
        logger.info("stopped")
