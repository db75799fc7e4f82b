import asyncio
import json

import pytest
from grpc import aio
from pydantic_settings import SettingsConfigDict

from shared.channel import ClientKeepalive, ServerKeepalive, client_options, server_options
from shared.config import Settings, load
from shared.errors import ConfigError


class Example(Settings):
    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")
    keepalive: ServerKeepalive = ServerKeepalive()


def test_the_servers_published_values() -> None:
    assert dict(server_options(ServerKeepalive())) == {
        "grpc.so_reuseport": 0,
        "grpc.keepalive_time_ms": 5000,
        "grpc.keepalive_timeout_ms": 1000,
        "grpc.http2.ping_timeout_ms": 1000,
        "grpc.http2.min_ping_interval_without_data_ms": 5000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.bdp_probe": 0,
        "grpc.http2.lookahead_bytes": 16 * 1024,
        "grpc.http2.settings_timeout": 1000,
        "grpc.max_connection_idle_ms": 15000,
        "grpc.max_connection_age_ms": 300000,
        "grpc.max_concurrent_streams": 256,
        "grpc.max_receive_message_length": 1024 * 1024,
        "grpc.max_send_message_length": 16 * 1024 * 1024,
    }


def test_the_clients_values() -> None:
    options = dict(client_options(ClientKeepalive()))
    assert json.loads(str(options.pop("grpc.service_config"))) == {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ""},
    }
    assert options == {
        "grpc.enable_http_proxy": 0,
        "grpc.keepalive_time_ms": 10000,
        "grpc.keepalive_timeout_ms": 5000,
        "grpc.http2.ping_timeout_ms": 5000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.min_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 2000,
        "grpc.http2.write_buffer_size": 8 * 1024,
        "grpc.dns_min_time_between_resolutions_ms": 1000,
        "grpc.max_receive_message_length": 16 * 1024 * 1024,
        "grpc.max_send_message_length": 1024 * 1024,
    }


def test_the_environments_proxy_is_asked_only_where_that_is_set() -> None:
    assert dict(client_options(ClientKeepalive(), proxy=True))["grpc.enable_http_proxy"] == 1


def test_they_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_KEEPALIVE__BDP_PROBE", "true")
    assert dict(server_options(load(Example).keepalive))["grpc.http2.bdp_probe"] == 1
    monkeypatch.setenv("EXAMPLE_KEEPALIVE__TIME_MS", "0")
    with pytest.raises(ConfigError, match=r"^EXAMPLE_KEEPALIVE__TIME_MS: must be a whole number of at least 1"):
        load(Example)


async def test_a_second_server_on_the_same_port_is_refused() -> None:
    first = aio.server(options=server_options(ServerKeepalive()))
    port = first.add_insecure_port("127.0.0.1:0")
    await first.start()
    try:
        with pytest.raises(RuntimeError, match="Failed to bind"):
            aio.server(options=server_options(ServerKeepalive())).add_insecure_port(f"127.0.0.1:{port}")
    finally:
        await first.stop(None)


async def test_who_does_not_acknowledge_the_servers_settings_is_cut() -> None:
    patient = ServerKeepalive(time_ms=2**31 - 1, max_connection_idle_ms=2**31 - 1, timeout_ms=50)
    server = aio.server(options=server_options(patient))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))  # and its own
        async with asyncio.timeout(30):  # without our limit it is a minute
            told = await reader.read()
        assert b"settings_timeout" in told  # by GOAWAY
        writer.close()
    finally:
        await server.stop(None)
