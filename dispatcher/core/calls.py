"""A session's tool calls: which are open, what each needs next, who awaits their results (rules 15 to 17 and 40)."""

from collections.abc import Callable, Container, Iterable

from msgspec.structs import replace

from dispatcher.core.effects import AppendWithoutEpoch, AskApproval, CancelTools, Effect, RunTool, SendResult, Wake
from dispatcher.core.entries import Call, Decision, Entry, Started
from dispatcher.core.log import Head
from dispatcher.core.packets import abandoned
from shared.records import MAX_OPEN_CALLS, ToolResult


class SessionCalls:
    """approval: of a tool's name, who has to approve its calls, as in `Call`. awaited: the results that whoever opens
    the session waits for; None: it is not known yet. unsent: results of which it is not known that their stream has
    them; it may be full.
    """

    def __init__(self, instance: str, approval: Callable[[str], str], awaited: Container[str] | None = None) -> None:
        self.unsent = 0
        self._instance, self._approval, self._opener = instance, approval, awaited
        self._open: dict[str, Call] = {}  # without a result, by call_id
        self._used: set[str] = set()  # call_ids, of all calls
        self._results: dict[str, int] = {}  # of the log as it was found, for whoever opens the session: offsets
        self._awaited: set[str] = set()  # call_ids

    @property
    def full(self) -> bool:
        """As many are open as may be: the next waits for a result (rule 16)."""
        return len(self._open) + self.unsent >= MAX_OPEN_CALLS

    # ---- of a packet

    def made(self, tool_name: str, arguments_json: str, call_id: str) -> Call:
        """As it came: policies read it next."""
        return Call(tool_name, arguments_json, call_id, self._instance, refused=call_id in self._used)

    def take(self, call: Call, denied: bool) -> Call:
        """As it goes into the log. denied: by policies."""
        approval = "" if denied or call.refused else self._approval(call.tool_name)
        call = replace(call, denied=denied, approval=approval)
        if not call.refused:
            self._used.add(call.call_id)
            self._open[call.call_id] = call
        return call

    # ---- of the log

    def remember(self, body: Call | ToolResult, head: Head) -> None:
        """It stands in the log."""
        if isinstance(body, ToolResult):
            self._open.pop(body.call_id, None)
        elif not body.refused:
            self._used.add(body.call_id)
            if body.call_id in head.calls:
                self._open[body.call_id] = body

    def logged(self, call: Call, head: Head, stopped: bool, now: float) -> list[Effect]:
        """It was just logged: its result is awaited where the call came in."""
        if call.instance == self._instance:
            self._awaited.add(call.call_id)
        return self.pursue(call.call_id, head, stopped, now)

    def pursue(self, call_id: str, head: Head, stopped: bool, now: float) -> list[Effect]:
        """What a call without a result needs next."""
        call, logged = head.calls.get(call_id), self._open.get(call_id)
        if call is None or logged is None:
            return []  # it has its result; or its entry is still to come
        if call.instance:
            mine = call.instance == self._instance
            return [CancelTools() if stopped else RunTool(logged)] if mine else []
        if stopped or head.final:
            return abandon(head, now)
        if not call.asked:
            return [AskApproval(logged)]
        if call.approved:
            return [AppendWithoutEpoch(Entry(Started(call_id, call.tool_name, self._instance), now))]
        return [expiry(head)]

    # ---- results

    def found(self, result: ToolResult, offset: int) -> None:
        """It stands in the log that the session is rebuilt from."""
        if self._opener is None or result.call_id in self._opener:
            self._results[result.call_id] = offset

    def await_results(self, call_ids: Iterable[str]) -> list[SendResult]:
        """Whoever has opened the session waits for these: what was found of them; the others when they are logged."""
        results, self._results = self._results, {}
        self._awaited = set(call_ids) - results.keys()
        found = [SendResult(None, results[call_id]) for call_id in call_ids if call_id in results]
        self.unsent = len(found)
        return found

    def awaited(self, call_id: str) -> bool:
        """Its result is logged now. Whether it is waited for, which it then is no more."""
        waited = call_id in self._awaited
        self._awaited.discard(call_id)
        return waited


# ---- calls that have to be approved


def abandon(head: Head, now: float) -> list[Effect]:
    """Nobody needs to approve anything any more."""
    calls = [(call_id, call) for call_id, call in head.calls.items() if not call.instance]
    return [AppendWithoutEpoch(Entry(abandoned(call_id, call.tool_name), now)) for call_id, call in calls]


def expiry(head: Head) -> Wake:
    """When the next call expires."""
    return Wake("approval", min((call.expires_at for call in head.calls.values() if call.waits), default=None))


def expired(head: Head, now: float) -> list[Effect]:
    """That time has come."""
    over = [each for each in head.calls.items() if each[1].waits and each[1].expires_at <= now]
    expire = [Decision(call_id, "expire", "dispatcher", call.arguments_sha256) for call_id, call in over]
    return [AppendWithoutEpoch(Entry(decision, now)) for decision in expire] or [expiry(head)]
