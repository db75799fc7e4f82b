"""What must hold of calls that services carried out, and of those that somebody had to approve. Pure, as `oracle`."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.faults.agents import APPROVALS, TOOLSETS
from tests.faults.decisions import Asked
from tests.faults.schedule import LONG
from tests.faults.services import Seen, canonical, digest

SERVICE_OF = {"mcp_act": "mcp", "stdio_act": "stdio", "grpc_act": "grpc"}  # of the others: http
NOT_ASKED = {"unreachable", "unavailable", "session_ended"}  # codes that promise that nothing has left
LOST = "The connection was lost before the answer came"  # as the agent is told
ENDS = ("answered", "cancelled", "died")
# Before a call: what broke a connection that it finds in its place, and that is not noticed yet. A Dispatcher may have
# been paused meanwhile.
BEFORE_SECONDS = 5.0 + LONG[1]
# From a stop's entry in the log until a service sees it, over everything that is broken meanwhile.
STOP_SEEN_SECONDS = 40.0
# What takes a call's Dispatcher away, or its place in the store.
AWAY = {"dispatcher", "store", "redis"}
AWAY_SECONDS = 20.0  # a lease's end, and until that is judged


class Happened(NamedTuple):
    """A fault. what: `dispatcher`, `store` …; of a service, or the line to it, its kind. In Unix seconds."""

    what: str
    began: float
    ended: float


@dataclass(frozen=True)
class World:
    """broke: all that did; over: starts of services that have ended."""

    broke: Sequence[Happened] = ()
    over: frozenset[str] = frozenset()

    def broken(self, what: set[str], since: float, until: float) -> bool:
        return any(one.what in what and one.began <= until and one.ended >= since for one in self.broke)


def world(
    happened: Sequence[Happened], seen: Sequence[Seen], runs: Callable[[str], bool] = lambda start: True
) -> World:
    """Of a run that is over. A service that is a program of its own has one start after the other; of others' children
    `runs` says whether that start still runs.
    """
    last = {each.service: each.start for each in seen if each.event == "up"}
    over = {
        each.start
        for each in seen
        if (each.start != last[each.service] if each.service != "stdio" else not runs(each.start))
    }
    restarts = [each for each in seen if each.event == "died" or (each.event == "up" and each.service != "stdio")]
    return World([*happened, *(Happened(each.service, each.at, each.at) for each in restarts)], frozenset(over))


@dataclass(frozen=True)
class MadeCall:
    """A call of a session, from the session's log and the services' journal. result: its entry. state: the session's.
    stopped: when it was, in Unix seconds; 0: it was not.
    """

    call: Mapping[str, Any]
    result: Mapping[str, Any]
    seen: Sequence[Seen]
    state: str
    stopped: float
    approval: Sequence[Mapping[str, Any]] = ()
    decision: Sequence[Mapping[str, Any]] = ()
    started: Sequence[Mapping[str, Any]] = ()

    @property
    def tool(self) -> str:
        return str(self.call["tool_name"])

    @property
    def events(self) -> Counter[str]:
        return Counter(each.event for each in self.seen)


def faults(made: MadeCall, around: World) -> Iterator[str]:
    """Of a call of a service."""
    events = made.events
    if events["asked"] > 1 or events["began"] > 1 or len({each.key for each in made.seen}) > 1:
        yield f"its service was asked {events['asked']} times and began {events['began']} times"
    yield from _status(made, around)
    yield from _seen_end(made, around)
    if made.tool in APPROVALS:
        yield from _approved(made)
    elif made.approval or made.decision or made.started:
        yield "somebody was asked to approve it"


def error_of(result: Mapping[str, Any]) -> dict[str, str]:
    told = json.loads(result.get("result_json") or "{}")
    return dict(told.get("error", {})) if isinstance(told, dict) else {}


def code(result: Mapping[str, Any]) -> str:
    """Of a tool's error, as the agent gets it; empty: it is none."""
    return error_of(result).get("code", "") if result.get("status") == "TOOL_ERROR" else ""


