"""The processes: started, killed, stopped in their tracks, and started again, as a supervisor would."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.programs import Event, Program
from tests.redis_servers import RedisServer

# Short, so that a run is dense. A peer that does not answer is noticed after 1.5 + 2 s by the Dispatcher, after 2 + 2 s
# by the Commander, a hanging Commander after 4 s (it sends its status every 2 s).
GRACE_SECONDS = 2.5
DISPATCHER = {
    "LOG_JSON": "true",
    "GRACE_SECONDS": str(GRACE_SECONDS),
    "TAKEOVERS": "1000",  # an agent that can go on shall never be given up
    "QUEUE_SECONDS": "600",  # nor a session that waits
    "STOP_SECONDS": "2",
    "DRAIN_SECONDS": "1.5",
    "STATUS_TIMEOUT_SECONDS": "4",
    "WRITE_TIMEOUT_SECONDS": "4",
    "KEEPALIVE__TIME_MS": "1500",
    "KEEPALIVE__TIMEOUT_MS": "2000",
    "KEEPALIVE__PING_TIMEOUT_MS": "2000",
    "KEEPALIVE__MIN_PING_INTERVAL_MS": "500",
    "MAX_UNACKED_PACKETS": "16",  # so that a line that is down is felt
}
COMMANDER = {
    "DRAIN_SECONDS": "0.5",
    "KEEPALIVE__TIME_MS": "2000",
    "KEEPALIVE__TIMEOUT_MS": "2000",
    "KEEPALIVE__PING_TIMEOUT_MS": "2000",
    "METRICS_ADDRESS": "127.0.0.1:0",
}
SUPERVISED_SECONDS = 120.0  # how long a program may take to start, or fail to, while what it needs is away
TRY_AGAIN_SECONDS = 0.5
SERVICES = Path(__file__).with_name("services.py")
BREATH_SECONDS = 1.5  # after it is up again: else a process that is broken again and again serves nobody for long


class Process(Protocol):
    """What a Machine needs of a program that runs."""

    def send_signal(self, number: signal.Signals) -> None: ...

    def kill(self) -> None:
        """SIGKILL; return when it is gone."""

    def close(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough; return when it is gone."""


class Machine:
    """One program. start: returns when it can be used, with what it said then; may raise RuntimeError."""

    def __init__(self, name: str, start: Callable[[], tuple[Process, Event]]) -> None:
        self.name = name
        self.said: Event = {}
        self.changed: Callable[[], None] = lambda: None  # called when it is down, and when it is ready
        self.lock = asyncio.Lock()  # one fault at a time
        self.breath = BREATH_SECONDS
        self.process: Process | None = None
        self._start = start

    async def start(self) -> None:
        """Return when it is ready. Raises RuntimeError with what it printed."""
        until = time.monotonic() + SUPERVISED_SECONDS
        while True:
            starting = asyncio.ensure_future(asyncio.to_thread(self._start))
            try:
                self.process, self.said = await asyncio.shield(starting)
                self.changed()
                return
            except asyncio.CancelledError:
                with contextlib.suppress(RuntimeError):
                    self.process, _ = await starting  # it is there, and to be stopped
                raise
            except RuntimeError as error:
                if time.monotonic() > until:
                    raise RuntimeError(f"{self.name} did not start: {error}") from error
                await asyncio.sleep(TRY_AGAIN_SECONDS)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self.process:
            await asyncio.to_thread(self.process.close)

    async def suffer(self, what: str, seconds: float) -> None:
        """Break it, and mend it after that time."""
        async with self.lock:
            assert self.process
            if what.endswith("pause"):
                self.process.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(seconds)
                finally:
                    self.process.send_signal(signal.SIGCONT)
                return
            await asyncio.to_thread(self.process.close if what == "restart" else self.process.kill)
            self.said = {}
            self.changed()
            await asyncio.sleep(seconds)
            await self.start()
            await asyncio.sleep(self.breath)

    async def census(self) -> Event:
        """What a probed program holds."""
        assert isinstance(self.process, Program)
        self.process.send_signal(signal.SIGUSR2)
        return await asyncio.to_thread(self.process.wait_for, is_event("census"))

    def memory(self, name: str) -> int:
        """Bytes, as /proc has it: `VmRSS`, or `VmHWM`, the highest."""
        assert isinstance(self.process, Program)
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) * 1024

    def descriptors(self) -> int:
        assert isinstance(self.process, Program)
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def is_event(name: str) -> Callable[[Event], bool]:
    return lambda event: event.get("event") == name


def dispatcher(name: str, folder: Path, settings: dict[str, str]) -> Machine:
    """`dispatcher serve`; it says which ports it got."""
    return Machine(name, _probed("dispatcher", settings, folder / f"{name}.log", "serving"))


def commander(name: str, folder: Path, settings: dict[str, str]) -> Machine:
    """`commander serve`, which has begun to join when it is ready."""
    return Machine(name, _probed("commander", settings, folder / f"{name}.log", "joining"))


def _probed(room: str, settings: dict[str, str], log: Path, ready: str) -> Callable[[], tuple[Process, Event]]:
    environ = {f"{room.upper()}_{name}": value for name, value in settings.items()}

    def start() -> tuple[Process, Event]:
        program = Program("-m", "tests.faults.probe", room, "serve", settings=environ, log=log)
        try:
            return program, program.wait_for(is_event(ready), SUPERVISED_SECONDS)
        except RuntimeError:
            program.close()
            raise

    return start


def service(kind: str, folder: Path, port: int) -> Machine:
    """One of `services.py`, on that port. It starts again by itself when it dies of a call."""
    command = (str(SERVICES), kind, str(folder / "served"), str(port))

    def start() -> tuple[Process, Event]:
        program = Program(*command, settings={}, log=folder / f"service-{kind}.log")
        try:
            return program, program.wait_for(is_event("serving"), SUPERVISED_SECONDS)
        except RuntimeError:
            program.close()
            raise

    return Machine(f"service-{kind}", start)


def redis(port: int, folder: Path) -> Machine:
    """A Redis that loses nothing that it has answered for."""
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    return Machine("redis", lambda: (RedisServer(folder / "redis", *durable, port=port), {"redis_port": port}))
