import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.tools.openapi.document import Document, UnusableDocumentError


def test_yaml_is_read_as_json_is() -> None:
    text = "openapi: '3.1.0'\nx: {no: no, time: 12:30, day: 2020-01-01, on: 010, n: -1.5e3, t: true, 200: ~, e: }\n"
    assert Document(text.encode()).root["x"] == {
        "no": "no", "time": "12:30", "day": "2020-01-01", "on": 10, "n": -1500.0, "t": True, "200": None, "e": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff", "not UTF-8"),
        (b"{", "Expecting property name enclosed in double quotes at line 1, column 2"),
        (b"a: [", "did not find expected node content at line 2, column 1"),
        (b"a: 1\na: 2", 'the key "a" comes twice, at line 2'),
        (b"? [a]\n: 1", "a key is no text, at line 1"),
        (b"a: !!python/object/apply:os.system [id]", "could not determine a constructor for the tag"),
        (b"a: *b", "found undefined alias at line 1, column 4"),
        (b"[" * 200_000, "nested deeper than 64, at line 1"),
        (b"- " * 200_000, "nested deeper than 64, at line 1"),
        (b"{" + b'"a":{' * 20_000, "nested deeper than 64, at line 1"),
        (b"openapi: 3.1.0\nx: 1e999", "a number is too large, at line 2"),
        (b'{"openapi": "3.1.0", "x": NaN}', "NaN is no JSON number"),
        (b"swagger: '2.0'", "has to be OpenAPI 3.0 or 3.1"),
        (b"openapi: 3.2.0", "has to be OpenAPI 3.0 or 3.1, not '3.2.0'"),
        (b"openapi: 3.1", "has to be OpenAPI 3.0 or 3.1"),
        (b"", "has to be OpenAPI 3.0 or 3.1"),
    ],
)
def test_what_is_no_document(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableDocumentError) as raised:
        Document(content)
    assert str(raised.value).startswith(reason)


@given(st.binary(max_size=200) | st.text(st.sampled_from("{}[]:,-&*!'\"|> \na1~#?"), max_size=60).map(str.encode))
def test_any_bytes_are_a_document_or_told(content: bytes) -> None:
    with pytest.raises(UnusableDocumentError):
        Document(content)
