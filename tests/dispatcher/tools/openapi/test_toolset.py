"""Toolsets of kind `openapi`, with public documents and one of ours, against a service that tells what it saw."""

import json
from pathlib import Path
from typing import Any

import pytest

from dispatcher.files.document import FileError
from dispatcher.tools.load import load
from dispatcher.tools.openapi.toolset import OpenApiToolset
from dispatcher.tools.registry import Registry, ToolOutput, check_schema
from tests.dispatcher.tools.http.service import Seen, Service, answer

SPECS = Path(__file__).parent / "specs"
MAPPABLE = {  # what each entry says so that no operation is refused
    "figma.yaml": 'prefix = "figma_"',
    "petstore.json": 'allow = ["*Pet*", "*Order*", "*User*", "getInventory"]',
    "pets.yaml": 'allow = ["findPets", "addPet", "getPetById", "deletePet", "shops/*", "sendNotice"]',
    "readme.json": 'allow = ["get*", "delete*", "*Category", "updateGuide", "createBranch", "search"]',
    "uspto.json": "",
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
    ("spec", "tools", "some"),
    [
        ("figma.yaml", 54, ["figma_getFile", "figma_postComment", "figma_putWebhook", "figma_getOEmbed"]),
        ("petstore.json", 19, ["addPet", "findPetsByTags", "updatePetWithForm", "createUsersWithListInput"]),
        ("pets.yaml", 6, ["findPets", "shops_get-one", "sendNotice"]),
        ("readme.json", 36, ["getCategories", "createBranch", "updateGuide", "deleteBranch"]),
        ("uspto.json", 3, ["list-data-sets", "list-searchable-fields", "perform-search"]),
    ],
)
def test_operations_become_tools(tmp_path: Path, spec: str, tools: int, some: list[str]) -> None:
    offered = {tool.spec.name: tool.spec for tool in toolset(tmp_path, entry(spec, MAPPABLE[spec])).tools}
    assert len(offered) == tools
    assert offered.keys() >= set(some)
    for each in offered.values():
        assert each.schema["type"] == "object"
        check_schema(each.schema)


@pytest.mark.parametrize(
    ("spec", "refused"),
    [
        ("figma.yaml", {}),
        ("petstore.json", {"uploadFile": "multipart/form-data"}),
        ("pets.yaml", {"uploadFile": "application/octet-stream"}),
        ("readme.json", dict.fromkeys(("createAPI", "updateAPI", "uploadImage", "validateAPI"), "multipart/form-data")),
        ("uspto.json", {}),
    ],
)
def test_what_cannot_be_mapped_is_named(tmp_path: Path, spec: str, refused: dict[str, str]) -> None:
    expected = [
        f'the operation "{name}" cannot be mapped: its body is neither JSON nor a form, but {media}'
        for name, media in refused.items()
    ]
    assert (reasons(tmp_path, entry(spec)) if refused else []) == expected


