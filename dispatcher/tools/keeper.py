"""The operators' tools while the server runs: their files are read again when they have changed, and toolsets' servers
are connected to, again and again where they are lost.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from dispatcher.files.document import FileError
from dispatcher.files.watch import FileWatch
from dispatcher.metrics import Metrics
from dispatcher.tools.entry import NAME, NAMED
from dispatcher.tools.errors import ServiceError
from dispatcher.tools.load import Given, Loaded, load
from dispatcher.tools.local import Threads
from dispatcher.tools.pins import differs
from dispatcher.tools.ports import Spec, Tool
from dispatcher.tools.registry import Registry, UnusableSchemaError, check_schema

logger = structlog.get_logger()

FIRST_WAIT = 1.0  # seconds before a lost server is connected to again; twice as many each time
MAX_WAIT = 60.0
# That the start of the program waits for toolsets: what answers at all is offered to the first session.
READY_SECONDS = 5.0
MAX_TOOLS = 1000  # of one toolset
MAX_TOOLSET_BYTES = 1024 * 1024  # of all that its tools say of themselves: a model reads it, and an assignment holds it
MAX_TOLD = 10  # tools that one line of the log names
MAX_REASON = 200  # characters of a reason


class ToolFiles:
    """path: as `DISPATCHER_TOOLS` has it; None: the built-in tools. Their registry is `registry`.

    pins: False: toolsets offer what they have, approved or not, for their pins are to be written.
    """

    def __init__(self, path: Path | None, metrics: Metrics, *, pins: bool = True) -> None:
        self._path, self._metrics, self._pins = path, metrics, pins
        self._files = FileWatch(path)
        self._threads = Threads(abandoned=metrics.abandoned)
        self._reading = asyncio.Lock()
        self._tools: dict[str, Tool] = {}
        self._servers: dict[str, ToolsetServer] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._taken: set[str] = set()
        self.registry = Registry((), metrics.tool_running, metrics.tool_runs_on, _held)

    def load(self) -> None:
        """The tools to begin with; toolsets have none before `start`. Raises FileError."""
        self._take(self._read())

    @property
    def servers(self) -> Sequence["ToolsetServer"]:
        """The toolsets', in the files' order."""
        return tuple(self._servers.values())

    async def start(self, seconds: float = READY_SECONDS) -> None:
        """Connect to the toolsets' servers; returns when each was reached once, or could not be, or time is up."""
        for server in self._servers.values():
            server.begin()
        tried = [asyncio.create_task(server.tried.wait()) for server in self._servers.values()]
        if tried:
            _, late = await asyncio.wait(tried, timeout=seconds)
            for task in late:
                task.cancel()

    async def watch(self) -> None:
        """Read the files whenever they have changed, until cancelled."""
        await self._files.watch(self.reload)

    async def reload(self) -> None:
        """Read the files now. Broken ones leave the tools that there are."""
        async with self._reading:
            try:
                loaded = await asyncio.to_thread(self._read)
            except FileError as error:
                self._broken([str(fault) for fault in error.faults])
            except Exception as error:
                logger.exception("tools_unreadable")
                self._broken([f"{self._path}: {type(error).__name__}"])
            else:
                self._take(loaded)
                for server in self._servers.values():
                    server.begin()
                self._metrics.tool_reload_success.set(1)
                logger.info("tools_reloaded", tools=len(self._tools), toolsets=len(self._servers))

    async def close(self) -> None:
        """Leave the toolsets' servers."""
        tasks = [*self._retiring, *(server.task for server in self._servers.values() if server.task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _read(self) -> Loaded:
        self._files.reading()
        return load(self._path, self._threads, self._files.reading_too, pins=self._pins)

    def _broken(self, errors: list[str]) -> None:
        self._metrics.tool_reload_success.set(0)
        logger.error("tools_broken", errors="\n".join(errors))

    def _take(self, loaded: Loaded) -> None:
        """What has not changed stays as it is, with its connections and what is known of its service."""
        self._tools = {key: self._tools.get(key, tool) for key, tool in loaded.tools.items()}
        before, self._servers = self._servers, {}
        for key, given in loaded.toolsets.items():
            self._servers[key] = before.pop(key) if key in before else ToolsetServer(given, self)
        kept = {server.name for server in self._servers.values()}
        for server in before.values():
            if server.name not in kept:
                self._metrics.toolset_gone(server.name)
            if server.task:
                task = asyncio.create_task(server.retire())
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
        self.publish()

    def publish(self) -> None:
        """To sessions that begin from now on. Of two tools of one name the first counts, in the files' order."""
        tools = {tool.spec.name: tool for tool in self._tools.values()}
        down, taken = set(), set()
        for server in self._servers.values():
            self._metrics.toolset_up(server.name, server.up)
            for tool in server.tools:
                name = tool.spec.name
                if name in tools:
                    taken.add(f"{server.name}: {name}")
                    continue
                tools[name] = tool
                if not server.up:
                    down.add(name)
        if taken - self._taken:
            logger.warning("tool_names_taken", tools=sorted(taken)[:MAX_TOLD])
        self._taken = taken
        self.registry.use(tools.values(), down)
        self._metrics.know(tools=filter(self.registry.knows, tools))


class ToolsetServer:
    """A toolset's, as it is kept. up: its tools are offered now. error: why not. left_out: tools, and why."""

    def __init__(self, given: Given, keeper: ToolFiles) -> None:
        self._toolset, self._pin = given.toolset, given.pin
        self._keeper = keeper
        self.name, self.pin_file = given.toolset.name, given.pin_file
        self.tools: tuple[Tool, ...] = ()
        self.up, self.error = False, ""
        self.left_out: list[str] = []
        self.tried = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._runs: set[asyncio.Task[None]] = set()
        self.calls = 0  # of its tools, those that wait for their turn among them
        self._idle = asyncio.Event()

    def begin(self) -> None:
        """Idempotent."""
        self.task = self.task or asyncio.create_task(self._keep(), name=f"toolset {self.name}")

    async def retire(self) -> None:
        """The files do not name it any more: leave the server when the calls that there are have ended."""
        try:
            while self.calls:
                self._idle.clear()
                await self._idle.wait()
        finally:
            if self.task:
                self.task.cancel()
                await asyncio.gather(self.task, return_exceptions=True)

    async def _keep(self) -> None:
        try:
            await self._connect_again()
        finally:
            for run in self._runs:
                run.cancel()
            await asyncio.gather(*self._runs, return_exceptions=True)

    async def _connect_again(self) -> None:
        clock = asyncio.get_running_loop().time
        wait = FIRST_WAIT
        while True:
            began = clock()
            try:
                await self._run()
                why = "the connection was lost"
            except ServiceError as failed:
                why = str(failed)
            except Exception as failed:
                logger.debug("toolset_failed", toolset=self.name, exc_info=failed)
                why = type(failed).__name__
            if self.up or why != self.error:
                logger.warning("toolset_down", toolset=self.name, error=why[:MAX_REASON])
            wait = FIRST_WAIT if self.up and clock() - began > wait else wait
            self.error = why[:MAX_REASON]
            self._set(self.tools, up=False)
            await asyncio.sleep(wait)
            wait = min(2 * wait, MAX_WAIT)

    async def _run(self) -> None:
        """Until the server is lost; the calls that are under way keep their connection. Raises why."""
        offer = _Offer(self)
        run = asyncio.create_task(self._toolset.run(offer), name=f"toolset {self.name} runs")
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        run.add_done_callback(offer.ended)
        if why := await offer.over:
            raise why

    def offered(self, tools: Sequence[Tool], left_out: Sequence[str]) -> None:
        """There are these now."""
        left_out = [reason[:MAX_REASON] for reason in left_out]
        kept = tuple(_Offered(tool, self) for tool in self._usable(tools, left_out))
        if left_out and left_out != self.left_out:
            logger.warning("tools_left_out", toolset=self.name, tools=left_out[:MAX_TOLD], number=len(left_out))
        self.left_out = left_out
        if not self.up or [tool.spec for tool in kept] != [tool.spec for tool in self.tools]:
            logger.info("toolset_up", toolset=self.name, tools=len(kept))
        self._set(kept, up=True)

    def _set(self, tools: tuple[Tool, ...], *, up: bool) -> None:
        self.tools, self.up = tools, up
        self.tried.set()
        self._keeper.publish()

    def _usable(self, tools: Sequence[Tool], left_out: list[str]) -> Iterator[Tool]:
        room, names = MAX_TOOLSET_BYTES, set[str]()
        for number, tool in enumerate(tools):
            spec = tool.spec
            size = len(spec.description) + len(json.dumps(spec.schema))
            if reason := self._unusable(spec, names, number, room - size):
                left_out.append(f"{spec.name[:64]}: {reason}")
                continue
            room -= size
            names.add(spec.name)
            yield tool

    def _unusable(self, spec: Spec, names: set[str], number: int, room: int) -> str:
        """Why agents are not shown it; empty: they are."""
        if number >= MAX_TOOLS:
            return f"more than {MAX_TOOLS} tools"
        if room < 0:
            return f"more than {MAX_TOOLSET_BYTES // 1024} KiB of descriptions and schemas"
        if not NAME.fullmatch(spec.name):
            return f"its name {NAMED}"
        if spec.name in names:
            return "its name comes twice"
        if self._pin is not None and (difference := differs(self._pin, spec)):
            return difference
        try:
            check_schema(spec.schema)
        except UnusableSchemaError as error:
            return f"its schema cannot be used: {error}"[:MAX_REASON]
        return "" if spec.schema.get("type") == "object" else "its schema is not of an object"

    def held(self, change: int) -> None:
        """One more call, or one less, keeps the connection."""
        self.calls += change
        self._idle.set()


class _Offer:
    """What one run of a toolset tells. over: its server is lost, and why, if that is known."""

    def __init__(self, server: ToolsetServer) -> None:
        self._server = server
        self.over: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def __call__(self, tools: Sequence[Tool], left_out: Sequence[str] = ()) -> None:
        self._server.offered(tools, left_out)

    def lost(self, why: BaseException | None) -> None:
        if not self.over.done():
            self.over.set_result(why)

    def ended(self, run: "asyncio.Task[None]") -> None:
        self.lost(RuntimeError("the toolset cancelled itself") if run.cancelled() else run.exception())


class _Offered:
    """A toolset's tool, and whose it is."""

    def __init__(self, tool: Tool, server: ToolsetServer) -> None:
        self.spec, self.call, self.server = tool.spec, tool.call, server


def _held(tool: Tool, change: int) -> None:
    if isinstance(tool, _Offered):
        tool.server.held(change)
