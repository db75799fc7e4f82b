"""What must hold of every session, whatever broke. Pure: evidence in, violations out, each a line.

A session whose agent can go on has to be finished with its whole text. The rest of what rules 8 and 20 allow: a naive
agent's session fails as `commander_lost`, if something of it was logged and its Commander was away for the grace, or
gave it back as it left; a session that somebody stopped is stopped. Then its text is a beginning of the whole one.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.faults.agents import APPROVALS, SEEN, TOOL, Script
from tests.faults.decisions import Asked
from tests.faults.machines import GRACE_SECONDS
from tests.faults.reader import Event, Reader
from tests.faults.served import MadeCall, World, code, faults, misled
from tests.faults.services import Seen

ENDS = {"finished": "finished", "stop": "stopped", "failed": "failed", "agent_error": "failed", "stopped": "failed"}
SHOWN = ("reason", "finish_reason", "code")  # of an end, to users too


@dataclass
class Evidence:
    """One session. logs and states: from each replica; effects: how often each line stands in the local tool's file;
    complete: the logs are over, for operators and the Commander too. seen: by services, of its calls; asked: on what
    calls somebody was to decide; around: what broke.
    """

    session_id: str
    agent: str
    script: Script
    stop_asked: bool
    readers: Sequence[Reader]
    logs: Sequence[Sequence[Event]]
    states: Sequence[Mapping[str, Any]]
    effects: Mapping[str, int]
    complete: bool = True
    seen: Sequence[Seen] = ()
    asked: Sequence[Asked] = ()
    around: World = field(default_factory=World)

    @property
    def log(self) -> Sequence[Event]:
        return self.logs[0]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.log if event.name == kind]

    @property
    def end(self) -> tuple[str, Mapping[str, Any]]:
        """The first stop or end in the log: (state, its data)."""
        for event in self.log:
            if event.name in ENDS and not event.data.get("retryable"):
                return ENDS[event.name], event.data
        return "none", {}

    def made(self, call: Mapping[str, Any]) -> MadeCall:
        """All that there is of a call."""
        call_id, line = call["call_id"], f"{self.session_id} {_number(call)}"

        def of(kind: str) -> list[dict[str, Any]]:
            return [entry for entry in self.of_kind(kind) if entry["call_id"] == call_id]

        state, end = self.end
        return MadeCall(
            call,
            (of("tool_result") or [{}])[0],
            [each for each in self.seen if each.line == line],
            state,
            end["at"] if state == "stopped" else 0.0,
            of("approval"),
            of("decision"),
            of("started"),
        )

    @property
    def generations(self) -> int:
        return len(self.of_kind("assigned"))


def violations(evidence: Evidence) -> list[str]:
    found = [*_texts(evidence), *_ends(evidence), *_log(evidence), *_tools(evidence)]
    return [f"session {evidence.session_id} ({evidence.agent}): {text}" for text in found]


def difference(text: str, expected: str) -> str:
    """Where they part."""
    at = next(
        (n for n, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b), min(len(text), len(expected))
    )
    return f"at {at}: …{text[max(0, at - 20) : at + 20]!r} instead of …{expected[max(0, at - 20) : at + 20]!r}"


def _texts(evidence: Evidence) -> Iterator[str]:
    whole, state = evidence.script.text, evidence.end[0]
    released = "".join(event.data["released"] for event in evidence.log)
    if state == "finished" and released != whole:
        yield f"the log's text is not what the agent says, {difference(released, whole)}"
    elif not whole.startswith(released):
        yield f"the log's text is no beginning of what the agent says, {difference(released, whole)}"
    for number, reader in enumerate(evidence.readers):
        yield from (f"reader {number}: {trouble}" for trouble in reader.trouble)
        if reader.text != released:
            yield f"reader {number} has another text, {difference(reader.text, released)}"


def _ends(evidence: Evidence) -> Iterator[str]:
    state, data = evidence.end
    for number, reader in enumerate(evidence.readers):
        if reader.final is None:
            yield f"reader {number} got no last event"
        elif reader.final[0] != state or any(reader.final[1].get(key) != data.get(key) for key in SHOWN):
            yield f"reader {number} got {reader.final}, the log says {state} {dict(data)}"
    for number, seen in enumerate(evidence.states):
        if seen.get("state") != state:
            yield f"replica {number} says {seen}, the log says {state}"
    if not evidence.complete:
        yield "it is over for its readers, but its log is not"
    if any(log != evidence.log for log in evidence.logs):
        yield "replicas show different logs"
    match state:
        case "finished":
            return
        case "stopped" if evidence.stop_asked and data["reason"] == "UserCancel":
            return
        case "failed" if evidence.agent == "naive" and data.get("code") == "commander_lost":
            yield from _lost(evidence, data)
        case _:
            yield f"it ended {state} {dict(data)}"


def _lost(evidence: Evidence, failed: Mapping[str, Any]) -> Iterator[str]:
    """Rule 8: after the grace, or given back; never where nothing was logged."""
    packets = [event for event in evidence.log if event.data["sequence"] and event.data["at"] <= failed["at"]]
    spoken = [event for event in packets if not event.data.get("retryable")]
    if not spoken:
        yield "it failed as commander_lost, but nothing was logged of it: it has to be assigned again"
    if packets and packets[-1].data.get("retryable"):
        return
    last = max(event.data["at"] for event in evidence.log if event.name == "assigned" or event in packets)
    if failed["at"] - last < GRACE_SECONDS - 0.01:
        yield f"it failed as commander_lost {failed['at'] - last:.2f} s after its last packet, within the grace"


def _log(evidence: Evidence) -> Iterator[str]:
    log = evidence.log
    if [int(event.id) for event in log] != list(range(1, len(log) + 1)):
        yield f"the log's offsets are {[event.id for event in log]}"
    packets = [event for event in log if event.data["sequence"]]
    if packets and packets[0].data["sequence"] != 1:
        yield f"the log's first packet is {packets[0].data['sequence']}"
    for before, after in pairwise(packets):
        step = after.data["sequence"] - before.data["sequence"]
        if not (step == 1 or (step == 0 and after.name in ("finished", "stop", "text"))):
            yield f"packet {after.data['sequence']} stands after {before.data['sequence']} in the log"
        if after.data["generation"] < before.data["generation"]:
            yield f"a packet of generation {after.data['generation']} stands after one of {before.data['generation']}"
    ends = [event.name for event in log if event.name in ENDS and not event.data.get("retryable")]
    if len(ends) > 1 and not (ends[0] == "stop" and len(ends) == 2):
        yield f"the log has the ends {ends}"
    over = next((n for n, event in enumerate(log) if event.name in ENDS and not event.data.get("retryable")), len(log))
    if any(event.data["released"] for event in log[over + 1 :]):
        yield "something is let out after the end"
    generations = [entry["generation"] for entry in evidence.of_kind("assigned")]
    if generations != sorted(set(generations)):
        yield f"it was assigned as generations {generations}"


def _tools(evidence: Evidence) -> Iterator[str]:
    script, state = evidence.script, evidence.end[0]
    calls = {call["call_id"]: _number(call) for call in evidence.of_kind("call")}
    results = {result["call_id"]: result["status"] for result in evidence.of_kind("tool_result")}
    told = {result["call_id"]: code(result) or result["status"] for result in evidence.of_kind("tool_result")}
    numbers = Counter(calls.values())
    expected = set(range(script.calls))
    if (set(numbers) != expected if state == "finished" else not set(numbers) <= expected) or max(
        numbers.values(), default=1
    ) > 1:
        yield f"the agent made the calls {sorted(numbers.elements())} of {script.calls}"
    if len(results) != len(evidence.of_kind("tool_result")) or results.keys() != calls.keys():
        yield f"the calls {calls} have the results {results}"
    allowed = {"OK", "UNKNOWN_OUTCOME"} | ({"CANCELLED"} if state == "stopped" else set())
    local = {call["call_id"] for call in evidence.of_kind("call") if call["tool_name"] == TOOL}
    for call_id, number in calls.items():
        if call_id not in local:
            continue
        status, ran = results.get(call_id), evidence.effects.get(f"{evidence.session_id} {number}", 0)
        if status not in allowed:
            yield f"call {number} is answered {status}"
        if ran > 1 or (ran == 0 and status == "OK"):
            yield f"call {number} ran {ran} times, its status is {status}"
    for call in evidence.of_kind("call"):
        if call["call_id"] not in local:
            made = evidence.made(call)
            of = f"call {_number(call)} of {call['tool_name']}"
            yield from (f"{of}: {text}" for text in faults(made, evidence.around))
            for asked in evidence.asked:
                if asked.event["call_id"] == call["call_id"]:
                    yield from (f"{of}: {text}" for text in misled(asked, made))
    for seen in evidence.of_kind("thought"):
        number, _, status = seen["delta"].partition(" ")
        logged = {told.get(call_id) for call_id, made in calls.items() if str(made) == number}
        if seen["step_name"] == SEEN and logged != {status}:
            yield f"the agent got {status!r} for call {number}, the log has {logged}"
    runs = [
        *evidence.of_kind("started"),
        *(each for each in evidence.of_kind("call") if each["tool_name"] not in APPROVALS),
    ]
    shown = [("tool_call", call["call_id"], "RUNNING") for call in runs]
    shown += [("tool_result", call_id, status) for call_id, status in results.items()]
    for number, reader in enumerate(evidence.readers):
        before = [item for item in reader.calls if item in shown]
        if len(reader.calls) != len(set(reader.calls)) or len(before) != len(reader.calls):
            yield f"reader {number} was shown the calls {reader.calls}, the log has {shown}"
        if state == "finished" and set(reader.calls) != set(shown):
            yield f"reader {number} was shown {len(reader.calls)} of {len(shown)} calls and results"


def _number(call: Mapping[str, Any]) -> int:
    return int(json.loads(call["arguments_json"])["number"])