def test_what_a_model_is_told(tmp_path: Path) -> None:
    specs = {tool.spec.name: tool.spec for tool in toolset(tmp_path, entry("pets.yaml", MAPPABLE["pets.yaml"])).tools}
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
    ("pets.yaml", "findPets", {"tags": ["a b", "c&d"], "status": ["sold", "pending"], "limit": 2},
     ("GET", "/v1/pets?tags=a%20b&tags=c%26d&status=sold,pending&limit=2", None)),
    ("pets.yaml", "findPets", {}, ("GET", "/v1/pets", None)),
    ("pets.yaml", "addPet", {"name": "Rex", "tag": None}, ("POST", "/v1/pets", {"name": "Rex", "tag": None})),
    ("pets.yaml", "getPetById", {"petId": 9007199254740993}, ("GET", "/v1/pets/9007199254740993", None)),
    ("pets.yaml", "deletePet", {"petId": 1, "api_key": "k"}, ("DELETE", "/v1/pets/1", None)),
    ("pets.yaml", "sendNotice", {"body": ["é"]}, ("POST", "/v1/notices", ["é"])),
    ("figma.yaml", "figma_getFileNodes", {"file_key": "k é", "ids": "1:2,1:3", "depth": 2},
     ("GET", "/v1/v1/files/k%20%C3%A9/nodes?ids=1%3A2%2C1%3A3&depth=2", None)),
    ("figma.yaml", "figma_postComment", {"file_key": "k", "message": "Hi", "client_meta": {"x": 1, "y": 2}},
     ("POST", "/v1/v1/files/k/comments", {"message": "Hi", "client_meta": {"x": 1, "y": 2}})),
    ("readme.json", "createCategory", {"branch": "stable", "title": "T", "section": "guide"},
     ("POST", "/v1/branches/stable/categories", {"title": "T", "section": "guide"})),
    ("petstore.json", "createUsersWithListInput", {"body": [{"username": "é"}]},
     ("POST", "/v1/user/createWithList", [{"username": "é"}])),
    ("petstore.json", "findPetsByStatus", {"status": ["sold"]}, ("GET", "/v1/pet/findByStatus?status=sold", None)),
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
    ("spec", "name", "arguments", "target", "body"),
    [
        ("petstore.json", "updatePetWithForm", {"petId": 7, "name": "Rex & Co\n", "status": "a+b"},
         "/v1/pet/7", "name=Rex%20%26%20Co%0A&status=a%2Bb"),
        ("uspto.json", "perform-search", {"dataset": "d", "version": "v1", "criteria": "x:[1 TO 2]", "rows": 5},
         "/v1/d/v1/records", "criteria=x%3A%5B1%20TO%202%5D&rows=5"),
    ],
)  # fmt: skip
async def test_a_form_is_sent_as_one(
    tmp_path: Path, spec: str, name: str, arguments: dict[str, Any], target: str, body: str
) -> None:
    output, (seen,) = await asked(tmp_path, spec, name, arguments)
    assert output.status == "OK"
    assert (seen.method, seen.target, seen.body.decode()) == ("POST", target, body)
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"


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
    output, seen = await asked(tmp_path, "pets.yaml", name, arguments)
    assert output.status == "INVALID_ARGUMENTS"
    assert not seen


async def test_a_path_argument_cannot_leave_its_segment(tmp_path: Path) -> None:
    for shop in ("..", "a/b", "..%2f", ""):
        output, seen = await asked(tmp_path, "pets.yaml", "shops_get-one", {"owner": "o", "shop": shop})
        assert output.status == "INVALID_ARGUMENTS"
        assert not seen


async def test_the_entrys_headers_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    more = 'headers = { Authorization = "Bearer ${env:SHOP_TOKEN}" }'
    _, (seen,) = await asked(tmp_path, "pets.yaml", "shops_get-one", {"owner": "o", "shop": "s"}, more)
    assert seen.headers["authorization"] == "Bearer s3cret"


async def test_a_header_of_the_entrys_is_not_the_agents(tmp_path: Path) -> None:
    more = 'headers = { API_KEY = "operator" }'
    output, seen = await asked(tmp_path, "pets.yaml", "deletePet", {"petId": 1, "api_key": "agent"}, more)
    assert output.status == "INVALID_ARGUMENTS"
    assert not seen
    _, (request,) = await asked(tmp_path, "pets.yaml", "deletePet", {"petId": 1}, more)
    assert request.headers["api_key"] == "operator"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (entry("none.yaml"), [f"`spec`: {SPECS}/none.yaml: No such file or directory"]),
        (entry("pets.yaml", "", ""), ["`base_url` has to be a text that is not empty"]),
        (entry("pets.yaml", "", "https://h/{x}"), ["`base_url` has neither arguments nor a query"]),
        (entry("pets.yaml", "", "https://{x}"), ["`base_url`: no argument may stand in the host or the port"]),
        (entry("pets.yaml", 'allow = ["findPet"]'), ['`allow` names no operation of the document: "findPet"']),
        (entry("pets.yaml", 'allow = ["nothing*"]'), ["no operation with an operationId is allowed"]),
        (entry("pets.yaml", 'allow = ["findPets"]\nurl = "x"'), ['unknown key "url" for kind "openapi"']),
        (
            entry("pets.yaml", f'allow = ["findPets"]\nprefix = "{"p" * 60}"'),
            ['the operation "findPets": a tool\'s name has to be 1 to 64 letters, digits, _ or -'],
        ),
        (
            '[[tool]]\nname = "findPets"\nkind = "http"\nurl = "http://h"\n'
            + entry("pets.yaml", 'allow = ["findPets"]'),
            ['its tool "findPets" has the name of {folder}/tools.toml: tool 1 "findPets"\'s'],
        ),
    ],
)  # fmt: skip
def test_entries_that_are_wrong(tmp_path: Path, text: str, wrong: list[str]) -> None:
    assert reasons(tmp_path, text) == [reason.replace("{folder}", str(tmp_path)) for reason in wrong]
