"""Toolsets of kind `openapi`, with parts of public interfaces, against a service that tells what it saw."""

import json
from pathlib import Path
from typing import Any

import pytest

from dispatcher.files.document import FileError
from dispatcher.tools.load import load
from dispatcher.tools.openapi.toolset import OpenApiToolset
from dispatcher.tools.registry import Registry, ToolOutput
from tests.dispatcher.tools.http.service import Seen, Service, answer

SPECS = Path(__file__).parent / "specs"
MAPPABLE = {
    "petstore.yaml": 'allow = ["findPets", "addPet", "getPetById", "deletePet"]',
    "github.json": 'allow = ["repos/*", "issues/*", "activity/*"]\nprefix = "github_"',
    "openai.yaml": 'allow = ["*Model*", "createEmbedding", "createModeration"]',
}


def entry(spec: str | Path, more: str = "", base_url: str = "https://api.example/v1") -> str:
    return f'[[toolset]]\nname = "api"\nkind = "openapi"\nspec = "{SPECS / spec}"\nbase_url = "{base_url}"\n{more}\n'


def toolset(folder: Path, text: str) -> OpenApiToolset:
    file = folder / "tools.toml"
    file.write_text(text)
    (given,) = load(file).toolsets.values()
    assert isinstance(given.toolset, OpenApiToolset)
    return given.toolset


def reasons(folder: Path, text: str) -> list[str]:
    with pytest.raises(FileError) as raised:
        toolset(folder, text)
    return [fault.reason for fault in raised.value.faults]


async def asked(
    folder: Path, spec: str, name: str, arguments: dict[str, Any], more: str = ""
) -> tuple[ToolOutput, list[Seen]]:
    async with Service(answer(b'{"ok": true}')).at() as service:
        text = entry(spec, f"{MAPPABLE[spec]}\nprivate = true\n{more}", f"{service.url}/v1/")
        registry = Registry(toolset(folder, text).tools)
        return await registry.run(name, json.dumps(arguments)), service.seen


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("petstore.yaml", ["findPets", "addPet", "getPetById", "deletePet"]),
        (
            "github.json",
            [
                "github_repos_get", "github_issues_list-for-repo", "github_issues_create",
                "github_repos_replace-all-topics", "github_activity_star-repo-for-authenticated-user",
            ],
        ),
        ("openai.yaml", ["listModels", "deleteModel", "createEmbedding", "createModeration"]),
    ],
)  # fmt: skip
def test_operations_become_tools(tmp_path: Path, spec: str, names: list[str]) -> None:
    assert [tool.spec.name for tool in toolset(tmp_path, entry(spec, MAPPABLE[spec])).tools] == names


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (
            "petstore.yaml",
            'the operation "uploadFile" cannot be mapped: its body is no JSON, but application/octet-stream',
        ),
        ("github.json", 'the operation "markdown/render-raw" cannot be mapped: its body is no JSON, but text/plain'),
        ("openai.yaml", 'the operation "createFile" cannot be mapped: its body is no JSON, but multipart/form-data'),
    ],
)
def test_what_cannot_be_mapped_is_named(tmp_path: Path, spec: str, reason: str) -> None:
    assert reasons(tmp_path, entry(spec)) == [reason]


def test_what_a_model_is_told(tmp_path: Path) -> None:
    specs = {
        tool.spec.name: tool.spec for tool in toolset(tmp_path, entry("petstore.yaml", MAPPABLE["petstore.yaml"])).tools
    }
    assert specs["addPet"].description == "Add a pet\n\nIts id is made by the store."
    assert specs["addPet"].schema == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "tag": {"type": ["string", "null"], "enum": ["small", "large", None]},
            "category": {"$ref": "#/$defs/Category"},
        },
        "additionalProperties": False,
        "required": ["name"],
        "$defs": {
            "Category": {
                "type": "object",
                "properties": {
                    "id": {"type": "integer", "format": "int64"},
                    "name": {"type": "string"},
                    "parent": {"$ref": "#/$defs/Category"},
                },
            }
        },
    }
    limit = specs["findPets"].schema["properties"]["limit"]
    assert limit == {"type": "integer", "format": "int32", "exclusiveMinimum": 0, "maximum": 100}
    assert [*specs["deletePet"].schema["properties"]] == ["petId", "api_key"], "the entry says Authorization"


