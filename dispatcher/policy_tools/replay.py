"""`dispatcher policy replay FILE`: today's rules over what a session's log holds, as the operator's routes give it."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from dispatcher.core.entries import Assigned, Body, Call, Entry, Finished
from dispatcher.policies.arguments import strings
from dispatcher.policies.outcomes import Hit
from dispatcher.policies.questions import Question, Verdict
from dispatcher.policies.rules import RuleSet
from dispatcher.policy_tools.trial import Found, passes, try_log, try_text
from shared.records import Content, Error, Thought, ToolResult, Unknown

SHOWN = 60  # characters of text on each side of a stop, where text is shown at all

LoggedEvent = tuple[int, str, dict[str, Any]]  # offset, kind, fields


class ReplayedStop(msgspec.Struct, frozen=True):
    """Where today's rules stop it. offset: of the entry; 0: the prompt.

    before   what was let out of content
    after    what was not, or what was read
    """

    offset: int
    channel: str
    policy: str
    reason: str
    detail: str
    before: str
    after: str


class Denial(msgspec.Struct, frozen=True):
    offset: int
    channel: str
    policy: str


class Replayed(msgspec.Struct, frozen=True):
    """One session. then: its state, and the policy that stopped it, if one did.

    stop         None: it is not stopped
    denials      calls and results that are denied, the prompt too
    hits         times that each policy redacted or observed
    let_out_then, let_out_today  characters of content that users got, and would get
    same_text    what they would get is what they got, as far as both go (where it was cut, rules hold more or less)
    """

    session_id: str
    then: str
    then_policy: str
    stop: ReplayedStop | None
    denials: tuple[Denial, ...]
    hits: dict[str, int]
    let_out_then: int
    let_out_today: int
    same_text: bool

    @property
    def differs(self) -> bool:
        """Today's rules would have done something else than was done."""
        return bool(self.stop) != bool(self.then_policy) or bool(self.denials) or not self.same_text


def replayed(
    rules: RuleSet,
    session: dict[str, Any],
    events: Iterable[LoggedEvent],
    ask: Callable[[Question], Verdict] = passes,
) -> Replayed:
    """session: as `GET /operator/sessions/{session_id}` gives it."""
    entries, then_policy = _entries(events)
    then = "".join(entry.released for entry in entries)
    started = next((entry.at for entry in entries if isinstance(entry.body, Assigned)), session["created_at"])
    prompt = _prompt(rules, session, ask)
    refused = bool(prompt.violation or prompt.denied)
    found = [prompt, *([] if refused else try_log(rules, entries, started, ask))]
    today = "".join(each.released for each in found)
    by_offset = {entry.offset: entry for entry in entries}
    told = session["reason"] or session["code"]
    return Replayed(
        session["session_id"],
        f"{session['state']} ({told})" if told else session["state"],
        then_policy,
        next((_stop(each, by_offset, today) for each in found if each.violation), None),
        tuple(Denial(each.offset, _channel(each, by_offset), each.denied) for each in found if each.denied),
        _times(hit for each in found for hit in each.hits),
        len(then),
        len(today),
        then.startswith(today) or today.startswith(then),
    )


def _times(hits: Iterable[Hit]) -> dict[str, int]:
    times = Counter[str]()
    for hit in hits:
        times[hit.policy] += hit.times
    return dict(times)


def _entries(events: Iterable[LoggedEvent]) -> tuple[list[Entry], str]:
    """What the log holds, up to where it was never for users; and the policy that stopped it there."""
    entries: list[Entry] = []
    for offset, kind, fields in events:
        if kind == "stop":
            return entries, str(fields["policy"])
        body = _body(kind, fields)
        entries.append(Entry(body, fields["at"], released=fields["released"], offset=offset))
        if isinstance(body, Finished):
            break
    return entries, ""


def _body(kind: str, fields: dict[str, Any]) -> Body:
    """What of an entry rules have to do with. Whatever ends the content is `Finished`."""
    match kind:
        case "content":
            return Content(fields["text"])
        case "thought":
            return Thought(fields["step_name"], fields["delta"])
        case "call":
            return Call(fields["tool_name"], fields["arguments_json"], fields["call_id"], "")
        case "tool_result":
            return ToolResult(fields["tool_name"], fields["result_json"], fields["call_id"], fields["status"])
        case "assigned":
            return Assigned(fields["generation"], "")
        case "agent_error" if fields["retryable"]:
            return Error(retryable=True)
        case "finished" | "failed" | "agent_error":
            return Finished()
        case _:
            return Unknown()


def _prompt(rules: RuleSet, session: dict[str, Any], ask: Callable[[Question], Verdict]) -> Found:
    texts = [message["content"] for message in session["messages"]] + strings(session["parameters_json"])
    trial = try_text(rules, texts, "prompt", verdict=ask)
    return Found(0, "", trial.violation, trial.denied, trial.hits)


def _channel(found: Found, by_offset: dict[int, Entry]) -> str:
    entry = by_offset.get(found.offset)
    match entry.body if entry else None:
        case None:
            return "prompt"
        case Thought():
            return "thoughts"
        case Call():
            return "arguments"
        case ToolResult():
            return "results"
        case _:
            return "content"


def _stop(found: Found, by_offset: dict[int, Entry], today: str) -> ReplayedStop | None:
    violation = found.violation
    if violation is None:
        return None
    channel = _channel(found, by_offset)
    before, after = "", ""
    match by_offset[found.offset].body if found.offset else None:
        case Thought(delta=text) | Call(arguments_json=text) | ToolResult(result_json=text):
            after = text
        case Content(text):
            raw = "".join(
                e.body.text for e in by_offset.values() if isinstance(e.body, Content) and e.offset <= found.offset
            )
            before, after = today, raw[len(today) :] if raw.startswith(today) else text
    return ReplayedStop(
        found.offset,
        channel,
        violation.policy,
        violation.reason,
        violation.detail,
        before[-SHOWN:],
        after[:SHOWN],
    )
