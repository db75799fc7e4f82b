"""The oracle finds what it is there to find: each planted fault is a violation, and a sound session is none."""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.agents import TOOL, Script
from tests.faults.machines import GRACE_SECONDS
from tests.faults.oracle import Evidence, violations
from tests.faults.reader import Event, Reader

SCRIPT = Script("s1", words=4, every=2, seconds=0, file="")


def entry(offset: int, kind: str, sequence: int = 0, released: str = "", **data: Any) -> Event:
    common = {"at": 100.0 + offset / 10, "generation": 1, "sequence": sequence, "released": released}
    return Event(str(offset), kind, common | data)


def call(offset: int, sequence: int, number: int) -> list[Event]:
    """A call, its result, and what the agent saw."""
    call_id = f"call{number}"
    return [
        entry(offset, "call", sequence, call_id=call_id, tool_name=TOOL, arguments_json=f'{{"number": {number}}}'),
        entry(offset + 1, "tool_result", call_id=call_id, status="OK", result_json='"note"'),
        entry(offset + 2, "thought", sequence + 1, step_name="seen", delta=f"{number} OK"),
    ]


def log() -> list[Event]:
    return [
        entry(1, "assigned"),
        *call(2, 1, 0),
        entry(5, "content", 3, "s1.0 s1."),
        entry(6, "content", 4, "1 "),
        *call(7, 5, 1),
        entry(10, "content", 7, "s1.2 s1.3 "),
        entry(11, "finished", 7, finish_reason="stop"),
    ]


def read(events: list[Event], reader: Reader) -> Reader:
    """What a sound Dispatcher shows of that log."""
    for event in events:
        data = event.data
        match event.name:
            case "content":
                reader.take(Event(event.id, "content", {"text": data["released"]}))
            case "call":
                reader.take(Event(event.id, "tool_call", {"call_id": data["call_id"], "status": "RUNNING"}))
            case "tool_result":
                reader.take(Event(event.id, "tool_result", data))
            case "finished" | "failed":
                reader.take(Event(event.id, event.name, data))
            case "stop":
                reader.take(Event(event.id, "stopped", data))
                break
    return reader


def sound(events: list[Event], state: str = "finished", agent: str = "continuing", stop: bool = False) -> Evidence:
    readers = [read(events, Reader("one", [], random.Random(0))) for _ in range(2)]
    effects = {"one 0": 1, "one 1": 1}
    states = [{"state": state}, {"state": state}]
    return Evidence("one", agent, SCRIPT, stop, readers, [events, copy.deepcopy(events)], states, effects)


def test_a_sound_session_has_no_violation() -> None:
    assert violations(sound(log())) == []


class Dropping(Reader):
    """Loses its third event: a planted bug."""

    def take(self, event: Event) -> None:
        if event.id != "5":
            super().take(event)


class Doubling(Reader):
    """Takes a word twice, under an id of its own."""

    def take(self, event: Event) -> None:
        super().take(event)
        if event.id == "5":
            self.text += event.data["text"]


@pytest.mark.parametrize("reader", [Dropping, Doubling])
def test_a_lost_or_doubled_word_at_one_reader_is_found(reader: type[Reader]) -> None:
    evidence = sound(log())
    evidence.readers = [evidence.readers[0], read(log(), reader("one", [], random.Random(0)))]
    assert [text for text in violations(evidence) if "reader 1 has another text" in text]


def without(offset: int) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        del evidence.log[offset - 1]  # type: ignore[attr-defined]

    return change


def changed(offset: int, **data: Any) -> Callable[[Evidence], None]:
    return lambda evidence: evidence.log[offset - 1].data.update(data)


def effects(**lines: int) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.effects = {name.replace("_", " "): count for name, count in lines.items()}

    return change


def states(*seen: str) -> Callable[[Evidence], None]:
    def change(evidence: Evidence) -> None:
        evidence.states = [{"state": state} for state in seen]

    return change


def second_id(evidence: Evidence) -> None:
    evidence.readers[0].take(Event("11", "finished", {"finish_reason": "stop"}))


def no_last_event(evidence: Evidence) -> None:
    evidence.readers[0].final = None


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (without(5), "the log's text is not what the agent says"),
        (changed(5, released="s1.0 s1.0 s1."), "the log's text is not what the agent says"),
        (changed(6, sequence=5), "packet 5 stands after 3"),
        (changed(6, generation=0), "a packet of generation 0 stands after one of 1"),
        (changed(3, status="TIMEOUT"), "call 0 is answered TIMEOUT"),
        (changed(4, delta="0 UNKNOWN_OUTCOME"), "the agent got 'UNKNOWN_OUTCOME' for call 0"),
        (changed(7, arguments_json='{"number": 0}'), "the agent made the calls [0, 0]"),
        (without(8), "have the results"),
        (effects(one_0=2, one_1=1), "call 0 ran 2 times"),
        (effects(one_1=1), "call 0 ran 0 times, its status is OK"),
        (states("finished", "failed"), "replica 1 says"),
        (second_id, "id 11 after 11"),
        (second_id, "finished after finished"),
        (no_last_event, "reader 0 got no last event"),
    ],
)
def test_a_planted_fault_is_found(change: Callable[[Evidence], None], found: str) -> None:
    evidence = sound(log())
    change(evidence)
    assert [text for text in violations(evidence) if found in text], violations(evidence)


def lost(after: float, agent: str, *, spoken: bool = True, code: str = "commander_lost") -> Evidence:
    """A session that failed so many seconds after its last packet."""
    events = log()[: 5 if spoken else 1]
    events.append(entry(len(events) + 1, "failed", code=code))
    events[-1].data["at"] = events[-2].data["at"] + after
    return sound(events, "failed", agent)


def test_a_naive_session_may_be_lost_after_the_grace() -> None:
    assert violations(lost(GRACE_SECONDS, "naive")) == []


@pytest.mark.parametrize(
    ("evidence", "found"),
    [
        (lost(GRACE_SECONDS / 2, "naive"), "within the grace"),
        (lost(GRACE_SECONDS, "naive", spoken=False), "it has to be assigned again"),
        (lost(GRACE_SECONDS, "continuing"), "it ended failed"),
        (lost(GRACE_SECONDS, "naive", code="data_loss"), "it ended failed"),
    ],
)
def test_no_other_session_may_be_lost(evidence: Evidence, found: str) -> None:
    assert [text for text in violations(evidence) if found in text], violations(evidence)


def stopped() -> list[Event]:
    return [*log()[:6], entry(7, "stop", reason="UserCancel"), entry(8, "stopped", 5)]


def test_a_session_that_a_user_stopped_is_stopped() -> None:
    assert violations(sound(stopped(), "stopped", stop=True)) == []


def test_a_stop_that_nobody_asked_for_is_found() -> None:
    assert [text for text in violations(sound(stopped(), "stopped")) if "it ended stopped" in text]


def test_a_word_after_the_stop_is_found() -> None:
    events = [*log()[:5], entry(6, "stop", reason="UserCancel"), entry(7, "content", 4, "1 ")]
    found = violations(sound(events, "stopped", stop=True))
    assert [text for text in found if "something is let out after the end" in text], found