CALLS: list[tuple[str, str, dict[str, Any], tuple[str, str, Any]]] = [
    ("petstore.yaml", "findPets", {"tags": ["a b", "c&d"], "status": ["sold", "pending"], "limit": 2},
     ("GET", "/v1/pets?tags=a%20b&tags=c%26d&status=sold,pending&limit=2", None)),
    ("petstore.yaml", "findPets", {}, ("GET", "/v1/pets", None)),
    ("petstore.yaml", "addPet", {"name": "Rex", "tag": None}, ("POST", "/v1/pets", {"name": "Rex", "tag": None})),
    ("petstore.yaml", "getPetById", {"petId": 9007199254740993}, ("GET", "/v1/pets/9007199254740993", None)),
    ("petstore.yaml", "deletePet", {"petId": 1, "api_key": "k"}, ("DELETE", "/v1/pets/1", None)),
    ("github.json", "github_issues_create", {"owner": "o", "repo": "r.js", "title": "T", "labels": ["bug"]},
     ("POST", "/v1/repos/o/r.js/issues", {"title": "T", "labels": ["bug"]})),
    ("github.json", "github_activity_star-repo-for-authenticated-user", {"owner": "o", "repo": "r"},
     ("PUT", "/v1/user/starred/o/r", None)),
    ("openai.yaml", "createEmbedding", {"model": "m", "input": ["é"]},
     ("POST", "/v1/embeddings", {"model": "m", "input": ["é"]})),
    ("openai.yaml", "createModeration", {"body": "text"}, ("POST", "/v1/moderations", "text")),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "name", "arguments", "expected"), CALLS)
async def test_a_call_is_the_operation(
    tmp_path: Path, spec: str, name: str, arguments: dict[str, Any], expected: tuple[str, str, Any]
) -> None:
    output, (seen,) = await asked(tmp_path, spec, name, arguments)
    assert output == ("OK", '{"ok": true}')
    assert (seen.method, seen.target, json.loads(seen.body) if seen.body else None) == expected
    assert ("content-type" in seen.headers) is bool(seen.body)
    assert seen.headers.get("api_key") == arguments.get("api_key")
    assert len(seen.headers["idempotency-key"]) == 64


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("getPetById", {"petId": "../admin"}),
        ("getPetById", {}),
        ("getPetById", {"petId": 1, "other": 1}),
        ("findPets", {"limit": 0}),
        ("findPets", {"status": ["lost"]}),
        ("findPets", {"tags": ["a\r\nX: y"]}),
        ("addPet", {"name": "Rex", "id": 7}),
        ("deletePet", {"petId": 1, "api_key": "k\r\nX: y"}),
        ("deletePet", {"petId": 1, "api_key": "ключ"}),
    ],
)
async def test_wrong_arguments_are_not_sent(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    output, seen = await asked(tmp_path, "petstore.yaml", name, arguments)
    assert output.status == "INVALID_ARGUMENTS"
    assert not seen


async def test_a_path_argument_cannot_leave_its_segment(tmp_path: Path) -> None:
    for repo in ("..", "a/b", "..%2f", ""):
        output, seen = await asked(tmp_path, "github.json", "github_repos_get", {"owner": "o", "repo": repo})
        assert output.status == "INVALID_ARGUMENTS"
        assert not seen


async def test_the_entrys_headers_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "s3cret")
    more = 'headers = { Authorization = "Bearer ${env:GITHUB_TOKEN}" }'
    _, (seen,) = await asked(tmp_path, "github.json", "github_repos_get", {"owner": "o", "repo": "r"}, more)
    assert seen.headers["authorization"] == "Bearer s3cret"


async def test_a_header_of_the_entrys_is_not_the_agents(tmp_path: Path) -> None:
    more = 'headers = { API_KEY = "operator" }'
    output, seen = await asked(tmp_path, "petstore.yaml", "deletePet", {"petId": 1, "api_key": "agent"}, more)
    assert output.status == "INVALID_ARGUMENTS"
    assert not seen
    _, (request,) = await asked(tmp_path, "petstore.yaml", "deletePet", {"petId": 1}, more)
    assert request.headers["api_key"] == "operator"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (entry("none.yaml"), [f"`spec`: {SPECS}/none.yaml: No such file or directory"]),
        (entry("openai.yaml", "", ""), ["`base_url` has to be a text that is not empty"]),
        (entry("openai.yaml", "", "https://h/{x}"), ["`base_url` has neither arguments nor a query"]),
        (entry("openai.yaml", "", "https://{x}"), ["`base_url`: no argument may stand in the host or the port"]),
        (entry("openai.yaml", 'allow = ["listModel"]'), ['`allow` names no operation of the document: "listModel"']),
        (entry("openai.yaml", 'allow = ["nothing*"]'), ["no operation with an operationId is allowed"]),
        (entry("openai.yaml", 'allow = ["listModels"]\nurl = "x"'), ['unknown key "url" for kind "openapi"']),
        (
            entry("openai.yaml", f'allow = ["listModels"]\nprefix = "{"p" * 60}"'),
            ['the operation "listModels": a tool\'s name has to be 1 to 64 letters, digits, _ or -'],
        ),
        (
            '[[tool]]\nname = "listModels"\nkind = "http"\nurl = "http://h"\n'
            + entry("openai.yaml", 'allow = ["listModels"]'),
            ['its tool "listModels" has the name of {folder}/tools.toml: tool 1 "listModels"\'s'],
        ),
    ],
)  # fmt: skip
def test_entries_that_are_wrong(tmp_path: Path, text: str, wrong: list[str]) -> None:
    assert reasons(tmp_path, text) == [reason.replace("{folder}", str(tmp_path)) for reason in wrong]
