"""What both ends of the gRPC connection must agree on: keepalive, message limits and what may be under way.

The numbers and their reasons stand in `deploy/README.md` ("Keepalive"); the names are those that C-core reads.
"""

import json
from typing import Annotated, TypeAlias

from pydantic import Field

from shared.config import Section
from shared.records import MAX_MESSAGE_BYTES, MAX_UPSTREAM_BYTES

Options: TypeAlias = list[tuple[str, int | str]]
Milliseconds = Annotated[int, Field(ge=1, le=2**31 - 1)]

# Of one connection. A Commander has two; a proxy that has more opens another. A stream that says nothing, or that its
# client resets at once, still costs some 10 KiB: this bounds a flood of them.
MAX_CONCURRENT_STREAMS = 256

# Of a stream, on its way to a Dispatcher that has not read it: HTTP/2's window; and at the Commander, handed to gRPC
# and not sent. With C-core's 64 KiB each, some 1,400 small packets stood between the two wherever the Dispatcher was
# busy, a third of a second of its work. What has to wait at the Commander's outbox instead is joined there: 64 sessions
# of 50 tokens/s on a busy machine were 124 to 142 ms late at p50 in place of 146 to 389, and 64 floods brought 30 to
# 75 % more tokens. One larger packet is let through whole. A Commander 10 ms away can still send 1.6 MB/s.
AHEAD_BYTES = 16 * 1024
WRITTEN_BYTES = 8 * 1024


class ServerKeepalive(Section):
    """Milliseconds. Defaults: the published values."""

    time_ms: Milliseconds = 5000
    timeout_ms: Milliseconds = 1000
    ping_timeout_ms: Milliseconds = 1000
    min_ping_interval_ms: Milliseconds = 5000
    permit_without_calls: bool = True
    bdp_probe: bool = False
    max_connection_idle_ms: Milliseconds = 15000
    max_connection_age_ms: Milliseconds = 300000


class ClientKeepalive(Section):
    """Milliseconds. Slower than the server's minimum interval: a client that pings at exactly that has no margin."""

    time_ms: Milliseconds = 10000
    timeout_ms: Milliseconds = 5000
    ping_timeout_ms: Milliseconds = 5000
    permit_without_calls: bool = True
    max_pings_without_data: Annotated[int, Field(ge=0)] = 0
    initial_backoff_ms: Milliseconds = 200
    min_backoff_ms: Milliseconds = 200
    max_backoff_ms: Milliseconds = 2000
    min_resolution_interval_ms: Milliseconds = 1000


def server_options(keepalive: ServerKeepalive) -> Options:
    """Options of the gRPC server."""
    return [
        # On by default in C-core, on loopback too: a proxy meant for the web would be asked for the Dispatcher.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", keepalive.time_ms),
        # C-core arms keepalive_timeout_ms only together with the ping time limit.
        ("grpc.keepalive_timeout_ms", keepalive.timeout_ms),
        ("grpc.http2.ping_timeout_ms", keepalive.ping_timeout_ms),
        # What a server allows its clients; the spelling `min_recv_ping_…` is silently ignored.
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive.min_ping_interval_ms),
        ("grpc.keepalive_permit_without_calls", int(keepalive.permit_without_calls)),
        # Probes are pings too: under the ping time limit a peer starved for a second would be cut.
        ("grpc.http2.bdp_probe", int(keepalive.bdp_probe)),
        ("grpc.http2.lookahead_bytes", AHEAD_BYTES),
        # Before a peer has acknowledged our settings C-core takes 16 MiB of headers of it, in up to 48 MiB, and would
        # wait a minute; then 16 KiB.
        ("grpc.http2.settings_timeout", keepalive.timeout_ms),
        ("grpc.max_connection_idle_ms", keepalive.max_connection_idle_ms),
        # No grace: running streams are not cut by age.
        ("grpc.max_connection_age_ms", keepalive.max_connection_age_ms),
        ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
        ("grpc.max_receive_message_length", MAX_UPSTREAM_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]


def client_options(keepalive: ClientKeepalive, *, proxy: bool = False) -> Options:
    """Options of a Commander's channel: all addresses in turn, those that report themselves unhealthy left out.

    proxy   go through the environment's HTTP proxy (`grpc_proxy`, `https_proxy`, `http_proxy`)
    """
    return [
        # On by default in C-core, on loopback too: a proxy meant for the web would be asked for the Dispatcher.
        ("grpc.enable_http_proxy", int(proxy)),
        ("grpc.keepalive_time_ms", keepalive.time_ms),
        ("grpc.keepalive_timeout_ms", keepalive.timeout_ms),
        ("grpc.http2.ping_timeout_ms", keepalive.ping_timeout_ms),
        ("grpc.keepalive_permit_without_calls", int(keepalive.permit_without_calls)),
        ("grpc.http2.max_pings_without_data", keepalive.max_pings_without_data),
        ("grpc.initial_reconnect_backoff_ms", keepalive.initial_backoff_ms),
        ("grpc.min_reconnect_backoff_ms", keepalive.min_backoff_ms),
        ("grpc.max_reconnect_backoff_ms", keepalive.max_backoff_ms),
        ("grpc.http2.write_buffer_size", WRITTEN_BYTES),
        ("grpc.dns_min_time_between_resolutions_ms", keepalive.min_resolution_interval_ms),
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_UPSTREAM_BYTES),
    ]


# The empty name is the server's health as a whole: every server that has the health service knows it, and one without
# that service counts as healthy.
_SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})
