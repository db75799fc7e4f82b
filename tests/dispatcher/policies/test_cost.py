import pytest

from dispatcher.policies.cost import places_at_once
from dispatcher.policies.machine import MAX_AT_ONCE, Machine, Pattern
from dispatcher.policies.matches import Action, Rule
from dispatcher.policies.patterns import PatternStream
from dispatcher.policies.presets import PRESET_PLACES, PRESETS


@pytest.mark.parametrize(
    "expression",
    [
        r"[\s\S]{0,1000}x",
        "a{1000}",
        r"(?i)\w{0,900}zz",
        "(?:a?){500}a{500}",
        r"BEGIN[^\n]{0,800}END",  # again and again what it begins with
        r"\u4e2d{0,600}x",  # of a script of which no sample is
    ],
)
def test_what_a_text_makes_stand_at_many_places_is_beyond_the_bound(expression: str) -> None:
    assert places_at_once(expression, "redact") > MAX_AT_ONCE


@pytest.mark.parametrize(
    ("expression", "action", "places"),
    [
        ("abc", "redact", 1),
        (r"\bEMP-\d{6}\b", "redact", 1),
        ("a{20}", "redact", 19),
        ("a{20}", "stop", 19),
        ("a.{0,80}b", "stop", 81),  # of two that may go on alike, one is followed
        ("a.{0,80}b", "redact", 161),
        ("BEGIN.*END", "redact", 4),
    ],
)
def test_places_are_counted(expression: str, action: Action, places: int) -> None:
    assert places_at_once(expression, action) == places


def test_a_text_makes_a_pattern_stand_at_as_many_places_as_were_counted() -> None:
    machine = Machine([Pattern("a.{0,80}b", Rule("p", "redact", ""))])
    stream = PatternStream(machine)
    stream.feed("a" * 200)
    at = max(machine.known.values(), key=lambda each: sum(len(nodes) for _, nodes in each.begun))
    assert sum(len(nodes) for _, nodes in at.begun) == places_at_once("a.{0,80}b", "redact")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_far_from_the_bound(preset: str) -> None:
    places = [places_at_once(form.expression, "redact") for form in PRESETS[preset]]
    assert max(places) <= MAX_AT_ONCE / 2
    assert sum(places) <= PRESET_PLACES[preset]
