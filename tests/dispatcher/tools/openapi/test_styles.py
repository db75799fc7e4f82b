from typing import Any

import pytest

from dispatcher.tools.errors import InvalidArgumentsError
from dispatcher.tools.openapi.styles import FormBody, Parameter

LIST, TABLE = ["a b", 1], {"k": "v&", "n": True}


@pytest.mark.parametrize(
    ("style", "explode", "value", "pairs"),
    [
        ("form", True, LIST, ["p=a%20b", "p=1"]),
        ("form", False, LIST, ["p=a%20b,1"]),
        ("spaceDelimited", False, LIST, ["p=a%20b%201"]),
        ("pipeDelimited", False, LIST, ["p=a%20b%7C1"]),
        ("form", True, TABLE, ["k=v%26", "n=true"]),
        ("deepObject", True, TABLE, ["p%5Bk%5D=v%26", "p%5Bn%5D=true"]),
        ("form", True, [], []),
        ("form", True, 1.5, ["p=1.5"]),
        ("form", True, "", ["p="]),
    ],
)
def test_queries(style: str, explode: bool, value: Any, pairs: list[str]) -> None:
    assert [*Parameter("p", "query", style, explode).in_query(value)] == pairs


def test_json_in_a_query_and_a_header() -> None:
    parameter = Parameter("p", "query", "form", True, as_json=True)
    assert [*parameter.in_query({"a": ["é"]})] == ["p=%7B%22a%22%3A%20%5B%22%C3%A9%22%5D%7D"]
    assert parameter.in_header(["é"]) == '["\\u00e9"]'


@pytest.mark.parametrize(
    ("explode", "value", "text"),
    [(False, LIST, "a b,1"), (True, LIST, "a b,1"), (False, TABLE, "k,v&,n,true"), (True, TABLE, "k=v&,n=true")],
)
def test_paths_and_headers(explode: bool, value: Any, text: str) -> None:
    parameter = Parameter("p", "path", "simple", explode)
    assert parameter.in_path(value) == parameter.in_header(value) == text


@pytest.mark.parametrize("value", [[[1]], {"a": {}}, "a\nb", ["\0"], {"a": "\r"}])
def test_values_that_cannot_be_sent(value: Any) -> None:
    parameter = Parameter("p", "query", "form", True)
    for written in (
        lambda: [*parameter.in_query(value)],
        lambda: parameter.in_path(value),
        lambda: parameter.in_header(value),
    ):
        with pytest.raises(InvalidArgumentsError):
            written()


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ("a b&c\n", "p=a%20b%26c%0A"),
        (True, "p=true"),
        (LIST, "p=a%20b&p=1"),
        ({"k": "v"}, "p=%7B%22k%22%3A%20%22v%22%7D"),
        ([{"k": 1}], "p=%7B%22k%22%3A%201%7D"),
        (None, ""),
        ([], ""),
    ],
)
def test_fields_of_a_form(value: Any, body: str) -> None:
    assert FormBody({}).encoded({"p": value}).decode() == body


def test_a_field_that_a_style_cannot_write() -> None:
    field = Parameter("p", "form", "deepObject", True)
    with pytest.raises(InvalidArgumentsError, match='"p" is nested too deeply for a form'):
        FormBody({"p": field}).encoded({"p": {"k": {"l": 1}}})