def _status(made: MadeCall, around: World) -> Iterator[str]:
    events, status = made.events, made.result.get("status")
    error = error_of(made.result)
    match status:
        case "OK":
            if not events["answered"]:
                yield f"it is OK, and its service saw {dict(events)}"
        case "TOOL_ERROR" if error.get("code") in NOT_ASKED:
            if events["asked"]:
                yield f"its service was asked, and it is answered {error}"
        case "TOOL_ERROR" if error.get("code") == "broken_answer" and events["answered"]:
            pass  # the answer had begun
        case "UNKNOWN_TOOL" if made.tool in TOOLSETS:
            if events["asked"]:
                yield "its service was asked, and its tool is said to be unknown"
        case "UNKNOWN_OUTCOME":
            since, until = _begin(made) - BEFORE_SECONDS, made.result["at"]
            if str(error.get("message", "")).startswith(LOST):
                if not around.broken({SERVICE_OF.get(made.tool, "http")}, since, until):
                    yield f"its connection is said to be lost, and nothing broke it; its service saw {dict(events)}"
            elif not around.broken(AWAY, since - AWAY_SECONDS, until):
                yield f"its Dispatcher is said to be gone, and nothing broke it; its service saw {dict(events)}"
        case "CANCELLED" if made.state == "stopped" or (made.tool in APPROVALS and made.state == "failed"):
            pass
        case "DENIED" if made.tool in APPROVALS:
            pass
        case _:
            yield f"it is answered {status} {error}"


def _begin(made: MadeCall) -> float:
    return float((made.started[0] if made.started else made.call)["at"])


def _seen_end(made: MadeCall, around: World) -> Iterator[str]:
    """Whoever asked is gone, or has its answer; and a stop is soon seen."""
    end = next((each for each in made.seen if each.event in ENDS), None)
    if end is None:
        if made.seen and made.seen[0].start not in around.over:
            yield f"its service still acts for nobody: {dict(made.events)}"
    elif made.stopped and end.event == "cancelled" and end.at - made.stopped > STOP_SEEN_SECONDS:
        yield f"its service saw the stop after {end.at - made.stopped:.1f} s"


def _approved(made: MadeCall) -> Iterator[str]:
    if max(map(len, (made.approval, made.decision, made.started))) > 1:
        yield f"the log has {len(made.approval)} approvals, {made.decision} and {made.started}"
    arguments = canonical(json.loads(made.call["arguments_json"]))
    sha256 = digest(arguments)
    for asked in made.approval:
        if (asked["arguments_json"], asked["arguments_sha256"]) != (arguments, sha256):
            yield f"what was asked for is not what it does: {asked}"
    decided = made.decision[0] if made.decision else {"decision": "none"}
    if made.decision and decided["arguments_sha256"] != sha256:
        yield f"the decision is on other arguments: {decided}"
    if made.approval and made.decision:
        late = decided["at"] >= made.approval[0]["expires_at"]
        if late != (decided["decision"] == "expire"):
            yield f"it expires at {made.approval[0]['expires_at']}, and the decision is {decided}"
    if made.started and decided["decision"] != "approve":
        yield f"it was started, and the decision is {decided}"
    if made.seen and not made.started:
        yield "its service was asked before it was started"
    if any(each.sha256 != sha256 for each in made.seen if each.event == "asked"):
        yield "its service was asked for something else than what was approved"
    status = made.result.get("status")
    if (status == "DENIED") != (decided["decision"] in ("deny", "expire")):
        yield f"it is answered {status}, and the decision is {decided}"
    if status == "CANCELLED" and made.started and made.state != "stopped":
        yield "it was started, and is cancelled though nobody stopped the session"


def misled(asked: Asked, made: MadeCall) -> Iterator[str]:
    """What whoever decided was told, against the log."""
    log = made.decision[0]["decision"] if made.decision else "none"
    if made.approval and asked.event["arguments_sha256"] != made.approval[0]["arguments_sha256"]:
        yield f"a user was shown {asked.event}"
    if ("arguments" in asked.event) != (APPROVALS[made.tool] == "user"):
        yield f"a user was shown {asked.event}"
    for decision, sha256, (status, code) in asked.answers:
        wrong = sha256 != asked.event["arguments_sha256"]
        match status, code:
            case 202, _:
                fits = log == decision and not wrong
            case 409, "already_decided":
                fits = log not in (decision, "none", "expire")
            case 409, "approval_expired":
                fits = log == "expire"
            case 409, "call_ended":
                fits = log == "none" and made.state != "finished"
            case 409, "arguments_mismatch":
                fits = wrong
            case _:
                fits = False
        if not fits:
            yield f"{asked.by} said {decision} and was answered {status} {code}, the log says {log}"


def reused(seen: Sequence[Seen]) -> list[str]:
    """Keys of more than one call, over all sessions."""
    lines: dict[str, set[str]] = {}
    for each in seen:
        if each.key:
            lines.setdefault(each.key, set()).add(each.line)
    return [f"the key {key} is of the calls {sorted(of)}" for key, of in lines.items() if len(of) > 1]
