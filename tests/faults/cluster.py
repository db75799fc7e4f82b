"""All processes of a topology, and the lines between them, each through a proxy that faults can reach."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from dispatcher.store.redis.keys import LEASES
from tests.faults import machines
from tests.faults.machines import Machine
from tests.faults.proxy import Direction, Passed, Proxy, held_port, untold
from tests.faults.schedule import Fault, TopologyName
from tests.faults.served import Happened
from tests.faults.tools import SERVED, ToolFile
from tests.programs import free_port

DISPATCHERS: dict[TopologyName, int] = {"sqlite": 1, "redis": 3, "outages": 3}
AGENTS = ("continuing", "continuing", "naive", "naive")  # one Commander each
CAPACITY = 4
LIMIT_BYTES = (1, 2500)  # after which a reader's connection is cut
# What a store that has just come back answers after it has renewed a lease comes late: longer than appends wait between
# two attempts, and shorter than a Dispatcher waits for a reply.
LATE_SECONDS = 3.0
STEADY_SECONDS = 7.0  # for which it stays after an outage: until every Dispatcher has been through that

Line = Sequence[Proxy]


@dataclass
class Cluster:
    """streams[i][j]: from Commander i to Dispatcher j; readers[j]: users to j; stores[j]: from j to Redis; lines[i]:
    from all Dispatchers to service i. happened: what broke.
    """

    topology: TopologyName
    dispatchers: list[Machine] = field(default_factory=list)
    commanders: list[Machine] = field(default_factory=list)
    redis: list[Machine] = field(default_factory=list)
    streams: list[list[Proxy]] = field(default_factory=list)
    readers: list[Proxy] = field(default_factory=list)
    stores: list[Proxy] = field(default_factory=list)
    services: list[Machine] = field(default_factory=list)
    lines: list[Proxy] = field(default_factory=list)
    tools: ToolFile | None = None
    happened: list[Happened] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def operator(self, number: int) -> str:
        return f"http://127.0.0.1:{self.dispatchers[number].said['operator_port']}"

    def users(self, number: int) -> str:
        return f"http://127.0.0.1:{self.dispatchers[number].said['http_port']}"

    def _dispatcher_changed(self, number: int) -> None:
        """Its ports are others after each start; the proxies' stay."""
        said = self.dispatchers[number].said
        self.readers[number].upstream = ("127.0.0.1", said["http_port"]) if said else None
        for streams in self.streams:
            streams[number].upstream = ("127.0.0.1", said["grpc_port"]) if said else None

    def _redis_changed(self) -> None:
        """When it is back: sessions are taken back, and meanwhile what was not answered is tried again."""
        for proxy in self.stores:
            proxy.passed = _late_after_a_renewal(proxy) if self.redis[0].said else untold

    def _service_changed(self, number: int) -> None:
        """What is down refuses connections, for whoever asks it."""
        if self.services[number].said:
            self.lines[number].listen()
        else:
            self.lines[number].refuse()

    # ---- faults

    def _machine(self, fault: Fault) -> Machine | None:
        """Which process it breaks; None: a line."""
        roles = {
            "dispatcher": self.dispatchers,
            "commander": self.commanders,
            "redis": self.redis,
            "service": self.services,
        }
        machines = roles.get(fault.kind.partition(" ")[0])
        return machines[fault.of(len(machines))] if machines else None

    def whole(self, fault: Fault) -> bool:
        """What it breaks is not broken already."""
        machine = self._machine(fault)
        return machine is None or not machine.lock.locked()

    async def suffer(self, fault: Fault) -> None:
        """Break what the fault names, and mend it. Raises RuntimeError where it does not come back."""
        what, _, how = fault.kind.partition(" ")
        self.note(f"begins: {fault}")
        began = time.time()
        if what == "tools":
            assert self.tools
            self.tools.change()
        elif machine := self._machine(fault):
            await machine.suffer(how, fault.seconds)
        else:
            lines = {
                "stream": self._stream_lines(),
                "reader": _each(self.readers),
                "store": _each(self.stores),
                "tool": _each(self.lines),
            }[what]
            await _disturb(lines[fault.of(len(lines))], how, fault)
        if what in ("service", "tool"):
            what = SERVED[fault.of(len(SERVED))]
        self.happened.append(Happened(what, began, time.time()))
        self.note(f"ends: {fault}")

    def _stream_lines(self) -> list[Line]:
        """Each Commander from all Dispatchers; where there are several, each Dispatcher from all Commanders too."""
        lines: list[Line] = list(self.streams)
        if len(self.dispatchers) > 1:
            lines += [list(column) for column in zip(*self.streams, strict=True)]
        return lines

    def heal(self) -> None:
        """Nothing is frozen or cut any more."""
        for proxy in chain(*self.streams, self.readers, self.stores, self.lines):
            proxy.limits = lambda: None
            proxy.thaw()

    def note(self, text: str) -> None:
        """One line of what happened."""
        self.journal.append(f"{time.monotonic() - self.began:7.2f} {text}")


