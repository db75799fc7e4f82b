"""Real Redis servers for tests: started on ports of their own, with their files in a folder of the test's."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dispatcher.store.redis.pipeline import pack
from tests.programs import free_port, need

START_SECONDS = 60.0
STOP_SECONDS = 60.0


class RedisServer:
    """`redis-server OPTIONS`. It may be stopped and started again on the same port with the same data."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        self._folder, self._options = folder, options
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0", *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                if not self.ask("PING").startswith(b"-LOADING"):
                    return
            if self._process.poll() is not None or time.monotonic() > until:
                printed = (self._folder / "redis.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"redis-server does not start; it printed:\n{printed}")
            time.sleep(0.02)

    def ask(self, *arguments: str | bytes) -> bytes:
        """The first 64 KiB of what it answers, as it came. Raises OSError."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(pack(*arguments))
            return connection.recv(65536)

    def option(self, name: str) -> str:
        """Of those that it was started with."""
        return self._options[self._options.index(f"--{name}") + 1]

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, also where it is stopped."""
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()


@contextlib.contextmanager
def redis_server(folder: Path, *options: str, port: int = 0) -> Iterator[RedisServer]:
    """A RedisServer until the block ends."""
    need("redis-server")
    server = RedisServer(folder, *options, port=port)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def redis_cluster(folder: Path, replicas: int = 0, timeout_ms: int = 30_000) -> Iterator[list[RedisServer]]:
    """Three masters, and so many replicas of each: the masters first. Until the block ends.

    timeout_ms: after which a server that is not heard of is taken for dead.
    """
    need("redis-server")
    with contextlib.ExitStack() as stack:
        servers = []
        for n in range(3 * (1 + replicas)):
            options = {"enabled": "yes", "port": str(free_port()), "node-timeout": str(timeout_ms)}
            own = [part for name, value in options.items() for part in (f"--cluster-{name}", value)]
            servers.append(stack.enter_context(redis_server(folder / str(n), *own)))
        buses = [server.option("cluster-port") for server in servers]
        for n, server in enumerate(servers):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", str(n + 1))
            if n:
                server.ask("CLUSTER", "MEET", "127.0.0.1", str(servers[0].port), buses[0])
        for n, slots in enumerate(((0, 5460), (5461, 10922), (10923, 16383))):
            servers[n].ask("CLUSTER", "ADDSLOTSRANGE", *map(str, slots))
        for server in servers:
            until(partial(answers, server, b"cluster_known_nodes:%d" % len(servers), "CLUSTER", "INFO"))
        for n, server in enumerate(servers[3:]):
            master = servers[n % 3].ask("CLUSTER", "MYID").split()[1].decode()
            until(partial(answers, server, b"OK", "CLUSTER", "REPLICATE", master))
        for server in servers:
            until(partial(answers, server, b"cluster_state:ok", "CLUSTER", "INFO"))
        for server in servers[3:]:
            until(partial(answers, server, b"master_link_status:up", "INFO", "replication"))
        yield servers


def answers(server: RedisServer, wanted: bytes, *arguments: str) -> bool:
    """Whether that stands in its answer."""
    return wanted in server.ask(*arguments)


def until(condition: Callable[[], bool]) -> None:
    """Return when it holds. Raises RuntimeError when that takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the servers have not come to terms")
        time.sleep(0.02)
