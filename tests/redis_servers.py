"""Real Redis servers for tests: started on ports of their own, with their files in a folder of the test's."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.store.redis_link import pack
from tests.programs import free_port

START_SECONDS = 20.0
STOP_SECONDS = 10.0


def needed() -> None:
    """Skip the test where there is no redis-server; in CI there has to be one."""
    if not shutil.which("redis-server") and not os.environ.get("CI"):
        pytest.skip("redis-server is not installed (apt install redis-server)")


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
                [*command, "--save", "", "--appendonly", "no", *self._options],
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

    def ask(self, *arguments: str) -> bytes:
        """The first 64 KiB of what it answers, as it came. Raises OSError."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(pack(*arguments))
            return connection.recv(65536)

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
    needed()
    server = RedisServer(folder, *options, port=port)
    try:
        yield server
    finally:
        server.close()
