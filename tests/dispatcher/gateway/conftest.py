"""The gateway behind real sockets."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from dispatcher.access.watch import Access
from dispatcher.gateway.app import operator_app, user_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from tests.dispatcher.gateway.fakes import FakeSessions


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


@pytest.fixture
def settings() -> DispatcherSettings:
    return DispatcherSettings(cors_origins=("https://app.example",), max_body_bytes=1024 * 1024)


@pytest.fixture
async def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
async def url(sessions: FakeSessions, settings: DispatcherSettings, metrics: Metrics) -> AsyncIterator[str]:
    """Where users reach it."""
    server = HttpServer(user_app(sessions, settings, metrics, Access(None)), bind("TEST", "127.0.0.1:0"))
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    sessions.closing.set()
    await server.close()


@pytest.fixture
async def operator_url(sessions: FakeSessions, registry: CollectorRegistry, metrics: Metrics) -> AsyncIterator[str]:
    server = HttpServer(operator_app(sessions, registry, metrics, Access(None)), bind("TEST", "127.0.0.1:0"))
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    sessions.closing.set()
    await server.close()


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
async def operator(operator_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=operator_url, timeout=30) as client:
        yield client
