"""Several Dispatchers on one Redis, and HAProxy before them, as `deploy/` has it, on loopback: each replica has an
address of its own and the same ports, and a name server gives them all one name.
"""

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.names import NameServer, name_server
from tests.programs import Dispatcher, Program, commander, dispatcher, free_port, need
from tests.redis_servers import RedisServer, redis_server

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "haproxy" / "haproxy.cfg"
NAME = "dispatcher"
# HAProxy asks all replicas on these. Addresses that nobody else on this machine takes keep them free.
PORTS = {"http": 8080, "operator": 9464, "grpc": 50051}
NETWORK = f"127.{1 + os.getpid() // 250 % 250}.{os.getpid() % 250}"
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05


def eventually(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Return when it holds. Programs do not say when, so they are asked again; one that does not answer: not yet."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if condition():
                return
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(POLL_SECONDS)


def figure(operator: str, metric: str, shown: Mapping[str, str] | None = None) -> float:
    """The sum of the samples of a metric, `name` or the beginning of `name{label="value"}`. shown: headers."""
    text = httpx2.get(f"http://{operator}/metrics", headers=shown, timeout=30).text
    lines = [line for line in text.splitlines() if line.startswith(metric) and line[len(metric)] in " {,}"]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@dataclass(frozen=True)
class Commander:
    """A `commander serve` that has begun to join. metrics: `host:port`."""

    program: Program
    metrics: str


class Replicas:
    """Dispatchers and Commanders, as the test starts them.

    target    what a Commander is told: all replicas by their addresses
    """

    def __init__(self, folder: Path, stack: contextlib.ExitStack, redis: RedisServer, names: NameServer) -> None:
        self.redis, self.names = redis, names
        self.target = f"dns://{names.address}/{NAME}:{PORTS['grpc']}"
        self._folder, self._stack = folder, stack
        self._numbers = itertools.count(1)

    def dispatcher(self, host: str = "", **settings: str) -> Dispatcher:
        """A new replica, ready, or one in the place of another, whose `host` is given. The name has its address."""
        number = next(self._numbers)
        host = host or f"{NETWORK}.{number}"
        addresses = {f"{edge}_address": f"{host}:{port}" for edge, port in PORTS.items()}
        named = addresses | {"drain_seconds": "20"} | settings
        log = self._folder / f"dispatcher-{number}.log"
        made = self._stack.enter_context(dispatcher(log, f"redis://{self.redis.address}/0", **named))
        self.names.addresses.setdefault(NAME, []).append(host)
        return made

    def leave(self, replica: Dispatcher) -> str:
        """The name does not have this replica's address any more. The host of it."""
        host = replica.http.rpartition(":")[0]
        self.names.addresses[NAME].remove(host)
        return host

    def commander(self, backend: str, **settings: str) -> Commander:
        number = next(self._numbers)
        own = {"dispatcher": self.target, "metrics_address": f"{NETWORK}.{number}:9465"} | settings
        program = self._stack.enter_context(commander("", self._folder / f"commander-{number}.log", backend, **own))
        return Commander(program, own["metrics_address"])

    def haproxy(self) -> "Edge":
        return self._stack.enter_context(edge(self._folder / "haproxy.log", self.names))


class Edge:
    """HAProxy before the replicas. url: for users. target: for Commanders. pid: the master's."""

    def __init__(self, addresses: dict[str, str], pid: int) -> None:
        self.url, self.target = f"http://{addresses['http']}", f"dns:///{addresses['grpc']}"
        self.operator, self._metrics = addresses["operator"], addresses["metrics"]
        self.pid = pid

    def ready(self, part: str = "requests") -> float:
        """Replicas to which what comes to that part of its configuration is sent."""
        return figure(self._metrics, f'haproxy_backend_active_servers{{proxy="{part}"')

    def began(self) -> float:
        """When the process did that takes new connections: whole Unix seconds."""
        return figure(self._metrics, "haproxy_process_start_time_seconds")


@contextlib.contextmanager
def edge(log: Path, names: NameServer, **variables: str) -> Iterator[Edge]:
    """HAProxy with the project's configuration until the block ends. variables: that it asks for besides."""
    need("haproxy")
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("http", "operator", "grpc", "metrics")}
    variables |= {f"{name.upper()}_BIND": address for name, address in addresses.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["haproxy", "-W", "-db", "-f", str(CONFIGURATION)],
            env=os.environ | variables | {"RESOLVER": names.address, "DISPATCHERS": NAME},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Edge(addresses, process.pid)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


@contextlib.contextmanager
def replicas(folder: Path) -> Iterator[Replicas]:
    """Replicas, none started yet, until the block ends."""
    with contextlib.ExitStack() as stack:
        names = stack.enter_context(name_server())
        redis = stack.enter_context(redis_server(folder / "redis"))
        yield Replicas(folder, stack, redis, names)
