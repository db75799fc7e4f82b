"""What becomes of a call on its way to whoever decides on it, whatever goes wrong there."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest
import structlog

from dispatcher.core.entries import Approval, Call
from dispatcher.live import clock
from dispatcher.live.approval_requests import ApprovalRequests
from dispatcher.live.ports import Owner
from dispatcher.tools.registry import ApprovalRequest
from shared.records import ToolResult

CALL = Call("pay", '{"n": 1}', "c1", "i1", approval="user")
REQUEST = ApprovalRequest('{"n":1}', "digest", 60)
REFUSED = ToolResult("pay", "{}", "c1", "INVALID_ARGUMENTS")


class FakeOwner:
    """check_call ends with `found` once it is let go; what is settled is kept."""

    def __init__(self, found: ApprovalRequest | ToolResult | Exception) -> None:
        self.found = found
        self.host = self
        self.let_go = asyncio.Event()
        self.checked = 0
        self.settled: list[ToolResult | Approval] = []
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def check_call(self, call: Call) -> ApprovalRequest | ToolResult:
        self.checked += 1
        await self.let_go.wait()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def settle(self, body: ToolResult | Approval) -> None:
        self.settled.append(body)

    def maybe_settled(self) -> None:
        pass

    async def done(self) -> None:
        self.let_go.set()
        async with asyncio.timeout(30):
            await asyncio.wait(self.tasks)


def requests_of(owner: FakeOwner) -> ApprovalRequests:
    return ApprovalRequests(cast("Owner", owner))


async def test_what_waits_is_logged_once_with_its_digest_and_time() -> None:
    owner = FakeOwner(REQUEST)
    requests = requests_of(owner)
    for _ in range(2):
        requests.ask(CALL)
    assert requests
    before = clock.now()
    await owner.done()
    (approval,) = owner.settled
    assert isinstance(approval, Approval)
    assert (approval.call_id, approval.tool_name, approval.approval) == ("c1", "pay", "user")
    assert (approval.arguments_json, approval.arguments_sha256) == ('{"n":1}', "digest")
    assert before + 60 <= approval.expires_at <= clock.now() + 60
    assert owner.checked == 1
    assert not requests


async def test_what_would_not_run_has_its_answer_at_once() -> None:
    owner = FakeOwner(REFUSED)
    requests_of(owner).ask(CALL)
    await owner.done()
    assert owner.settled == [REFUSED]


async def test_a_fault_of_ours_leaves_no_call_without_an_answer() -> None:
    owner = FakeOwner(RuntimeError("SECRET"))
    with structlog.testing.capture_logs() as logs:
        requests_of(owner).ask(CALL)
        await owner.done()
    (result,) = owner.settled
    assert isinstance(result, ToolResult)
    assert result.status == "TOOL_ERROR"
    assert "SECRET" not in result.result_json
    assert [line["event"] for line in logs] == ["tool_call_failed"]


@pytest.mark.parametrize("found", [REQUEST, REFUSED])
async def test_what_is_cancelled_is_answered_by_the_core(found: ApprovalRequest | ToolResult) -> None:
    owner = FakeOwner(found)
    requests = requests_of(owner)
    requests.ask(CALL)
    await asyncio.sleep(0)
    requests.cancel()
    await owner.done()
    assert not owner.settled
    assert not requests
