from pathlib import Path

import pytest

from dispatcher.files.document import FileError
from dispatcher.tools.load import load

CITY = '{ type = "object", properties = { city = { type = "string" } }, required = ["city"] }'


def reasons(folder: Path, entry: str) -> list[str]:
    file = folder / "tools.toml"
    file.write_text(f'[[tool]]\nname = "x"\nkind = "http"\n{entry}\n')
    try:
        load(file)
    except FileError as error:
        return [fault.reason for fault in error.faults]
    return []


def schema(properties: str, *required: str) -> str:
    return f'schema = {{ type = "object", properties = {{ {properties} }}, required = {[*required]} }}\n'


URL = 'url = "http://h"\n'
IN_PATH = 'url = "http://h/{city}"\n'
GOOD = f'url = "https://h/{{city}}"\nschema = {CITY}\n'


@pytest.mark.parametrize(
    "entry",
    [
        'url = "http://h"',
        GOOD,
        GOOD + 'method = "DELETE"',
        GOOD + 'method = "DELETE"\nbody = "arguments"',
        GOOD + 'result = "/a/b~1c"\nheaders = { X-Key = "v a l", Content-Type = "application/x+json" }',
        IN_PATH + 'schema_file = "schema.json"\nagents = ["a"]\napproval = "user"\nidempotent = true',
        URL + 'method = "GET"\nquery = { q = "{city}" }\n' + schema("city = {}"),
    ],
)
def test_entries_that_are_right(tmp_path: Path, entry: str) -> None:
    (tmp_path / "schema.json").write_text(
        '{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}'
    )
    assert reasons(tmp_path, entry) == []


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ("", ["`url` has to be a text that is not empty"]),
        (
            URL + 'colour = 1\nuse = "x:y"',
            ['unknown key "colour" for kind "http"', 'unknown key "use" for kind "http"'],
        ),
        (
            URL + 'method = "HEAD"',
            ['unknown method \'HEAD\'; methods are "GET", "POST", "PUT", "PATCH", "DELETE"'],
        ),
        ('url = "http://h"\nmethod = "GET"\nbody = "arguments"', ["a GET has no body"]),
        ('url = "http://h"\ndescription = 7', ["`description` has to be a text that is not empty"]),
        ('url = "http://h/{city}"', ["{city} is no argument of the schema"]),
        (
            URL + 'query = { q = "{q}", n = 7 }',
            ['`query`: "n" is not a text', "{q} is no argument of the schema"],
        ),
        (
            'url = "http://h/{city}"\nschema = { type = "object", properties = { city = { type = "string" } } }',
            ["{city} stands in the path, and is not required by the schema"],
        ),
        (
            IN_PATH + schema('city = { type = ["object", "null"] }', "city"),
            ['{city} stands in the path, and may be of type "null", "object"'],
        ),
        (
            GOOD.replace("{city}", "x") + 'method = "GET"',
            ['the argument "city" goes nowhere: neither URL nor body has it'],
        ),
        ('url = "http://h"\nschema = { type = "array" }', ['`schema` has to be a JSON Schema with type = "object"']),
        (
            'url = "http://h"\nschema = { type = "object", properties = { a = { type = "strung" } } }',
            ["`schema` cannot be used: \"strung\" is not valid under any of the schemas listed in the 'anyOf' keyword"],
        ),
        (
            URL + 'schema = { type = "object", default = 2020-01-01 }',
            ["`schema` cannot be used: Object of type date is not JSON serializable"],
        ),
        (
            URL + 'schema = {}\nschema_file = "x"',
            ["either `schema` or `schema_file`", "`schema_file`: {folder}/x: No such file or directory"],
        ),
        (
            GOOD + 'headers = { X = "{city} {other}" }',
            ['`headers`: "X": the argument {city} stands in path and query only'],
        ),
        (
            URL + f'schema = {{ type = "object", description = "{"x" * 65536}" }}',
            ["`schema` has more than 65536 bytes"],
        ),
        ('url = "http://h"\nresult = "a"', ["`result`: a JSON Pointer begins with /"]),
        ('url = "http://h"\nresult = "/~2"', ["`result`: in a JSON Pointer ~ is written ~0, and / within a name ~1"]),
        ('url = "http://h"\nca = "x"', ["`ca` is for https"]),
        ('url = "http://h"\nprivate = 1', ["`private` has to be true or false"]),
        (
            URL + 'headers = { Host = "x", "a b" = "y", X = "é", Z = "a\\r\\nb", z = "", Y = 7, Traceparent = "x" }',
            [
                '`headers`: "Host" is the Dispatcher\'s own to send',
                '`headers`: "a b" is no header\'s name',
                '`headers`: "X" has a value that cannot be sent',
                '`headers`: "Z" has a value that cannot be sent',
                '`headers`: "z" comes twice',
                '`headers`: "Y" is not a text',
                '`headers`: "Traceparent" is the Dispatcher\'s own to send',
            ],
        ),
        (
            URL + 'headers = { X = "Bearer ${user.subject}", Y = "${user.name}", Host = "${user.tenant}" }',
            [
                '`headers`: "X": ${…} is written ${env:NAME} or ${file:PATH}',
                '`headers`: "Y": ${…} is written ${env:NAME} or ${file:PATH}',
                '`headers`: "Host" is the Dispatcher\'s own to send',
            ],
        ),
        (
            URL + 'headers = { X = "Bearer ${env:NOT_SET_AT_ALL}" }',
            ['`headers`: "X": the variable NOT_SET_AT_ALL is not set'],
        ),
    ],
)
def test_entries_that_are_wrong(tmp_path: Path, entry: str, wrong: list[str]) -> None:
    assert reasons(tmp_path, entry) == [reason.replace("{folder}", str(tmp_path)) for reason in wrong]


def test_a_secret_is_never_in_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "s3cret\nwith a line")
    found = reasons(tmp_path, 'url = "http://h"\nheaders = { X = "${env:A_TOKEN}" }')
    assert found == ['`headers`: "X" has a value that cannot be sent']


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b'{"a": NaN}'])
def test_a_schema_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "schema.json").write_bytes(content)
    (reason,) = reasons(tmp_path, 'url = "http://h"\nschema_file = "schema.json"')
    assert reason.startswith("`schema_file`")
