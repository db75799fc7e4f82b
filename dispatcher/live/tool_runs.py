"""The tool calls of one session that run here: each at most once, each with a result in the log (rules 15 and 16)."""

import asyncio
from collections.abc import Container, Coroutine, Mapping
from typing import Any

import structlog

from dispatcher.core.entries import Call
from dispatcher.core.log import OpenCall
from dispatcher.live.ports import Owner
from dispatcher.tools.registry import FAILED, error_json
from shared.records import ToolResult

logger = structlog.get_logger()

ANSWER_SECONDS = 5.0  # that another instance may take beyond a tool's time limit
BEFORE = "The session was stopped before the tool ran."
WHILE = "The session was stopped while the tool ran."
GONE = "The Dispatcher that ran this call is gone; whether the tool ran is not known."


def broken(call: Call, error: BaseException) -> ToolResult:
    """The result of a call where a fault of ours was around it, which is no reason to leave it without one."""
    logger.error("tool_call_failed", tool=call.tool_name[:100], call_id=call.call_id[:100], exc_info=error)
    return ToolResult(call.tool_name, error_json("tool_error", FAILED), call.call_id, "TOOL_ERROR")


class ToolRuns:
    """Of one session."""

    def __init__(self, owner: Owner) -> None:
        self._owner, self._instance = owner, owner.host.instance
        self._running: dict[str, asyncio.Task[ToolResult]] = {}  # by call_id, until the answer is in the log
        self._begun: set[str] = set()  # call_ids
        self._waiting: set[str] = set()  # call_ids, for their turn

    def __bool__(self) -> bool:
        return bool(self._running)

    def run(self, call: Call) -> None:
        """Run it, unless it was begun before."""
        if call.call_id not in self._begun:
            self._begun.add(call.call_id)
            self._waiting.add(call.call_id)
            task = asyncio.get_running_loop().create_task(self._run(call), name=f"tool {call.tool_name}")
            self._running[call.call_id] = task
            self._owner.host.spawn(self._answer(call, task))

    async def _run(self, call: Call) -> ToolResult:
        await self._owner.host.starts.turn(self._owner.session_id)
        self._waiting.remove(call.call_id)
        return await self._owner.run_call(call)

    async def _answer(self, call: Call, tool: "asyncio.Task[ToolResult]") -> None:
        """The tool's answer into the log; a tool may be cancelled, this never is."""
        try:
            await asyncio.wait({tool})
            if tool.cancelled():
                await self._cancelled(call.call_id, call.tool_name, BEFORE if call.call_id in self._waiting else WHILE)
            else:
                error = tool.exception()
                result = broken(call, error) if error else tool.result()
                with self._owner.host.starts.held(len(result.result_json)):
                    await self._owner.settle(result)
        finally:
            tool.cancel()
            del self._running[call.call_id]
            self._waiting.discard(call.call_id)
            self._owner.maybe_settled()

    def cancel(self, calls: Mapping[str, OpenCall]) -> None:
        """The session was stopped: cancel what runs, and answer this instance's other calls without a result."""
        for task in self._running.values():
            task.cancel()
        for call_id, call in calls.items():
            if call_id not in self._running and call.instance == self._instance:
                self._owner.host.spawn(self._cancelled(call_id, call.tool_name, BEFORE))

    def _cancelled(self, call_id: str, tool_name: str, message: str) -> Coroutine[Any, Any, None]:
        return self._owner.settle(ToolResult(tool_name, error_json("cancelled", message), call_id, "CANCELLED"))

    def settle_gone(self, calls: Mapping[str, OpenCall], alive: Container[str], now: float) -> None:
        """Calls of instances that are not `alive` (only this one is not among them), or that do not answer in time
        (rule 16): whether they ran cannot be known. One that was not started has not run. now: Unix seconds.
        """
        for call_id, call in calls.items():
            overdue = now - call.at > self._owner.host.registry.timeout(call.tool_name) + ANSWER_SECONDS
            if call.instance not in ("", self._instance) and (overdue or call.instance not in alive):
                result = ToolResult(call.tool_name, error_json("unknown_outcome", GONE), call_id, "UNKNOWN_OUTCOME")
                self._owner.host.spawn(self._owner.settle(result))