def _late_after_a_renewal(proxy: Proxy) -> Passed:
    """Once: the next renewal of a lease is answered, and nothing else for LATE_SECONDS."""
    asked = False

    def passed(direction: Direction, data: bytes) -> None:
        nonlocal asked
        if direction == "up":
            asked |= LEASES in data
        elif asked and b"NOSCRIPT" in data:  # it has lost its scripts too, and is told them again
            asked = False
        elif asked:
            proxy.passed = untold
            proxy.freeze(["down"])
            asyncio.get_running_loop().call_later(LATE_SECONDS, proxy.thaw)

    return passed


def _each(proxies: Sequence[Proxy]) -> list[Line]:
    return [[proxy] for proxy in proxies]


async def _disturb(line: Line, how: str, fault: Fault) -> None:
    chance = random.Random(fault.number)
    for proxy in line:
        match how:
            case "cut":
                proxy.cut()
            case "cut after some bytes":
                proxy.limits = lambda: chance.randint(*LIMIT_BYTES)
                proxy.cut()
            case "acks dropped" | "answers dropped":
                proxy.freeze(["down"])
            case "packets dropped":
                proxy.freeze(["up"])
            case _:
                proxy.freeze()
    await asyncio.sleep(fault.seconds)
    for proxy in line:
        if how.endswith("dropped"):
            proxy.cut()  # what waited is lost
        proxy.limits = lambda: None
        proxy.thaw()


@contextlib.asynccontextmanager
async def cluster(topology: TopologyName, folder: Path) -> AsyncIterator[Cluster]:
    """A cluster that serves."""
    rig = Cluster(topology)
    # One for each process: starting and stopping wait in threads.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(16))
    async with contextlib.AsyncExitStack() as stack:

        async def proxy(upstream: tuple[str, int] | None = None) -> Proxy:
            made = await Proxy(upstream).start()
            stack.push_async_callback(made.close)
            return made

        async def start(made: Sequence[Machine]) -> None:
            for machine in made:
                stack.push_async_callback(machine.stop)
            await asyncio.gather(*(machine.start() for machine in made))

        count = DISPATCHERS[topology]
        stores = [f"sqlite:///{folder}/sessions.db"]
        if topology != "sqlite":
            rig.redis = [machines.redis(port := free_port(), folder)]
            await start(rig.redis)
            rig.redis[0].changed = rig._redis_changed  # type: ignore[method-assign]
            if topology == "outages":
                rig.redis[0].breath = STEADY_SECONDS
            rig.stores = [await proxy(("127.0.0.1", port)) for _ in range(count)]
            stores = [f"redis://127.0.0.1:{store.port}/0" for store in rig.stores]
        for number, kind in enumerate(SERVED):
            held = stack.enter_context(held_port())
            port = held.getsockname()[1]
            rig.lines.append(await proxy(("127.0.0.1", port)))
            machine = machines.service(kind, folder, port)
            machine.changed = lambda number=number: rig._service_changed(number)  # type: ignore[misc]
            rig.services.append(machine)
        await start(rig.services)
        rig.tools = ToolFile(folder, dict(zip(SERVED, (line.port for line in rig.lines), strict=True)))
        rig.readers = [await proxy() for _ in range(count)]
        rig.streams = [[await proxy() for _ in range(count)] for _ in AGENTS]
        for number, store in enumerate(stores):
            addresses = {f"{edge}_ADDRESS": "127.0.0.1:0" for edge in ("GRPC", "HTTP", "OPERATOR")}
            settings = {**machines.DISPATCHER, **addresses, "STORE": store, "TOOLS": str(rig.tools.path)}
            machine = machines.dispatcher(f"dispatcher-{number}", folder, settings)
            machine.changed = lambda number=number: rig._dispatcher_changed(number)  # type: ignore[misc]
            rig.dispatchers.append(machine)
        await start(rig.dispatchers)
        for number, agent in enumerate(AGENTS):
            target = "ipv4:" + ",".join(f"127.0.0.1:{stream.port}" for stream in rig.streams[number])
            own = {"BACKEND": f"tests.faults.agents:{agent}", "AGENT": agent, "DISPATCHER": target}
            settings = {**machines.COMMANDER, **own, "CAPACITY": str(CAPACITY)}
            rig.commanders.append(machines.commander(f"commander-{number}-{agent}", folder, settings))
        await start(rig.commanders)
        yield rig
