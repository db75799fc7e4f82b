"""Real programs for tests and benchmarks: started as a user would start them, on ports that the system chose."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30.0  # a cold start on a busy two-core machine takes a few
STOP_SECONDS = 15.0


def free_port() -> int:
    """A port that was free a moment ago: the system gives out others before it gives this one again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without settings of the pair, and with these."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DISPATCHER_", "COMMANDER_"))}
    return inherited | dict(settings)


@contextlib.contextmanager
def running(*arguments: str, settings: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python ARGUMENTS` until the block ends; what it prints goes into the file `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(settings),
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Dispatcher:
    """A `dispatcher serve` that is ready. Addresses are `host:port`."""

    process: subprocess.Popen[bytes]
    grpc: str
    http: str
    operator: str


@contextlib.contextmanager
def dispatcher(log: Path, store: str = "memory://", **settings: str) -> Iterator[Dispatcher]:
    """`dispatcher serve`, ready; `settings` by their names without the prefix, in small letters."""
    grpc, http, operator = (f"127.0.0.1:{free_port()}" for _ in range(3))
    named = {"grpc_address": grpc, "http_address": http, "operator_address": operator, "store": store} | settings
    environ = {f"DISPATCHER_{name.upper()}": value for name, value in named.items()}
    with running("-m", "dispatcher", "serve", settings=environ, log=log) as process:
        until_ready(process, f"http://{http}/readyz", log)
        yield Dispatcher(process, grpc, http, operator)


def until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Ask until it answers 200. There is no event to wait for before a foreign process listens."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 # http only
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.05)
    raise RuntimeError(f"not ready (exit status {process.poll()}): {url}\n{log.read_text(errors='replace')[-4000:]}")
