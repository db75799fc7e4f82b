"""A Dispatcher with an honest Commander, and an honest user beside whatever is done to it.

What is judged is what the user saw (`tests.abuse.user`), what the Dispatcher took (its RSS at the highest) and what is
left of it afterwards (`tests.faults.quiet`). Times are compared with those of the same house when it was quiet.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tests.abuse.user import OK, ask
from tests.faults import machines, quiet
from tests.faults.machines import Machine
from tests.programs import Program

# That anybody may wait, or TIMES what it was when all was quiet: for the next word; for the first word of a new session
# and for a stop's answer, which take several processes' turns on a machine that an attack keeps busy.
SECONDS = {"gap": 0.25, "first": 1.0, "stop": 1.0}
TIMES = 10
MORE_BYTES = 64 * 1024**2  # by which RSS may grow, beyond what it does when all is quiet
ATTACK_SECONDS = 2.0
TRIES = 3
AFTER_SECONDS = 0.5  # the user stays on: what an attack has left behind in queues is still to come
SEEN_SECONDS = 60.0  # for the user to get all that it waits for
JOIN_SECONDS = 30.0  # until another Commander's agent is offered
CAPACITY = 64  # of the honest Commander

DISPATCHER = {
    "LOG_JSON": "true",
    "DRAIN_SECONDS": "1",
    "GRACE_SECONDS": "1",
    "STOP_SECONDS": "2",
    "HTTP_HEAD_SECONDS": "2",
}
TOOLS = "".join(
    f'[[tool]]\nname = "{name}"\nkind = "local"\nuse = "{module}:{name}"\ntimeout_seconds = {seconds}\n'
    for name, module, seconds in (
        ("echo", "tests.abuse.tools", 60),
        ("large", "tests.abuse.tools", 60),
        ("huge", "tests.abuse.tools", 60),
        ("many", "tests.abuse.tools", 60),
        ("hang", "tests.abuse.tools", 1),
        ("own_exception", "tests.abuse.tools", 5),
        ("current_time", "dispatcher.tools.builtin", 10),
    )
)


@dataclass(frozen=True)
class Seen:
    """Seconds and bytes at the highest; see `tests.abuse.user`. more: RSS beyond what it was before."""

    words: int
    gap: float
    first: float
    stop: float
    late: float
    trouble: list[str]
    peak: int
    more: int

    def waits(self, when_quiet: "Seen") -> list[str]:
        """What the honest user has waited for longer than it may; empty: nothing."""
        found: list[str] = []
        for name, seconds in SECONDS.items():
            most = max(seconds, TIMES * getattr(when_quiet, name))
            took = getattr(self, name) - self.late
            if took > most:
                found.append(f"{name} took {took * 1000:.0f} ms, not {most * 1000:.0f}")
        return found

    def damage(self, when_quiet: "Seen") -> list[str]:
        """What no machine's pace excuses: what the user lost, and memory beyond what may be taken; empty: nothing."""
        found = list(self.trouble)
        if self.more > when_quiet.more + MORE_BYTES:
            found.append(f"RSS grew by {self.more >> 20} MiB to {self.peak >> 20}")
        return found

    def __str__(self) -> str:
        waits = ", ".join(f"{name} {getattr(self, name) * 1000:.0f} ms" for name in ("gap", "first", "stop", "late"))
        return f"{self.words} words, {waits}, RSS {self.peak >> 20} MiB (+{self.more >> 20})"


class Keys(NamedTuple):
    """Of those who are honest; empty: access is open."""

    user: str = ""
    operator: str = ""
    commander: str = ""


OPEN = Keys()


