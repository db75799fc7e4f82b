"""What becomes of a stream that fails."""

from typing import Any, cast

import grpc
import pytest
from structlog.testing import capture_logs

from dispatcher.access.watch import Access
from dispatcher.grpc_edge import service
from dispatcher.grpc_edge.service import AgentInteraction
from dispatcher.live.desk import Desk


class Failing:
    """A stream that grpc takes away, as it does with those that are left when a server is stopped."""

    def __init__(self, *_: object) -> None:
        pass

    async def run(self) -> None:
        raise grpc.aio.BaseError("Server already stopped")

    def drain(self, reason: str) -> None:
        pass


class Context:
    """Of a call that is over."""

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        raise grpc.aio.UsageError("RPC already finished")


@pytest.mark.parametrize(("leaves", "told"), [(True, []), (False, ["stream_failed"])])
async def test_a_stream_that_ends_with_its_server_has_not_failed(
    monkeypatch: pytest.MonkeyPatch, leaves: bool, told: list[str]
) -> None:
    monkeypatch.setattr(service, "Stream", Failing)
    interaction = AgentInteraction(cast("Desk", None), Access(None))
    if leaves:
        interaction.drain()
    call: Any = interaction._chat_stream
    with capture_logs() as logs:
        await call(None, Context())
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == told
