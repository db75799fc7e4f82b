"""What has to fit: of a request's schemas, those that are strict."""

import json
from typing import Any

import pytest

from dispatcher.core.log import Request
from dispatcher.live.strict import misfit_of
from shared.records import ClientCall, Tool

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def asked(schema: Any = SCHEMA, strict: bool = True, *tools: Tool) -> Request:
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": strict, "schema": schema}}
    return Request("default", (), 0.0, parameters_json=json.dumps({"response_format": form}), tools=tools)


def tool(strict: bool) -> Tool:
    return Tool("f", "", json.dumps(SCHEMA), client=True, strict=strict)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('{"n": 1}', ""),
        ('{"n": "1"}', "the answer: /n does not fit 'type'"),
        ("{}", "the answer: it does not fit 'required'"),
        ('{"n": 1, "secret": 2}', "the answer: it does not fit 'additionalProperties'"),
        ('Here: {"n": 1}', "the answer: is no JSON"),
        ("", "the answer: is no JSON"),
        ("[" * 100_000, "the answer: is no JSON"),
    ],
)
def test_what_does_not_fit(text: str, detail: str) -> None:
    misfit = misfit_of(asked())
    assert misfit
    assert misfit(text, ()) == detail
    assert misfit(None, ()) == ""


def test_the_arguments_of_strict_tools() -> None:
    misfit = misfit_of(Request("default", (), 0.0, tools=(tool(True), Tool("g", "", "{}", client=True))))
    assert misfit
    good, bad, other = ClientCall("a", "f", '{"n": 1}'), ClientCall("b", "f", '{"n": 1.5}'), ClientCall("c", "g", "no")
    assert misfit("any text", (good, other)) == ""
    assert misfit(None, (good, bad)) == "the arguments of f: /n does not fit 'type'"


def test_nothing_has_to_fit_what_is_not_strict() -> None:
    assert misfit_of(Request("default", (), 0.0)) is None
    assert misfit_of(asked(strict=False)) is None
    assert misfit_of(Request("default", (), 0.0, tools=(tool(False),))) is None


def test_a_schema_of_native_parameters_that_is_none_fails_closed() -> None:
    misfit = misfit_of(asked({"type": "nothing"}))
    assert misfit
    assert misfit("{}", ()).startswith("the answer: its schema is none")


@pytest.mark.parametrize("pattern", ["^(a+)+$", r"^(?=a)(a|aa)+\1$"])
def test_patterns_take_few_steps(pattern: str) -> None:
    """However they are written: whoever asks writes them, and what they read."""
    misfit = misfit_of(asked({"type": "array", "items": {"type": "string", "pattern": pattern}}))
    assert misfit
    assert misfit(json.dumps(["a" * 10_000 + "!"] * 10), ()) == "the answer: /0 does not fit 'pattern'"
