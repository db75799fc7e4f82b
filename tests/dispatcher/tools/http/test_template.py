from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.tools.errors import InvalidArgumentsError
from dispatcher.tools.http.template import Origin, Template, UnusableTemplateError

WEATHER = Template("https://weather.internal/v1/{city}/{day}?units=si&q={q}&flag", {"days": "{days}", "x y": "{a}-{b}"})


def test_what_it_takes() -> None:
    assert WEATHER.origin == Origin("https", "weather.internal", 443)
    assert WEATHER.in_path == {"city", "day"}
    assert WEATHER.names == {"city", "day", "q", "days", "a", "b"}
    assert Template("http://[::1]:8080", {}).origin == Origin("http", "::1", 8080)


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        ({}, "/v1/Oslo/1?units=si&flag"),
        ({"q": "a&b=c d/é?#"}, "/v1/Oslo/1?units=si&q=a%26b%3Dc%20d%2F%C3%A9%3F%23&flag"),
        ({"q": None, "days": 3}, "/v1/Oslo/1?units=si&flag&days=3"),
        ({"days": [1, 2]}, "/v1/Oslo/1?units=si&flag&days=1&days=2"),
        ({"days": []}, "/v1/Oslo/1?units=si&flag"),
        ({"a": True, "b": 1.5}, "/v1/Oslo/1?units=si&flag&x%20y=true-1.5"),
        ({"a": True}, "/v1/Oslo/1?units=si&flag"),
        ({"city": "São Paulo; 100%"}, "/v1/S%C3%A3o%20Paulo%3B%20100%25/1?units=si&flag"),
        ({"city": "..."}, "/v1/.../1?units=si&flag"),
    ],
)
def test_a_target(arguments: dict[str, Any], target: str) -> None:
    assert WEATHER.target({"city": "Oslo", "day": 1} | arguments) == target


PATHS = [
    "..", ".", "", "../admin", "a/b", "a\\b", "..%2fadmin", "%2F", "%252f", "%25252f", "%2e%2e", "%2E", "%5c", "%00",
    "a\0b", "a\r\nHost: evil", "%0d%0a", "%" + "25" * 20 + "2f",
]  # fmt: skip


@pytest.mark.parametrize("city", PATHS)
def test_an_argument_cannot_leave_its_segment(city: str) -> None:
    with pytest.raises(InvalidArgumentsError, match='"city"'):
        WEATHER.target({"city": city, "day": 1})


@pytest.mark.parametrize(("a", "b"), [(".", "."), ("%", "2e"), ("%2", "f"), ("%2", "5%32f"), ("%", "2e.")])
def test_nor_can_several_together(a: str, b: str) -> None:
    with pytest.raises(InvalidArgumentsError):
        Template("http://h/x/{a}{b}", {}).target({"a": a, "b": b})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"city": "Oslo"}, 'The argument "day" is needed.'),
        ({"city": "Oslo", "day": None}, 'The argument "day" is needed.'),
        ({"city": ["Oslo"], "day": 1}, 'The argument "city" cannot stand in a URL: it has to be one value.'),
        ({"city": "Oslo", "day": 1, "q": {"a": 1}}, 'The argument "q" cannot stand in a URL: it has to be one value.'),
        (
            {"city": "Oslo", "day": 1, "days": [[1]]},
            'The argument "days" cannot stand in a URL: it has to be one value.',
        ),
        ({"city": "Oslo", "day": 1, "q": "a\r\nX: y"}, 'The argument "q" has a line end or a control character.'),
    ],
)
def test_arguments_that_cannot_be_sent(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidArgumentsError) as raised:
        WEATHER.target(arguments)
    assert str(raised.value) == reason


@given(st.text(), st.text())
def test_whatever_is_sent_reads_as_it_was_meant(city: str, q: str) -> None:
    try:
        target = WEATHER.target({"city": city, "day": 1, "q": q})
    except InvalidArgumentsError:
        return
    assert target.isascii()
    split = urlsplit(f"https://weather.internal{target}")
    assert split.netloc == "weather.internal"
    assert [unquote(segment) for segment in split.path.split("/")] == ["", "v1", city, "1"]
    assert dict(parse_qsl(split.query, keep_blank_values=True)) == {"units": "si", "q": q, "flag": ""}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://h/x", "has to be http(s)://host/…"),
        ("/x", "has to be http(s)://host/…"),
        ("http://", "has to be http(s)://host/…"),
        ("http://{host}/x", "no argument may stand in the host or the port"),
        ("http://h:{port}/x", "no argument may stand in the host or the port"),
        ("http://h{x}", "no argument may stand in the host or the port"),
        ("http://user:secret@h/x", "a user or a password stands in `headers`, as Authorization"),
        ("http://h/x#{y}", "a fragment is never sent"),
        ("http://[::1/x", "is no URL"),
        ("http://h:99999/x", "its port is none"),
        ("http://h:x/x", "its port is none"),
        ("http://h:0/x", "its host is none; an international one is written in its xn-- form"),
        ("http://münchen.de/x", "its host is none; an international one is written in its xn-- form"),
        ("http://h/../x", "its path has a segment . or .."),
        ("http://h/%2e%2e/x", "its path has a segment . or .."),
        ("http://h/ä", "the path has characters that have to be percent-encoded"),
        ("http://h/a b", "the path has characters that have to be percent-encoded"),
        ("http://h/%zz", "the path has characters that have to be percent-encoded"),
        ("http://h/x?a b=1", "the query has characters that have to be percent-encoded"),
        ("http://h/x?{a}=1", "an argument stands in the query's values, never in a name"),
        ("http://h/{}", "{} in the path names no argument"),
        ("http://h/{a", "a brace in the path is of no {argument}"),
        ("http://h/x?a={b}}", "a brace in the query is of no {argument}"),
        ("http://h/a%2F{b}", "an argument stands beside an encoded slash in the path"),
        ("http://h/${env:X}", "${…} is for `headers`, and stays secret there"),
    ],
)
def test_templates_that_cannot_be_used(url: str, reason: str) -> None:
    with pytest.raises(UnusableTemplateError) as raised:
        Template(url, {})
    assert str(raised.value) == reason


def test_no_argument_in_a_pairs_name() -> None:
    with pytest.raises(UnusableTemplateError, match="never in a name"):
        Template("http://h/", {"{a}": "1"})
