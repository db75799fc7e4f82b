import json

import pytest

from dispatcher.policies.matches import Action
from dispatcher.policies.outcomes import Hit, Reading, Violation
from dispatcher.policies.rules import PhrasesPolicy, RuleSet
from dispatcher.policies.tool_rules import ToolSelector, ToolsPolicy


def broken(
    call: tuple[str, str], allow: list[ToolSelector] | None = None, deny: list[ToolSelector] | None = None
) -> str:
    """The detail of the violation; empty: there is none."""
    gate = RuleSet([ToolsPolicy("tools", tuple(allow or ()), tuple(deny or ()))]).gate(0.0)
    violation = gate.arguments(*call, 1.0).violation
    return violation.detail if violation else ""


SHELL = ToolSelector("shell")
FETCH = ToolSelector("fetch", "url", r"https://example\.com/.*")
LOCAL = ToolSelector("fetch", "url", r"//(?:localhost|127\.)")
ANYWHERE = ToolSelector("fetch", "", "(?i)passw")
NESTED = ToolSelector("fetch", "options.headers.Cookie")
TEXT = ToolSelector("note", "text", ".*")


def fetch(**arguments: object) -> tuple[str, str]:
    return "fetch", json.dumps(arguments)


@pytest.mark.parametrize(
    ("call", "fits"),
    [
        (("shell", "{}"), True),
        (("shell", "not JSON"), True),
        (("Shell", "{}"), False),
        (fetch(url="http://localhost/x"), True),
        (fetch(url=["http://a", {"deep": "http://127.0.0.1"}]), True),
        (fetch(url="http://ｌocal\u200bhost/"), True),  # in any disguise
        (("fetch", '{"url": "http://\\u006cocalhost"}'), True),
        (("fetch", '{"url": "http://localhost", "url": "http://a"}'), True),
        (fetch(url="http://a", q="//localhost"), False),
        (("fetch", '{"url": "http://localhost"'), True),  # whether it is there cannot be told
        (fetch(q="my PASSWORD"), True),
        (fetch(q=1, password=2), True),
        (fetch(options={"headers": {"Cookie": None}}), True),
        (fetch(options={"headers": [{"Cookie": "x"}]}), True),
        (fetch(options={"Cookie": "x"}), False),
        (("note", "{}"), False),
    ],
)
def test_what_is_denied(call: tuple[str, str], fits: bool) -> None:
    detail = broken(call, deny=[SHELL, LOCAL, ANYWHERE, NESTED])
    assert bool(detail) == fits
    assert not detail or detail.startswith("`deny` entry ")


@pytest.mark.parametrize(
    ("call", "fits"),
    [
        (("shell", "{}"), True),
        (fetch(url="https://example.com/a"), True),
        (fetch(url=["https://example.com/a", "https://example.com/b"]), True),
        (fetch(url="https://example.com/a", q="x"), True),
        (fetch(url="https://example.com"), False),
        (fetch(url="see https://example.com/"), False),
        (fetch(url=["https://example.com/a", "http://a"]), False),
        (("fetch", '{"url": "https://example.com/", "url": "http://a"}'), False),
        (fetch(url="https://exam\u200bple.com/"), False),  # as it stands, not as it looks
        (fetch(url="https://example.com/ａ"), False),
        (fetch(url=True), False),
        (fetch(), False),
        (("fetch", "not JSON"), False),
        (("note", '{"text": ""}'), True),
        (("note", '{"text": "any"}'), True),
        (("note", '{"text": "a\\nb"}'), False),  # a dot is no newline
        (("search", "{}"), False),
    ],
)
def test_what_is_allowed(call: tuple[str, str], fits: bool) -> None:
    detail = broken(call, allow=[SHELL, FETCH, TEXT])
    assert detail == ("" if fits else "no `allow` entry")


def test_alternatives_of_an_allowed_value_are_tried_to_its_end() -> None:
    allow = [ToolSelector("t", "x", "a|ab|abc")]
    for value, fits in (("a", True), ("ab", True), ("abc", True), ("abcd", False), ("xa", False)):
        assert (broken(("t", json.dumps({"x": value})), allow) == "") == fits


@pytest.mark.parametrize(
    ("action", "reading"),
    [
        ("stop", Reading(Violation("tools", "RiskControl", "`deny` entry 1"))),
        ("redact", Reading(None, "tools", (Hit("tools", "redact"),))),
        ("observe", Reading(None, "", (Hit("tools", "observe"),))),
    ],
)
def test_what_is_done(action: Action, reading: Reading) -> None:
    rules = RuleSet([ToolsPolicy("tools", (), (SHELL,), "RiskControl", action)])
    assert rules.gate(0.0).arguments("shell", "{}", 1.0) == reading
    assert rules.gate(0.0).arguments("search", "{}", 1.0) == Reading()
    assert rules.readers("arguments") == ("tools",)


def test_several_policies_each_have_their_say() -> None:
    first = ToolsPolicy("a", (ToolSelector("search"), SHELL))
    second = ToolsPolicy("b", (), (SHELL,), action="redact")
    words = PhrasesPolicy("c", ("rm",), action="redact")
    for policies in ((first, second, words), (words, second, first)):
        gate = RuleSet(policies).gate(0.0)
        reading = gate.arguments("shell", '{"x": "rm"}', 1.0)
        assert (reading.violation, bool(reading.denied), len(reading.hits)) == (None, True, 2)
        assert gate.arguments("other", "{}", 1.0).violation == Violation("a", "PolicyViolation", "no `allow` entry")
