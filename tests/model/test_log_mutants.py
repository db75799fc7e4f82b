"""Each rule of the log is needed: without it, a search finds a promise broken."""

import pytest

from tests.model.mutants import Mutant
from tests.model.scenarios import LOG, Scenario
from tests.model.search import search

IMPOSTOR = "it is opened by somebody to whom it was not given"
SINCE = "though somebody was given the session since"
EARLIER = "an earlier Commander is given the session after a later one, or after it was given up"


def without(function: str, old: str, new: str = "") -> Mutant:
    return Mutant(f"dispatcher.core.log:{function}", old, new)


NOT_CURRENT = "            if refusal := _not_current(head, change.epoch):\n                return refusal\n"
REPETITION = "                return Applied(head)  # a repetition\n"

# The rule, what takes it out, where it is missed, and the promise that breaks.
RULES: dict[str, tuple[Mutant, str, str]] = {
    # rule 1: assignments
    "only what waits is assigned": (
        without("_assign", 'head.state != "waiting"', "False"),
        "nothing",
        "assigned, though somebody was given it since it was put among the waiting",
    ),
    "an assignment raises the generation": (
        without("_assign", "head.generation + 1", "head.generation or 1"),
        "three Commanders",
        EARLIER,
    ),
    "an assignment is an acquire": (
        without("_assign", "head.epoch + 1", "head.epoch"),
        "a lease and a takeover",
        f"taken over, {SINCE}",
    ),
    # rule 2: opening
    "a lower generation is fenced": (
        without("_acquire", "change.generation < head.generation or"),
        "nothing",
        EARLIER,
    ),
    "a generation is one Commander's": (
        without("_acquire", "change.commander_id != head.commander_id", "False"),
        "a power cut",
        EARLIER,
    ),
    "a higher generation becomes the stored one": (
        without("_acquire", "generation=change.generation,", "generation=head.generation,"),
        "a power cut and a cut",
        EARLIER,
    ),
    "an open shows its token": (
        without("_acquire", "not _may_open(record, change)", "False"),
        "an impostor",
        IMPOSTOR,
    ),
    "a token is of one assignment": (
        Mutant("dispatcher.core.tokens:assignment_token", "(session_id, generation, commander_id)", "(commander_id,)"),
        "an impostor",
        IMPOSTOR,
    ),
    "what is opened waits no more": (
        without("_acquire", '"running" if head.state == "waiting" else head.state', "head.state"),
        "a cut and a takeover",
        "assigned, though somebody was given it since it was put among the waiting",
    ),
    "an open raises the epoch": (
        without("_acquire", "head.epoch + 1", "head.epoch"),
        "a cut",
        f"failed, {SINCE}",
    ),
    # rule 4: appends
    "an append is of this epoch": (
        without("_append", "_other_epoch(head, change.epoch)", "None"),
        "a cut",
        f"failed, {SINCE}",
    ),
    "an append is of this Commander": (
        without("_append", "change.commander_id != head.commander_id", "False"),
        "a failover",
        "packet 1 is acked, and not in the log",
    ),
    "what is stored is skipped": (
        without("_append", "            if entry.sequence <= stored:\n                continue\n"),
        "an unanswered step",
        "Append is applied twice",
    ),
    "duplicates are looked for before the end": (
        without("_append", 'Applied(head) if 0 < highest <= stored else Refused("ended")', 'Refused("ended")'),
        "an unanswered step",
        "Append is applied, and refused when repeated: ended",
    ),
    "a gap is refused": (
        without("_append", "not sequence <= entry.sequence <= sequence + 1", "not sequence <= entry.sequence"),
        "a packet lost",
        "users get 'b' after ''",
    ),
    "nothing follows the Commander's end": (
        without("_append", "    if head.over:\n", "    if False:\n"),
        "a lease and a takeover",
        "a packet is appended after the Commander's end",
    ),
    "what waits does not grow": (
        without("_append", 'waiting" and fresh:', 'waiting" and fresh and sequence == stored:'),
        "a lease in a call",
        "assigned while a call has no result",
    ),
    "late conclusions end nothing that waits": (
        without("_append", 'entry.body.code == "no_commander"', "True"),
        "a lease and a takeover",
        "commander_lost ends a session that is waiting",
    ),
    "a final state is final": (
        without(
            "_added",
            "                if live:\n                    state =",
            "                if True:\n                    state =",
        ),
        "a stop",
        "the final state was stopped UserCancel, now it is failed",
    ),
    "nothing is released after it": (
        without("_added", 'released="", '),
        "a stop",
        "something is released after the end",
    ),
    "a stop is logged once": (
        without("_added", "if isinstance(body, StopEntry) and not live:", "if False:"),
        "a stop beside a policy's",
        "two stops stand in the log",
    ),
    "a stop ends what waits": (
        without("_added", 'over or state == "waiting", body.reason', "over, body.reason"),
        "two stops",
        "no end can be reached",
    ),
    # tools
    "the first result counts": (
        without("_settle", "if call_id in head.calls else Applied(head)"),
        "nothing",
        "Settle is applied twice",
    ),
    "a result answers its call": (
        without("_added", "calls.pop(body.call_id, None)", "pass"),
        "nothing",
        "Settle is applied twice",
    ),
    # rule 40: approvals
    "a call waits for its approval": (
        without("_added", 'instance = "" if body.approval else body.instance', "instance = body.instance"),
        "an approval",
        "a tool runs that nobody approved",
    ),
    "only what was approved is started": (
        without("_follows", "return call.approved and not call.instance", "return not call.instance"),
        "an approval",
        "a tool runs that nobody approved",
    ),
    "it is started once": (
        without("_follows", "return call.approved and not call.instance", "return call.approved"),
        "an approval",
        "Settle is applied twice",
    ),
    "it is asked about once": (
        without("_follows", "return not (call.asked or call.instance)", "return True"),
        "an approval",
        "Settle is applied twice",
    ),
    "the first decision counts": (
        without("_follows", "call.waits and", "call.asked and"),
        "an approval",
        "Settle is applied twice",
    ),
    "a decision is on these arguments": (
        without("_follows", "arguments_sha256 == call.arguments_sha256 and"),
        "an approval",
        "a call is approved under other arguments",
    ),
    "and in time": (
        without("_follows", ' and in_time == (decision != "expire")'),
        "an approval",
        "a call is approved after its time",
    ),
    "a denial is the call's result": (
        without("_settle", 'body.decision != "approve"', "False"),
        "an approval",
        "Settle is applied twice",
    ),
    "nothing is started after the end": (
        without("_settle", "head.final or not", "not"),
        "an approval and a stop",
        "a call is started after the end",
    ),
    # rule 8: silence
    "silence is of an epoch": (
        without("apply", f"        case Requeue():\n{NOT_CURRENT}", "        case Requeue():\n"),
        "a cut and a takeover",
        f"put among the waiting, {SINCE}",
    ),
    "it is put among the waiting once": (
        without("apply", f'            if head.state == "waiting":\n{REPETITION}'),
        "an unanswered step",
        "Requeue is applied twice",
    ),
    "a stopped session is not assigned": (
        without("apply", "if head.final:", "if False:"),
        "a stop",
        "the final state was stopped UserCancel, now it is waiting",
    ),
    "nor one with a call that has no result": (
        without("apply", "if head.calls:", "if False:"),
        "a Commander killed in a call",
        "assigned while a call has no result",
    ),
    "takeovers are counted": (
        without("apply", "head.takeovers + (not change.handed_over)", "head.takeovers"),
        "three, where two are enough",
        "1 Commanders were lost, and 0 are counted",
    ),
    "hand-overs are not": (
        without("apply", "head.takeovers + (not change.handed_over)", "head.takeovers + 1"),
        "a hand-over",
        "0 Commanders were lost, and 1 are counted",
    ),
    "who did not answer a stop is fenced": (
        without(
            "apply",
            "generation=head.generation + 1, epoch=head.epoch + 1, over=True",
            "epoch=head.epoch + 1, over=True",
        ),
        "a stop",
        EARLIER,
    ),
    "a fence is of an epoch": (
        without("apply", f"        case Fence():\n{NOT_CURRENT}", "        case Fence():\n"),
        "a stop",
        f"fenced off, {SINCE}",
    ),
    # many replicas
    "it is taken over from who is gone": (
        without("apply", "head.instance != gone or"),
        "a lease and a death",
        "taken over, though another took it over since",
    ),
    "what waits is nobody's to take over": (
        without("apply", 'head.instance != gone or head.state == "waiting"', "head.instance != gone"),
        "a lease and a takeover",
        "taken over, though it waits and is nobody's",
    ),
    "it is taken over on its epoch": (
        without("apply", "if refusal := _other_epoch(head, epoch):", "if refusal := None:"),
        "a lease and a takeover",
        f"taken over, {SINCE}",
    ),
    "it is taken over once": (
        without("apply", f"            if head.instance == instance:\n{REPETITION}"),
        "a lease unanswered",
        "TakeOver is applied, and refused when repeated: superseded",
    ),
    "taking back raises the epoch": (
        without("apply", "instance=instance, epoch=head.epoch + 1", "instance=instance"),
        "two leases",
        f"failed, {SINCE}",
    ),
    "it is taken back on its epoch": (
        without("apply", "if refusal := _not_current(head, epoch):", "if refusal := None:"),
        "a lease and a takeover",
        f"taken back, {SINCE}",
    ),
    "what waits cannot be taken back": (
        without(
            "apply",
            'if head.state == "waiting":\n                return Refused("gap")',
            "if False:\n                pass",
        ),
        "a lease and a takeover",
        "assigned, though somebody was given it since it was put among the waiting",
    ),
    "it is taken back once": (
        without("apply", f"            if head.instance == instance and head.epoch == epoch + 1:\n{REPETITION}"),
        "a lease unanswered",
        "TakeBack is applied, and refused when repeated: superseded",
    ),
}


READ_FIRST = (
    "A reads the history",
    "A assigns it to c1",
    "A sends the assignment",
    "Commander 1 opens it on stream 1 to A",
    "stream 1 delivers open",
)


@pytest.mark.parametrize("rule", RULES)
def test_without_the_rule_a_promise_breaks(rule: str) -> None:
    mutant, scenario, promise = RULES[rule]
    with mutant.applied():
        found = search(LOG[scenario].careless())
    assert found.broken == promise, found


def test_a_history_that_is_read_before_the_assignment_lacks_what_came_between() -> None:
    """Rule 1; who reads it stands in no function of the core, so the world does it wrong."""
    history_first = Scenario("a.", {"cuts": 1, "history_first": 1}, READ_FIRST)
    assert search(history_first.careless()).broken == "users get 'a' after 'a'"
