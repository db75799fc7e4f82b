"""Real programs for tests and benchmarks: started as a user would start them, on ports that the system chooses."""

import contextlib
import json
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 120.0  # a cold start on a busy two-core machine takes a few, and where all wait for it many
STOP_SECONDS = 30.0
PORTS = range(10_000, 32_768)  # from there on Linux gives ports to whoever connects, or listens on any

Event = dict[str, Any]


def need(program: str) -> None:
    """Skip the test where that program of Debian's is not installed; in CI it has to be (`.ci/run`)."""
    if not shutil.which(program):
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"{program} is not installed (CONTRIBUTING.md)")


def free_port() -> int:
    """A port that is free, for programs that cannot be asked which one they got, or come back to the one that they had:
    the system gives it to nobody who asks for any, so it stays free while they are down.
    """
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of the pair, and with these."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DISPATCHER_", "COMMANDER_"))}
    return inherited | dict(settings)


class Program:
    """`python ARGUMENTS`. What it prints goes into the file `log`; lines of JSON can be waited for."""

    def __init__(self, *arguments: str, settings: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(settings),
        )
        self.pid = self._process.pid
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout
        with self.log.open("ab") as log, self._process.stdout as output:
            for line in output:
                log.write(line)
                log.flush()
                with contextlib.suppress(ValueError):
                    if isinstance(event := json.loads(line), dict):
                        self._events.put(event)
        self._events.put(None)

    def wait_for(self, wanted: Callable[[Event], bool], seconds: float = START_SECONDS) -> Event:
        """The next line of JSON that is wanted. Raises RuntimeError when the program ends, or takes too long."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while event := self._events.get(timeout=max(0.0, deadline - time.monotonic())):
                if wanted(event):
                    return event
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)  # its output ends a moment before it does
        printed = self.log.read_text(errors="replace")[-4000:]
        raise RuntimeError(f"exit status {self._process.poll()}; it printed:\n{printed}")

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_status(self, seconds: float) -> int:
        """Once it has ended. Raises subprocess.TimeoutExpired."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, at once."""
        self._process.kill()
        self._process.wait()
        self._reading.join(STOP_SECONDS)

    def close(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reading.join(STOP_SECONDS)


@contextlib.contextmanager
def running(*arguments: str, settings: Mapping[str, str], log: Path) -> Iterator[Program]:
    """A Program until the block ends."""
    program = Program(*arguments, settings=settings, log=log)
    try:
        yield program
    finally:
        program.close()


@dataclass(frozen=True)
class Dispatcher:
    """A `dispatcher serve` that is ready. Addresses are `host:port`, where it listens."""

    program: Program
    grpc: str
    http: str
    operator: str


@contextlib.contextmanager
def dispatcher(log: Path, store: str = "memory://", **settings: str) -> Iterator[Dispatcher]:
    """`dispatcher serve`, ready; `settings` by their names without the prefix, in small letters."""
    addresses = {f"{edge}_address": "127.0.0.1:0" for edge in ("grpc", "http", "operator")}
    # Sessions that a test leaves open shall not hold its end up.
    named = addresses | {"store": store, "log_json": "true", "drain_seconds": "1"} | settings
    environ = {f"DISPATCHER_{name.upper()}": value for name, value in named.items()}
    with running("-m", "dispatcher", "serve", settings=environ, log=log) as program:
        serving = program.wait_for(lambda event: event.get("event") == "serving")
        grpc, http, operator = (
            f"{named[f'{edge}_address'].rpartition(':')[0]}:{serving[f'{edge}_port']}"
            for edge in ("grpc", "http", "operator")
        )
        yield Dispatcher(program, grpc, http, operator)


@contextlib.contextmanager
def commander(target: str, log: Path, backend: str, **settings: str) -> Iterator[Program]:
    """`commander serve` of the Dispatcher at that `host:port`; it has begun to join when this returns."""
    own = {"dispatcher": f"dns:///{target}", "metrics_address": "127.0.0.1:0", "backend": backend, "drain_seconds": "1"}
    environ = {f"COMMANDER_{name.upper()}": value for name, value in (own | settings).items()}
    with running("-m", "commander", "serve", settings=environ, log=log) as program:
        program.wait_for(lambda event: event.get("event") == "joining")
        yield program
