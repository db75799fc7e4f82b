"""The tool calls of one session that have to be approved, on their way to whoever decides (rule 40)."""

import asyncio

import structlog

from dispatcher.core.entries import Approval, Call
from dispatcher.live import clock
from dispatcher.live.ports import Owner
from dispatcher.tools.registry import FAILED, ApprovalRequest, ToolOutput, error_json
from shared.records import ToolResult

logger = structlog.get_logger()


class ApprovalRequests:
    """Of one session. A call is read by policies and checked first: what would not run is not asked about."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._under_way: dict[str, asyncio.Task[None]] = {}  # by call_id
        self._changed = asyncio.Event()

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

    def tell(self) -> None:
        """Something became of a call, or nothing will here."""
        self._changed.set()

    async def change(self) -> None:
        """Return when something has."""
        self._changed.clear()
        await self._changed.wait()

    async def _ask(self, call: Call) -> None:
        try:
            found = await self._check(call)
            if isinstance(found, ToolOutput):
                await self._owner.settle(ToolResult(call.tool_name, found.result_json, call.call_id, found.status))
            else:
                asked = (found.arguments_json, found.arguments_sha256, clock.now() + found.seconds)
                await self._owner.settle(Approval(call.call_id, call.tool_name, call.approval, *asked))
        finally:
            del self._under_way[call.call_id]
            self._owner.maybe_settled()

    async def _check(self, call: Call) -> ApprovalRequest | ToolOutput:
        """A fault of ours is no reason to leave the call without an answer."""
        try:
            return await self._owner.check_call(call)
        except Exception:
            logger.exception("tool_call_failed", tool=call.tool_name[:100], call_id=call.call_id[:100])
            return ToolOutput("TOOL_ERROR", error_json("tool_error", FAILED))
