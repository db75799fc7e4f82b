"""Each rule of the cores at both ends is needed: without it, a search finds a promise broken."""

import pytest

from tests.model.commanders import scripted
from tests.model.mutants import Mutant
from tests.model.scenarios import WHOLE
from tests.model.search import search

SESSION, CALLS = "dispatcher.core.session:Session.", "dispatcher.core.calls:SessionCalls."
COMMANDER, OUTBOX = "commander.session:Session.", "commander.outbox:Outbox."
STUCK = "no end can be reached"
OWN = "its Commander lets go of it, though it is still its own"

# The rule, what takes it out, where it is missed, and the promise that breaks.
RULES: dict[str, tuple[Mutant, str, str]] = {
    # the Dispatcher: packets
    "duplicates are dropped": (
        Mutant(SESSION + "receive", "if sequence <= self._accepted:", "if False:"),
        "a packet doubled",
        "users get 'a' after 'a'",
    ),
    "a gap begins the grace": (
        Mutant(SESSION + "receive", ', Wake("grace", now + self.limits.grace_seconds)]', "]"),
        "one Commander killed after a gap",
        STUCK,
    ),
    "an Ack follows its append": (
        Mutant(
            SESSION + "_take_in",
            "            packet = self._waiting.pop(0)\n",
            "            packet = self._waiting.pop(0)\n            effects.append(SendAck(at_once=True))\n"
            "            from msgspec.structs import replace\n"
            "            self.head = replace(self.head, sequence=packet.sequence)\n",
        ),
        "one Commander",
        "packet 1 is acked, and not in the log",
    ),
    "what is logged is acked": (
        Mutant(SESSION + "logged", "effects.append(SendAck(at_once or self._credit.half_used(logged)))", "pass"),
        "one Commander",
        STUCK,
    ),
    "what is decided is let out once": (
        Mutant(SESSION + "restored", "self._guard.resume(self.head.decided)", "pass"),
        "held text after a cut",
        "users get 'hb' after 'h'",
    ),
    "a full log does not grow": (
        Mutant(SESSION + "receive", "self._log_bytes >= self.limits.max_log_bytes", "False"),
        "a full log",
        "a log grows that is full",
    ),
    # tools
    "a tool runs once its call is logged": (
        Mutant(
            SESSION + "_take_in",
            "        return effects + self._ask()",
            "        from dispatcher.core.effects import RunTool\n"
            "        return effects + [RunTool(body) for body, *_ in taken if isinstance(body, Call)]",
        ),
        "nothing",
        "a tool runs that is not in the log",
    ),
    "whose call it is runs it": (
        Mutant(CALLS + "pursue", "mine = call.instance == self._instance", "mine = True"),
        "a lease",
        "a tool runs twice",
    ),
    "a call of an instance that is gone runs no more": (
        Mutant(CALLS + "pursue", "mine = call.instance == self._instance", "mine = True"),
        "a Dispatcher killed",
        "a tool runs twice",
    ),
    "a call runs whose append was not answered": (
        Mutant(SESSION + "restored", "*pursued, "),
        "a cut after an unanswered call",
        STUCK,
    ),
    "a call waits for another's result": (
        Mutant(SESSION + "_take_in", " and not self._too_many(self._waiting[0])"),
        "two calls at once",
        "more calls are open than may be",
    ),
    "what waited is taken in": (
        Mutant(SESSION + "sent", "self._waiting and not self.head.over", "False"),
        "two calls at once",
        STUCK,
    ),
    "results are sent again": (
        Mutant(
            CALLS + "await_results", "results, self._results = self._results, {}", "results, self._results = {}, {}"
        ),
        "a call after a cut",
        STUCK,
    ),
    # rule 40: approvals
    "a call that has to be approved is asked about": (
        Mutant(CALLS + "pursue", "return [AskApproval(logged)]", "return []"),
        "nobody decides",
        STUCK,
    ),
    "what nobody decides on expires": (
        Mutant(
            "dispatcher.core.session:expired",
            "[AppendWithoutEpoch(Entry(decision, now)) for decision in expire] or",
            "",
        ),
        "nobody decides",
        STUCK,
    ),
    "what is approved is started": (
        Mutant(
            CALLS + "pursue",
            "return [AppendWithoutEpoch(Entry(Started(call_id, call.tool_name, self._instance), now))]",
            "return []",
        ),
        "an approval",
        STUCK,
    ),
    "by whoever takes it over": (
        Mutant(SESSION + "restored", "*pursued, "),
        "an approval after a death",
        STUCK,
    ),
    "a fence cancels what nobody was told of": (
        Mutant(SESSION + "fenced", ", *abandon(self.head, now)"),
        "a stop before an unanswered call to approve",
        STUCK,
    ),
    # the stop
    "a stop is logged before it is sent": (
        Mutant(
            SESSION + "_take_in",
            "        return effects + self._ask()",
            "        return effects + ([SendStop(self.stop)] if self.stop else [])",
        ),
        "a policy's stop",
        "a stop is sent that is not in the log",
    ),
    "a stop is sent after Welcome": (
        Mutant(SESSION + "attach", "if self.stop and not self.head.over:", "if False:"),
        "a stop",
        "it is open, and nobody tells of its stop",
    ),
    "a stopped session is given up": (
        Mutant(SESSION + "_leave", "return [GiveUp()]", "return []"),
        "one Commander killed in a stop",
        STUCK,
    ),
    "calls are cancelled with it": (
        Mutant(SESSION + "fenced", "if self.head.calls", "if False"),
        "a stop before an unanswered call",
        STUCK,
    ),
    # rule 8: silence
    "a broken stream begins the grace": (
        Mutant(SESSION + "detach", 'return [Wake("grace", now + self.limits.grace_seconds)]', "return []"),
        "one Commander killed",
        STUCK,
    ),
    "an assignment begins it": (
        Mutant(SESSION + "await_open", "[] if self.head.over else [Wake(", "[] if True else [Wake("),
        "one Commander killed",
        STUCK,
    ),
    "only who can continue is taken over": (
        Mutant(SESSION + "_leave", "(self.head.continues or not self._spoken)", "True"),
        "a loss of an agent that cannot continue",
        "users get 'a' after 'a'",
    ),
    "takeovers are bounded": (
        Mutant(SESSION + "_leave", "self.head.takeovers < self.limits.takeovers", "True"),
        "three Commanders",
        "it is given to another Commander once too often",
    ),
    "hand-overs are no losses": (
        Mutant(SESSION + "_leave", "if self._handed_over:", "if False:"),
        "a hand-over",
        "a hand-over is counted as a loss, or a loss is not counted",
    ),
    # many replicas
    "who takes it back knows the epoch": (
        Mutant(SESSION + "taken_back", "        self.epoch = outcome.head.epoch\n"),
        "a lease",
        OWN,
    ),
    "a lower epoch is a gap": (
        Mutant("dispatcher.core.log:_other_epoch", '"superseded" if head.epoch > epoch else "gap"', '"superseded"'),
        "a failover",
        OWN,
    ),
    "nobody waits for what was refused": (
        Mutant(SESSION + "refused", "        self._accepted = self.head.sequence\n"),
        "a Commander killed before a failover",
        STUCK,
    ),
    # the Commander
    "what was not acked is sent again": (
        Mutant(OUTBOX + "welcome", "self._sent + self._again", "self._again"),
        "a cut",
        STUCK,
    ),
    "credit is kept to": (
        Mutant(OUTBOX + "_fits", "len(self._sent) < self._max_packets", "True"),
        "one Commander",
        "a Commander that keeps to the contract is said to have broken it",
    ),
    "what is said follows the history": (
        Mutant(OUTBOX + "__init__", "history or 0", "0"),
        "a takeover",
        "a Commander misses what was never lost",
    ),
    "lost data are told of": (
        Mutant(OUTBOX + "welcome", "if not self.acked <= sequence <= self.last:", "if False:"),
        "a power cut",
        "the log lost what was acked, and nobody says so",
    ),
    "a lost history is told of": (
        Mutant(OUTBOX + "welcome", "if self._begins_anywhere:", "if self.acked == self.last:"),
        "a power cut that takes a history",
        "it finishes, and users have got ''",
    ),
    "it holds it until its end is acked": (
        Mutant(COMMANDER + "take", "if self.outbox.settled:", "if self.outbox.ended:"),
        "one Commander",
        OWN,
    ),
    "it is opened again after a gap": (
        Mutant(
            COMMANDER + "_closed", 'closed.code in ("gap", "unavailable")\n        if again', "False\n        if again"
        ),
        "a packet lost",
        OWN,
    ),
    "it may have superseded itself": (
        Mutant(
            COMMANDER + "_closed",
            'self._open_unanswered if closed.code == "superseded"',
            'False if closed.code == "superseded"',
        ),
        "a cut in a move",
        OWN,
    ),
    "it moves before it leaves": (
        Mutant(COMMANDER + "_closed", 'closed.code in ("superseded", "gap", "unavailable"):', "False:"),
        "a cut in a move",
        OWN,
    ),
    "it is fenced for good": (
        Mutant(COMMANDER + "_closed", 'else closed.code in ("gap", "unavailable")', "else True"),
        "nothing",
        "a Commander is fenced off, and does not let go",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_without_the_rule_a_promise_breaks(rule: str) -> None:
    mutant, scenario, promise = RULES[rule]
    with scripted(), mutant.applied():
        found = search(WHOLE[scenario].whole(), limit=60_000)
    assert found.broken == promise, str(found)