class House:
    """Ports on 127.0.0.1."""

    def __init__(self, folder: Path, dispatcher: Machine, keys: Keys) -> None:
        self.folder, self.dispatcher, self.keys = folder, dispatcher, keys
        self.numbers = itertools.count()
        self._idle = quiet.Holding()

    @property
    def program(self) -> Program:
        assert isinstance(self.dispatcher.process, Program)
        return self.dispatcher.process

    @property
    def http(self) -> int:
        return int(self.dispatcher.said["http_port"])

    @property
    def operator(self) -> int:
        return int(self.dispatcher.said["operator_port"])

    @property
    def grpc(self) -> int:
        return int(self.dispatcher.said["grpc_port"])

    @contextlib.asynccontextmanager
    async def commander(self, agent: str, **settings: str) -> AsyncIterator[Machine]:
        """Another Commander, with an agent of `tests.abuse.agents`."""
        machine = commander(f"{agent}-{next(self.numbers)}", self.folder, self.grpc, agent, settings)
        async with running(machine):
            async with asyncio.timeout(JOIN_SECONDS):
                while (await ask(self.http, "GET", f"/v1/models/{agent}"))[0] != OK:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            yield machine

    async def joined(self, commanders: int) -> None:
        """Return when so many are connected."""
        async with asyncio.timeout(JOIN_SECONDS):
            while (await self.gauges())["dispatcher_commanders"] != commanders:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def gauges(self) -> dict[str, float]:
        return await quiet.gauges(f"http://127.0.0.1:{self.operator}")

    async def beside(self, attack: "Attack") -> Seen:
        """What the honest user sees meanwhile. What the attack itself raises, this raises."""
        until = self.folder / f"until-{next(self.numbers)}"
        log = self.folder / f"user-{until.name}.log"
        self._forget_peak()
        before = self.memory("VmRSS")
        arguments = (str(self.http), str(self.operator), str(until), self.keys.user, self.keys.operator)
        user = Program("-m", "tests.abuse.user", *arguments, settings={}, log=log)
        try:
            await asyncio.to_thread(user.wait_for, machines.is_event("reading"))
            await self.attacked(attack)
            await asyncio.sleep(AFTER_SECONDS)
            until.touch()
            seen = await asyncio.to_thread(user.wait_for, machines.is_event("seen"), SEEN_SECONDS)
        finally:
            until.touch()
            user.close()
        peak = self.memory("VmHWM")
        return Seen(**{name: seen[name] for name in seen if name != "event"}, peak=peak, more=peak - before)

    async def attacked(self, attack: "Attack") -> None:
        """For ATTACK_SECONDS at least: an attack that is over sooner is made again."""
        enough = time.monotonic() + ATTACK_SECONDS
        while time.monotonic() < enough:
            await attack(self)

    async def harm(
        self, attack: "Attack", when_quiet: Seen, tell: Callable[[Seen], None] = lambda _: None
    ) -> list[str]:
        """What an honest user lost, at whichever try, or has waited for at each of TRIES: a machine that is busy with
        others slows whom it will; a stall comes again. tell: called with what was seen at each.
        """
        waits: list[str] = []
        for _ in range(TRIES):
            seen = await self.beside(attack)
            tell(seen)
            if damage := seen.damage(when_quiet):
                return damage
            if not (waits := seen.waits(when_quiet)):
                break
        return waits

    def _forget_peak(self) -> None:
        """VmHWM begins anew."""
        Path(f"/proc/{self.program.pid}/clear_refs").write_text("5")

    def memory(self, name: str) -> int:
        """Of the Dispatcher."""
        return self.dispatcher.memory(name)

    async def left(self) -> list[str]:
        """What is still held of what was, after a quiet time; a line each."""

        async def look() -> list[str]:
            held = await quiet.holding([self.dispatcher])
            return await self._counted() or quiet.beyond("Dispatcher", held, self._idle, 1)

        return await quiet.until_none(look)

    async def settle(self) -> None:
        """What it holds once nothing goes on is what it holds when idle."""
        left = await quiet.until_none(self._counted)
        assert not left, left
        self._idle = await quiet.holding([self.dispatcher])

    async def _counted(self) -> list[str]:
        gauges = await self.gauges()
        found = [f"{name} is {gauges[name]:g}" for name in quiet.DISPATCHER_ZERO if gauges[name]]
        free = gauges["dispatcher_free_slots"]
        return found if free == CAPACITY else [*found, f"{free:g} of {CAPACITY} slots are free"]


Attack: TypeAlias = Callable[[House], Awaitable[None]]


async def nothing(house: House) -> None:
    """The attack of a quiet time."""
    await asyncio.sleep(ATTACK_SECONDS)


def commander(name: str, folder: Path, port: int, agent: str, settings: dict[str, str]) -> Machine:
    own = {"BACKEND": f"tests.abuse.agents:{agent}", "AGENT": agent, "DISPATCHER": f"dns:///127.0.0.1:{port}"}
    return machines.commander(name, folder, {"METRICS_ADDRESS": "127.0.0.1:0", "DRAIN_SECONDS": "0.5"} | own | settings)


@contextlib.asynccontextmanager
async def running(*started: Machine) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for machine in started:
            stack.push_async_callback(machine.stop)
            await machine.start()
        yield


@contextlib.asynccontextmanager
async def house(folder: Path, store: str = "", keys: Keys = OPEN, **settings: str) -> AsyncIterator[House]:
    """One that serves. settings: the Dispatcher's, without the prefix."""
    addresses = {f"{edge}_ADDRESS": "127.0.0.1:0" for edge in ("GRPC", "HTTP", "OPERATOR")}
    tools = folder / "tools.toml"
    tools.write_text(TOOLS)
    own = {"STORE": store or f"sqlite:///{folder}/sessions.db", "TOOLS": str(tools)}
    named = DISPATCHER | addresses | own | settings
    dispatcher = machines.dispatcher("dispatcher", folder, named)
    async with running(dispatcher):
        port = int(dispatcher.said["grpc_port"])
        shown = {"TOKEN": keys.commander} if keys.commander else {}
        honest = commander("honest", folder, port, "steady", {"CAPACITY": str(CAPACITY)} | shown)
        async with running(honest):
            made = House(folder, dispatcher, keys)
            await made.joined(1)
            yield made
