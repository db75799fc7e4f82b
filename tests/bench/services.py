"""The services that the benchmark's tools ask: a call waits until it is stopped, and tells when it knows of that.

python -m tests.bench.services          http, mcp and grpc; prints their ports as JSON
python -m tests.bench.services stdio    a child of the Dispatcher's
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.agents import REPORT_SOCKET, Report, tell
from tests.faults.services import PACKAGE, SCHEMA, SERVICE, Http, Mcp, descriptor_set, grpc_server, stdio

ROOT = Path(__file__).resolve().parents[2]
# By what the benchmark calls them: the tools' names.
SERVED = {"http": "http_act", "openapi": "openapi_act", "mcp": "mcp_act", "stdio": "stdio_act", "grpc": "grpc_act"}
FILE = """
[[tool]]
name = "local"
kind = "local"
use = "tests.bench.tools:wait"
timeout_seconds = 60

[[tool]]
name = "http_act"
kind = "http"
url = "http://127.0.0.1:{ports[http]}/"
schema_file = "schema.json"
private = true
timeout_seconds = 60

[[toolset]]
name = "openapi"
kind = "openapi"
spec = "openapi.json"
base_url = "http://127.0.0.1:{ports[http]}"
private = true
timeout_seconds = 60

[[toolset]]
name = "mcp"
kind = "mcp"
url = "http://127.0.0.1:{ports[mcp]}/"
prefix = "mcp_"
private = true
timeout_seconds = 60

[[toolset]]
name = "stdio"
kind = "mcp"
command = {command}
env = {{ PYTHONPATH = "{root}", {socket} = "${{env:{socket}}}" }}
prefix = "stdio_"
timeout_seconds = 60

[[toolset]]
name = "grpc"
kind = "grpc"
target = "127.0.0.1:{ports[grpc]}"
services = ["{package}.{service}"]
descriptor_set = "grpc.binpb"
private = true
tls = false
timeout_seconds = 60
"""


def write_tools(file: Path, ports: Mapping[str, int]) -> None:
    """The tools' file, and beside it what it names. ports: of the services, by kind."""
    operation = {
        "operationId": SERVED["openapi"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": SCHEMA}}},
    }
    document = {"openapi": "3.1.0", "paths": {"/": {"post": operation}}}
    (file.parent / "openapi.json").write_text(json.dumps(document))
    (file.parent / "schema.json").write_text(json.dumps(SCHEMA))
    (file.parent / "grpc.binpb").write_bytes(descriptor_set())
    command = json.dumps([sys.executable, "-m", "tests.bench.services", "stdio"])
    file.write_text(
        FILE.format(ports=ports, command=command, root=ROOT, socket=REPORT_SOCKET, package=PACKAGE, service=SERVICE)
    )


class Waiting:
    async def call(
        self,
        key: str,
        arguments: dict[str, Any],
        left: Callable[[], Awaitable[object]],
        answer: Callable[[str], Awaitable[object]],
    ) -> None:
        """As `Calls` of the fault rig says; there is no answer."""
        report = arguments["line"]
        tell(Report(f"{report} begun", time.monotonic_ns(), b"", 0))
        try:
            await left()
        finally:
            tell(Report(report, time.monotonic_ns(), b"", 0))


async def serve() -> None:
    waiting = Waiting()
    ports = {}
    for kind, mcp in (("http", None), ("mcp", Mcp(waiting))):
        server = await asyncio.start_server(Http(waiting, mcp).serve, "127.0.0.1", 0)
        ports[kind] = server.sockets[0].getsockname()[1]
    grpc_service, ports["grpc"] = await grpc_server(waiting, 0)
    print(json.dumps(ports), flush=True)
    await grpc_service.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(stdio(Waiting()) if sys.argv[1:] == ["stdio"] else serve())
