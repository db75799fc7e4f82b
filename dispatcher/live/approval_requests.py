"""The tool calls of one session that have to be approved, on their way to whoever decides (rule 40)."""

import asyncio

from dispatcher.core.entries import Approval, Call
from dispatcher.live import clock
from dispatcher.live.ports import Owner
from dispatcher.live.tool_runs import broken
from shared.records import ToolResult


class ApprovalRequests:
    """Of one session. A call is read by policies and checked first: what would not run is not asked about."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._under_way: dict[str, asyncio.Task[None]] = {}  # by call_id

    def __bool__(self) -> bool:
        return bool(self._under_way)

    def ask(self, call: Call) -> None:
        """Log that it waits for a decision, or its answer, unless that is under way."""
        if call.call_id not in self._under_way:
            self._under_way[call.call_id] = self._owner.host.spawn(self._ask(call))

    def cancel(self) -> None:
        """Nobody needs to decide any more; the core answers the calls."""
        for task in self._under_way.values():
            task.cancel()

    async def _ask(self, call: Call) -> None:
        try:
            await self._owner.settle(await self._check(call))
        finally:
            del self._under_way[call.call_id]
            self._owner.maybe_settled()

    async def _check(self, call: Call) -> Approval | ToolResult:
        try:
            found = await self._owner.check_call(call)
        except Exception as error:
            return broken(call, error)
        if isinstance(found, ToolResult):
            return found
        asked = (found.arguments_json, found.arguments_sha256, clock.now() + found.seconds)
        return Approval(call.call_id, call.tool_name, call.approval, *asked)
