"""What `dispatcher.live` adds to the cores after an outage is needed, as the model's instances have it: each rule is
the net of another, so a promise breaks only where both are out.
"""

from contextlib import ExitStack

import pytest

from tests.model.commanders import scripted
from tests.model.mutants import Mutant
from tests.model.scenarios import WHOLE
from tests.model.search import search
from tests.model.test_core_mutants import OWN, STUCK

REPEATED = Mutant("tests.model.runners:Post.may_append", " and not self.takes_back")
BELIEVED = Mutant("tests.model.runners:Post.says_nothing", " and self.takes_back", " and False")
NO_GRACE = Mutant("tests.model.instances:Instances.look", " and post.unattended", " and False")

# The rule, what takes it out with what would catch it, where it is missed, and the promise that breaks.
RULES: dict[str, tuple[tuple[Mutant, ...], str, str]] = {
    "an append waits for the answer of a take-back": ((REPEATED, BELIEVED), "an outage and a late answer", OWN),
    "a refusal under an outdated epoch says nothing": ((BELIEVED, REPEATED), "an outage and a late answer", OWN),
    "who has it and closed it begins its grace": (
        (NO_GRACE, REPEATED, BELIEVED),
        "a Commander killed in an outage",
        STUCK,
    ),
}


def broken(mutants: tuple[Mutant, ...], scenario: str) -> str:
    with scripted(), ExitStack() as stack:
        for mutant in mutants:
            stack.enter_context(mutant.applied())
        return search(WHOLE[scenario].whole(), limit=60_000).broken


@pytest.mark.parametrize("rule", RULES)
def test_without_the_rule_and_its_nets_a_promise_breaks(rule: str) -> None:
    mutants, scenario, promise = RULES[rule]
    assert broken(mutants, scenario) == promise


@pytest.mark.parametrize("rule", RULES)
def test_without_the_rule_alone_its_net_holds(rule: str) -> None:
    mutants, scenario, _ = RULES[rule]
    assert broken(mutants[:1], scenario) == ""


def test_the_grace_is_the_net_below_the_other_two() -> None:
    assert broken((REPEATED, BELIEVED), "a Commander killed in an outage") == ""
