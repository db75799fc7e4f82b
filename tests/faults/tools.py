"""The tools' file: one tool of each kind, of services behind the proxies, and two that somebody has to approve."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.faults.agents import APPROVALS, TOOL
from tests.faults.machines import SERVICES
from tests.faults.services import PACKAGE, SCHEMA, SERVICE, descriptor_set

SERVED = ("http", "mcp", "grpc")  # the kinds of services that are programs of their own
TIMEOUT_SECONDS = 60.0  # longer than anything that breaks
APPROVAL_SECONDS = 6.0

FILE = """\
# {changed}
[[tool]]
name = "{note}"
kind = "local"
use = "tests.faults.agents:note"
timeout_seconds = 60

{http}
[[toolset]]
name = "crm"
kind = "openapi"
spec = "crm.json"
base_url = "http://127.0.0.1:{ports[http]}"
private = true
timeout_seconds = {timeout}

[[toolset]]
name = "web"
kind = "mcp"
url = "http://127.0.0.1:{ports[mcp]}/mcp"
prefix = "mcp_"
private = true
timeout_seconds = {timeout}

[[toolset]]
name = "child"
kind = "mcp"
command = {command}
prefix = "stdio_"
timeout_seconds = {timeout}

[[toolset]]
name = "rpc"
kind = "grpc"
target = "127.0.0.1:{ports[grpc]}"
services = ["{package}.{service}"]
descriptor_set = "rig.binpb"
private = true
tls = false
timeout_seconds = {timeout}
"""
HTTP = """\
[[tool]]
name = "{name}"
kind = "http"
url = "http://127.0.0.1:{port}/act"
private = true
schema_file = "act.json"
timeout_seconds = {timeout}
"""


class ToolFile:
    """In that folder, for all Dispatchers."""

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self.path = folder / "tools.toml"
        self._ports = ports
        self._changes = 0
        self._command = [sys.executable, str(SERVICES), "stdio", str(folder / "served")]
        operation = {
            "operationId": "crm_act",
            "requestBody": {"required": True, "content": {"application/json": {"schema": SCHEMA}}},
            "responses": {"200": {"description": "Done."}},
        }
        document = {
            "openapi": "3.0.3",
            "info": {"title": "crm", "version": "1"},
            "paths": {"/act": {"post": operation}},
        }
        (folder / "crm.json").write_text(json.dumps(document))
        (folder / "act.json").write_text(json.dumps(SCHEMA))
        (folder / "rig.binpb").write_bytes(descriptor_set())
        self.change()

    def change(self) -> None:
        """Every tool and toolset of a service is another one from now on, as an operator's change makes it."""
        self._changes += 1
        timeout = TIMEOUT_SECONDS + self._changes / 1000
        port = self._ports["http"]
        tools = [HTTP.format(name="http_act", port=port, timeout=timeout)]
        for name, who in APPROVALS.items():
            approval = f'approval = "{who}"\napproval_seconds = {APPROVAL_SECONDS}\n'
            tools.append(HTTP.format(name=name, port=port, timeout=timeout) + approval)
        new = self.path.with_suffix(".new")
        new.write_text(
            FILE.format(
                changed=self._changes,
                note=TOOL,
                http="\n".join(tools),
                ports=self._ports,
                command=json.dumps(self._command),
                package=PACKAGE,
                service=SERVICE,
                timeout=timeout,
            )
        )
        new.replace(self.path)  # whole, for whoever reads it
