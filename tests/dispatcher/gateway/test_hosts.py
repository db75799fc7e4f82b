"""Under which names the two addresses answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from dispatcher.access.watch import Access
from dispatcher.gateway import hosts
from dispatcher.gateway.app import operator_app, user_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.dispatcher.gateway.test_sessions import check_error

REFUSED = {"edge": "http", "kind": "host_not_allowed"}
FOREIGN = (
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil.example:127.0.0.1",
    "user@localhost",
    "localhost:8080:8080",
    "localhost, evil.example",
    "localhost ,",
    "10.0.0.1",
    "0.0.0.0",
    "[::2]",
    "[::1",
    "::1",
    "",
)


@asynccontextmanager
async def serving(address: str, *allowed: str, operator: bool = False) -> AsyncIterator[tuple[str, CollectorRegistry]]:
    sessions, registry = FakeSessions(), CollectorRegistry()
    metrics = Metrics(registry)
    users = user_app(sessions, DispatcherSettings(), metrics, Access(None))
    app = operator_app(sessions, registry, metrics, Access(None)) if operator else users
    listening = bind("TEST", address)
    server = HttpServer(hosts.checked(app, listening, allowed, partial(metrics.refused, "http")), listening)
    await server.start()
    host = "[::1]" if address.startswith("[") else "127.0.0.1"
    yield f"http://{host}:{server.port}", registry
    await server.close()


async def ask(url: str, host: str, path: str) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        return await client.get(url + path, headers={"Host": host})


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
async def test_on_loopback_it_goes_by_the_machines_own_names(address: str) -> None:
    async with serving(address) as (url, registry):
        for host in ("localhost", "LocalHost:1", "127.0.0.1", "127.8.8.8:8080", "[::1]", "[0:0:0:0:0:0:0:1]:80"):
            assert (await ask(url, host, "/v1/models")).status_code == 200, host
    assert registry.get_sample_value("dispatcher_refusals_total", REFUSED) == 0


@pytest.mark.parametrize("path", ["/operator/sessions", "/metrics", "/healthz", "/readyz", "/nowhere"])
@pytest.mark.parametrize("host", FOREIGN)
async def test_on_loopback_it_goes_by_no_other(host: str, path: str) -> None:
    async with serving("127.0.0.1:0", "api.example", operator=True) as (url, registry):
        error = check_error(await ask(url, host, path), 421, "Host")
        assert error["code"] == "host_not_allowed"
    assert registry.get_sample_value("dispatcher_refusals_total", REFUSED) == 1


async def test_allowed_names_are_added_on_loopback() -> None:
    async with serving("127.0.0.1:0", "api.example", "[fd00::1]") as (url, _):
        for host in ("api.example", "API.example:8443", "[fd00::1]:80", "localhost"):
            assert (await ask(url, host, "/v1/models")).status_code == 200, host


async def test_beyond_loopback_any_name_will_do_unless_some_are_allowed() -> None:
    async with serving("0.0.0.0:0") as (url, _):
        for host in FOREIGN:
            assert (await ask(url, host, "/v1/models")).status_code == 200, host
    async with serving("0.0.0.0:0", "api.example") as (url, _):
        assert (await ask(url, "api.example", "/v1/models")).status_code == 200
        for host in (*FOREIGN, "localhost", "127.0.0.1"):
            check_error(await ask(url, host, "/v1/models"), 421, "Host")


async def test_beyond_loopback_probes_come_by_any_name() -> None:
    for operator, paths in ((False, {"/healthz", "/readyz"}), (True, hosts.PROBES)):
        async with serving("0.0.0.0:0", "api.example", operator=operator) as (url, _):
            for path in paths:
                assert (await ask(url, "dispatcher:8080", path)).status_code == 200


async def test_a_probe_of_http_1_0_names_no_host() -> None:
    """HAProxy's checks."""
    async with serving("127.0.0.1:0") as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
