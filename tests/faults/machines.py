"""The processes: started, killed, stopped in their tracks, and started again, as a supervisor would."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.programs import START_SECONDS, Event, Program

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
SUPERVISED_SECONDS = 45.0  # how long a program may fail to start while what it needs is away
TRY_AGAIN_SECONDS = 0.5
BREATH_SECONDS = 1.5  # after it is up again: else a process that is broken again and again serves nobody for long


class Machine:
    """One program. start: how; ready: returns what it said once it can be used, or raises RuntimeError."""

    def __init__(self, name: str, start: Callable[[Path], Program], ready: Callable[[Program], Event], folder: Path):
        self.name = name
        self.said: Event = {}
        self.changed: Callable[[], None] = lambda: None  # called when it is down, and when it is ready
        self.program: Program | None = None
        self._start, self._ready, self._log = start, ready, folder / f"{name}.log"
        self.lock = asyncio.Lock()  # one fault at a time

    @property
    def up(self) -> bool:
        return bool(self.said)

    async def start(self) -> None:
        """Return when it is ready. Raises RuntimeError with what it printed."""
        until = time.monotonic() + SUPERVISED_SECONDS
        while True:
            self.program = self._start(self._log)
            try:
                self.said = await asyncio.to_thread(self._ready, self.program)
                self.changed()
                return
            except RuntimeError as error:
                await self.stop()
                if time.monotonic() > until:
                    raise RuntimeError(f"{self.name} did not start: {error}") from error
                await asyncio.sleep(TRY_AGAIN_SECONDS)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self.program:
            await asyncio.to_thread(self.program.close)

    async def suffer(self, what: str, seconds: float) -> None:
        """Break it, and mend it after that time."""
        async with self.lock:
            assert self.program
            if what.endswith("pause"):
                self.program.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(seconds)
                finally:
                    self.program.send_signal(signal.SIGCONT)
                return
            await asyncio.to_thread(self.program.close if what == "restart" else self.program.kill)
            self.said = {}
            self.changed()
            await asyncio.sleep(seconds)
            await self.start()
            await asyncio.sleep(BREATH_SECONDS)

    async def census(self) -> Event:
        """What a probed program holds."""
        assert self.program
        self.program.send_signal(signal.SIGUSR2)
        return await asyncio.to_thread(self.program.wait_for, is_event("census"))

    def descriptors(self) -> int:
        assert self.program
        return len(list(Path(f"/proc/{self.program.pid}/fd").iterdir()))


def is_event(name: str) -> Callable[[Event], bool]:
    return lambda event: event.get("event") == name


def dispatcher(name: str, folder: Path, settings: dict[str, str]) -> Machine:
    """`dispatcher serve` under the probe; it says which ports it got."""
    return Machine(name, _probed("dispatcher", settings), lambda program: program.wait_for(is_event("serving")), folder)


def commander(name: str, folder: Path, settings: dict[str, str]) -> Machine:
    return Machine(name, _probed("commander", settings), lambda program: program.wait_for(is_event("joining")), folder)


def _probed(room: str, settings: dict[str, str]) -> Callable[[Path], Program]:
    environ = {f"{room.upper()}_{name}": value for name, value in settings.items()}
    arguments = ("-m", "tests.faults.probe", room, "serve")
    return lambda log: Program(*arguments, settings=environ, log=log)


def redis(port: int, folder: Path) -> Machine:
    """A Redis that loses nothing that it has answered for."""
    data = folder / "redis"
    data.mkdir()
    options = {"port": port, "bind": "127.0.0.1", "dir": data, "save": "", "appendonly": "yes", "appendfsync": "always"}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]

    def ready(program: Program) -> Event:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and program.runs:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith(b"+PONG"):
                    return {"redis_port": port}
            time.sleep(0.02)  # not there yet, or reading its file
        raise RuntimeError(f"redis-server: {program.log.read_text(errors='replace')[-2000:]}")

    def start(log: Path) -> Program:
        return Program(*arguments, settings={}, log=log, executable="redis-server")

    return Machine("redis", start, ready, folder)
