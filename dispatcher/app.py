"""Composition root: what is opened, in which order, and how it drains. Closing order is the opening order reversed."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from dispatcher.files import FileError
from dispatcher.gateway import limits
from dispatcher.gateway.app import operator_app, user_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.grpc_edge.service import AgentInteraction
from dispatcher.live import clock
from dispatcher.live.sessions import Sessions
from dispatcher.metrics import Metrics, watch_loop
from dispatcher.policing.watch import PolicyFiles
from dispatcher.settings import DispatcherSettings
from dispatcher.store.factory import open_store
from dispatcher.store.ports import StoreMisconfigured, StoreUnavailable
from dispatcher.tools.load import load as load_tools
from shared import wire
from shared.channel import server_options
from shared.errors import ConfigError
from shared.grpc_metrics import ServerMetrics

log = structlog.get_logger()

MOVE_SECONDS = 0.2  # between looks at whether the sessions have moved or ended, while draining
# A balancer that asks every second sends nobody here any more. Before that, what is under way when the port is closed
# would be lost, and most requests cannot be sent again.
NOTICED_SECONDS = 3.0


class Dispatcher:
    """The server. `start` raises ConfigError, one line for the operator, before anything is served."""

    def __init__(self, settings: DispatcherSettings) -> None:
        self.settings = settings
        self.grpc_port = self.http_port = self.operator_port = 0
        self._stack = AsyncExitStack()
        self._keepers: list[asyncio.Task[None]] = []
        self._leaving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open everything; what was opened is closed again if something cannot be."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        settings = self.settings
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        with _named("DISPATCHER_POLICIES"):
            self._policies = PolicyFiles(settings.policies, metrics)
            rules = self._policies.load()
        if missing := self._policies.unbounded:
            log.warning("no_budget", missing=missing)
        with _named("DISPATCHER_TOOLS"):
            tools = load_tools(settings.tools, metrics.abandoned)
        metrics.know(tools=(tool.name for tool in tools.tools))

        users = bind("DISPATCHER_HTTP_ADDRESS", settings.http_address)
        self._stack.callback(users.close)
        operators = bind("DISPATCHER_OPERATOR_ADDRESS", settings.operator_address)
        self._stack.callback(operators.close)
        calls = ServerMetrics(registry)
        calls.method(f"/{wire.SERVICE}/ChatStream")
        server = grpc.aio.server(options=server_options(settings.keepalive), interceptors=[calls])
        # gRPC would say only on its own standard error why it cannot.
        bind("DISPATCHER_GRPC_ADDRESS", settings.grpc_address).close()
        try:
            self.grpc_port = server.add_insecure_port(settings.grpc_address)
        except RuntimeError:
            raise ConfigError(f"DISPATCHER_GRPC_ADDRESS: cannot listen on {settings.grpc_address}") from None

        try:
            store = open_store(settings.store, metrics.appended)
            await store.start()
        except StoreMisconfigured as error:
            raise ConfigError(f"DISPATCHER_STORE: {error}") from None
        self._stack.push_async_callback(store.close)
        self.sessions = sessions = Sessions(store, rules, tools, metrics, settings)
        self._stack.push_async_callback(sessions.close)
        sessions.policy_status = self._policies.status

        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._service = AgentInteraction(sessions.desk)
        self._service.register(server)
        reflection.enable_server_reflection((wire.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)

        try:
            await sessions.recover()
        except StoreUnavailable as error:
            raise ConfigError(f"DISPATCHER_STORE: the store was lost while starting: {error}") from None
        works = [
            sessions.desk.upkeep.keep(),
            sessions.sweep.keep(),
            watch_loop(metrics),
            clock.watch(),
            self._policies.watch(sessions.runners.use),
        ]
        if sessions.neighbours:
            works.append(sessions.neighbours.keep())
        for work in works:
            self._keepers.append(asyncio.create_task(work))
        self._stack.push_async_callback(self._stop_keepers)
        await server.start()
        self._server = server
        self._stack.push_async_callback(self._stop_server)
        of_users, of_operators = limits.connections()
        for app, listening, connections in (
            (user_app(sessions, settings, metrics), users, of_users),
            (operator_app(sessions, registry), operators, of_operators),
        ):
            http = HttpServer(
                app,
                listening,
                head_seconds=settings.http_head_seconds,
                idle_seconds=settings.http_idle_seconds,
                connections=connections,
            )
            await http.start()
            self._stack.push_async_callback(http.close)
        self.http_port, self.operator_port = users.getsockname()[1], operators.getsockname()[1]
        for service in ("", wire.SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def _stop_server(self) -> None:
        await self._server.stop(None)
        if self._leaving:
            await self._leaving

    async def _stop_keepers(self) -> None:
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def reload(self) -> None:
        """Read the policies again, now."""
        self.sessions.runners.spawn(self._policies.reload(self.sessions.runners.use))

    async def drain(self) -> None:
        """Not ready any more; sessions move or end, for `DISPATCHER_DRAIN_SECONDS` at most."""
        settings = self.settings
        await self._health.enter_graceful_shutdown()
        self.sessions.drain()
        self._service.drain()
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


@contextmanager
def _named(setting: str) -> Iterator[None]:
    """A wrong file is told with the setting that names it."""
    try:
        yield
    except FileError as error:
        raise ConfigError(f"{setting}: {error}") from None


async def serve(settings: DispatcherSettings) -> None:
    """Run the server until SIGTERM or SIGINT; a second one cuts the draining short. SIGHUP: `reload`."""
    dispatcher = Dispatcher(settings)
    leave, loop = asyncio.Event(), asyncio.get_running_loop()
    cut = asyncio.Event()

    def signalled() -> None:
        (cut if leave.is_set() else leave).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await dispatcher.start()
    loop.add_signal_handler(signal.SIGHUP, dispatcher.reload)
    log.info(
        "serving",
        grpc_port=dispatcher.grpc_port,
        http_port=dispatcher.http_port,
        operator_port=dispatcher.operator_port,
        store=settings.store.partition(":")[0],
    )
    try:
        await leave.wait()
        log.info("draining", seconds=settings.drain_seconds)
        draining = asyncio.create_task(dispatcher.drain())
        cutting = asyncio.create_task(cut.wait())
        await asyncio.wait({draining, cutting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, cutting):
            task.cancel()
        await asyncio.gather(draining, cutting, return_exceptions=True)
    finally:
        await dispatcher.close()
        log.info("stopped")
