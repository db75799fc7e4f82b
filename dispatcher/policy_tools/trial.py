"""What a rule set would do: to a text in any split, and to a session as its log has it. Pure; for tools and tests.

Policies that are asked (`plugin`, `http`) get their verdicts from a function that is given; by default they let pass.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from dispatcher.core.entries import Call, Entry, Finished
from dispatcher.policies.gate import Gate
from dispatcher.policies.matches import Channel
from dispatcher.policies.outcomes import Hit, Reading, Release, Violation
from dispatcher.policies.questions import PASS, Question, Verdict, reading_of
from dispatcher.policies.rules import RuleSet
from shared.records import Content, Error, Thought, ToolResult


class Trial(msgspec.Struct, frozen=True):
    """shown: what users would see (of content). stopped: after so many pieces; None: never. denied: the policy that
    would redact what is not shown. held: the most raw characters that were held at once.
    """

    shown: str = ""
    violation: Violation | None = None
    stopped: int | None = None
    denied: str = ""
    hits: tuple[Hit, ...] = ()
    held: int = 0


class Found(msgspec.Struct, frozen=True):
    """What a rule set says to one entry of a log. offset: of the entry. released: what it lets out."""

    offset: int
    released: str = ""
    violation: Violation | None = None
    denied: str = ""
    hits: tuple[Hit, ...] = ()


def passes(question: Question) -> Verdict:
    return PASS


def try_text(
    rules: RuleSet,
    pieces: Iterable[str],
    channel: Channel = "content",
    tool_name: str = "",
    verdict: Callable[[Question], Verdict] = passes,
) -> Trial:
    """A text as it would come in these pieces. Arguments and results are JSON, and whole; each piece of a prompt is a
    message.
    """
    gate = rules.gate(0.0)
    gate.resume(0)
    if channel == "content":
        return _try_content(gate, pieces, verdict)
    if channel == "thoughts":
        return _try_thoughts(gate, pieces, verdict)
    texts = [*pieces]
    if channel == "prompt":
        reading = rules.prompt(texts)
    elif channel == "arguments":
        reading = gate.arguments(tool_name, "".join(texts), 0.0)
    else:
        reading = gate.result("".join(texts), 0.0)
    for policy in rules.asked(channel):
        question = Question(policy, 0, channel, tuple(texts), tool_name=tool_name)
        said = reading_of(question, verdict(question))
        reading = Reading(reading.violation or said.violation, reading.denied or said.denied, reading.hits + said.hits)
    return Trial("", reading.violation, len(texts) if reading.violation else None, reading.denied, reading.hits)


def try_log(
    rules: RuleSet, entries: Iterable[Entry], started_at: float, verdict: Callable[[Question], Verdict] = passes
) -> list[Found]:
    """A session as if it had run under these rules: what they say to its entries, up to where they stop it. Entries to
    which they say nothing are left out. started_at: Unix seconds, what time limits count from.
    """
    gate = rules.gate(started_at)
    gate.resume(0)
    found = []
    for entry in entries:
        for said in _say(gate, entry):
            answers = [said, *_answers(gate, verdict)] if not said.violation else [said]
            released = "".join(answer.text for answer in answers if isinstance(answer, Release))
            violation = next((answer.violation for answer in answers if answer.violation), None)
            denied = said.denied if isinstance(said, Reading) else ""
            hits = tuple(hit for answer in answers for hit in answer.hits)
            if released or violation or denied or hits:
                found.append(Found(entry.offset, released, violation, denied, hits))
            if violation:
                return found
    return found


def _say(gate: Gate, entry: Entry) -> Iterator[Release | Reading]:
    match entry.body:
        case Content(text):
            yield gate.content(text, entry.at)
        case Thought(step_name, delta):
            yield gate.thought(step_name, delta, entry.at)
        case Call(tool_name, arguments_json):
            yield gate.arguments(tool_name, arguments_json, entry.at)
        case ToolResult(result_json=result_json):
            yield gate.result(result_json, entry.at)
        case Finished() | Error(retryable=False):
            yield gate.end(entry.at)


def _answers(gate: Gate, verdict: Callable[[Question], Verdict]) -> Iterator[Release]:
    """Every question at once, and what follows."""
    while questions := gate.questions():
        for question in questions:
            yield gate.answered(question, verdict(question), 0.0)


def _try_content(gate: Gate, pieces: Iterable[str], verdict: Callable[[Question], Verdict]) -> Trial:
    shown: list[str] = []
    hits: list[Hit] = []
    held = count = 0
    for piece in [*pieces, None]:
        release = gate.end(0.0) if piece is None else gate.content(piece, 0.0)
        count += piece is not None
        for said in (release, *_answers(gate, verdict)):
            shown.append(said.text)
            hits += said.hits
            if said.violation:
                return Trial("".join(shown), said.violation, count, "", tuple(hits), held)
        held = max(held, gate.held)
    return Trial("".join(shown), hits=tuple(hits), held=held)


def _try_thoughts(gate: Gate, pieces: Iterable[str], verdict: Callable[[Question], Verdict]) -> Trial:
    hits: list[Hit] = []
    for count, piece in enumerate(pieces, 1):
        answers: list[Release | Reading] = [gate.thought("", piece, 0.0), *_answers(gate, verdict)]
        for said in answers:
            hits += said.hits
            if said.violation:
                return Trial(violation=said.violation, stopped=count, hits=tuple(hits))
    return Trial(hits=tuple(hits))
