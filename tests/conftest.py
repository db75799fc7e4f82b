"""For all tests."""

import logging
import os
import signal
import ssl
from collections.abc import Iterator

# As the programs have it. C-core's own lines would stand in what tests read of standard error, now and then.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import httpcore2
import httpx2._config
import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests import programs
from tests.redis_servers import RedisServer, redis_cluster, redis_server

# Time proves nothing on a machine that is shared. Folders may have profiles of their own.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Programs that the tests start get Ctrl-C as on a terminal, also where the tests run in a shell's background, which
# ignores it for all its children. A handler here is the default there.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """HTTP servers here speak no TLS. Else each new client, in this process and in the programs that it starts, reads
    all of the system's certificates: 0.03 s of CPU.
    """
    none = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(httpcore2, "default_ssl_context", lambda **_: none)
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def patient_clients() -> Iterator[None]:
    """A request without a limit of its own waits for a busy machine: the package's own limit is 5 s."""
    usual = httpx2._config.DEFAULT_TIMEOUT_CONFIG
    with pytest.MonkeyPatch.context() as monkeypatch:
        for what in ("connect", "read", "write", "pool"):
            monkeypatch.setattr(usual, what, 60.0)
        yield


@pytest.fixture(autouse=True)
def logs_restored() -> Iterator[None]:
    """What a command configures when a test runs it in this process ends with that test."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers, root.level = handlers, level


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's environment has none of the pair."""
    for name in os.environ.keys() - programs.environment({}).keys():
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests of this process that need nothing of their own."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def patient_with_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server, or this process, that stands for a while is not away: no test is to be faster than that."""
    for module in ("pipeline", "store"):
        monkeypatch.setattr(f"dispatcher.store.redis.{module}.CONNECT_SECONDS", 30.0)


@pytest.fixture
def redis(shared_redis: RedisServer, patient_with_redis: None) -> RedisServer:
    """A server without data."""
    shared_redis.ask("FLUSHALL")
    return shared_redis


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def cluster(shared_cluster: list[RedisServer], patient_with_redis: None) -> list[RedisServer]:
    """Three servers without data, which make a cluster."""
    for server in shared_cluster:
        server.ask("FLUSHALL")
    return shared_cluster
