from dispatcher.core.entries import Call, Entry, Finished
from dispatcher.policies.budget import Limit
from dispatcher.policies.matches import CHANNELS
from dispatcher.policies.outcomes import Hit, Violation
from dispatcher.policies.questions import AskedPolicy, Question, Verdict
from dispatcher.policies.rules import BudgetPolicy, PhrasesPolicy, RuleSet
from dispatcher.policy_tools.trial import Found, Trial, try_log, try_text
from shared.records import Content, Thought, ToolResult

EVERYWHERE = frozenset(CHANNELS)
STOP = PhrasesPolicy("s", ("stop",), EVERYWHERE)
REDACT = PhrasesPolicy("r", ("secret",), EVERYWHERE, action="redact")
ASKED = AskedPolicy("a", "plugin", "any:thing", reads=EVERYWHERE)
RULES = RuleSet([STOP, REDACT])


def no_birds(question: Question) -> Verdict:
    return Verdict("violation" if "bird" in question.text else "pass")


def test_content_in_any_split() -> None:
    for pieces in (["a secret day"], [*"a secret day"]):
        trial = try_text(RULES, pieces)
        assert (trial.shown, trial.violation, trial.stopped) == ("a [redacted] day", None, None)
        assert trial.hits == (Hit("r", "redact"),)
    assert try_text(RULES, [*"a secre"]).held == 5
    trial = try_text(RULES, ["a st", "op", " here"])
    assert (trial.shown, trial.stopped, trial.violation and trial.violation.policy) == ("a ", 2, "s")


def test_other_channels() -> None:
    assert try_text(RULES, ["a st", "op"], "thoughts").stopped == 2
    assert try_text(RULES, ["a st", "op"], "prompt") == Trial()
    assert try_text(RULES, ["a secret"], "prompt").denied == "r"
    assert try_text(RULES, ['{"a": "stop"}'], "arguments", "search").violation
    assert try_text(RULES, ['["secret"]'], "results").denied == "r"


def test_verdicts() -> None:
    rules = RuleSet([ASKED])
    assert try_text(rules, ["a ", "bird"]).shown == "a bird"
    for channel in CHANNELS:
        violation = try_text(rules, ["a bird"], channel, verdict=no_birds).violation
        assert violation == Violation("a", "PolicyViolation", f"verdict on {channel}")
    assert try_text(rules, ["a ", "bird"], verdict=no_birds).shown == "a "


def entries(*bodies: object) -> list[Entry]:
    return [Entry(body, float(at), offset=at) for at, body in enumerate(bodies, 1)]  # type: ignore[arg-type]


def test_a_log() -> None:
    log = entries(
        Content("a sec"),
        Thought("Planning", "nothing"),
        Content("ret night"),
        Call("t", '"secret"', "c", "i"),
        ToolResult("t", '"ok"', "c"),
        Finished(),
    )
    assert try_log(RULES, log, 0.0) == [
        Found(1, "a "),
        Found(3, "[redacted] night", hits=(Hit("r", "redact"),)),
        Found(4, denied="r", hits=(Hit("r", "redact"),)),
    ]
    stopped = try_log(RULES, entries(Content("a st"), Content("op"), Content("x")), 0.0)
    assert [found.offset for found in stopped] == [1, 2]
    assert stopped[-1].violation
    held = try_log(RULES, entries(Content("a st"), Finished()), 0.0)
    assert [found.released for found in held] == ["a ", "st"]


def test_a_log_with_times_and_verdicts() -> None:
    late = RuleSet([BudgetPolicy("limits", (Limit("max_seconds", 2, "limits", "Timeout"),))])
    (first, second) = try_log(late, entries(Content("a"), Content("b"), Content("c")), 0.5)[:2]
    assert (first.released, second.released) == ("a", "b")
    (found,) = try_log(RuleSet([ASKED]), entries(Content("a bird")), 0.0, no_birds)
    assert found.violation
