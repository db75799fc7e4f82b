"""Toolsets of kind `grpc`, against a server that tells what it executed, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.metrics import Metrics
from dispatcher.tools.context import Context
from dispatcher.tools.errors import UnreachableError
from dispatcher.tools.http import addresses
from dispatcher.tools.identity import identity
from dispatcher.tools.keeper import ToolFiles
from dispatcher.tools.registry import ToolOutput
from dispatcher.tools.rpc import toolset
from dispatcher.tools.rpc.connection import connected
from dispatcher.tools.rpc.server import GrpcServer, Target
from tests.dispatcher.tools.rpc.service import HEALTH, ORDERS, TLS, Orders, descriptor_set
from tests.sockets import dialled, listening

CALL = Context("session", "call", traceparent=f"00-{'1' * 32}-{'2' * 16}-01", tracestate="acme=1")
BOTH = f'services = ["{ORDERS}", "{HEALTH}"]'
EVERYTHING: dict[str, Any] = {
    "id": "9223372036854775807",
    "total": "18446744073709551615",
    "weight": "1",
    "shelf": -5,
    "price": 1.5,
    "paid": True,
    "seal": "AAH/",
    "colour": "COLOUR_RED",
    "colours": ["COLOUR_RED", "COLOUR_UNSPECIFIED"],
    "firstLine": {"name": "a", "parts": [{"name": "b", "parts": [{"name": "c"}]}]},
    "lines": [{}, {"name": "ü"}],
    "byName": {"x": {"name": "y"}},
    "byNumber": {"-3": "z"},
    "byFlag": {"true": "COLOUR_RED"},
    "card": "visa",
    "note": "",
    "at": "2020-01-02T03:04:05.006Z",
    "lasts": "1.500s",
    "extra": {"a": [1.0, None, {"b": True}]},
    "anything": [1.0, "x"],
    "perhaps": "5",
    "mask": "a.b,cD",
    "any": {"@type": "type.googleapis.com/shop.v1.Line", "name": "q"},
    "list": [1.0, 2.0],
    "older": {"name": "o", "piece": [{"size": 3}]},
}


def entry(orders: Orders, more: str = BOTH) -> str:
    return f'[[toolset]]\nname = "shop"\nkind = "grpc"\ntarget = "{orders.target}"\nprivate = true\n{more}\n'


@asynccontextmanager
async def kept(folder: Path, text: str) -> AsyncIterator[ToolFiles]:
    """The tools of that file, each server tried once."""
    file = folder / "tools.toml"
    file.write_text(text)
    files = ToolFiles(file, Metrics(CollectorRegistry()))
    files.load()
    try:
        await files.start(30)
        yield files
    finally:
        await files.close()


async def run(files: ToolFiles, name: str, arguments: Any) -> ToolOutput:
    return await files.registry.run(name, json.dumps(arguments), CALL)


def code(output: ToolOutput) -> str:
    return str(json.loads(output.result_json)["error"]["code"])


async def until_offered(files: ToolFiles, number: int) -> None:
    async with asyncio.timeout(30):
        while len(files.registry.specs()) != number:  # noqa: ASYNC110 (nothing to await)
            await asyncio.sleep(0.02)


# ---- what is offered


@pytest.mark.parametrize("reflections", [("v1", "v1alpha"), ("v1",), ("v1alpha",)])
async def test_unary_methods_become_tools_by_reflection(tmp_path: Path, reflections: tuple[str, ...]) -> None:
    async with Orders(reflections=reflections).at() as orders, kept(tmp_path, entry(orders)) as files:
        assert [spec.name for spec in files.registry.specs()] == ["Echo", "Wait", "Fail", "Fill", "Check", "List"]
        (server,) = files.servers
        assert server.left_out == [
            "shop.v1.Orders/Watch: it is a stream",
            "shop.v1.Orders/Upload: it is a stream",
            "shop.v1.Orders/Value: its request is a google.protobuf.Value, which is no object",
            "grpc.health.v1.Health/Watch: it is a stream",
        ]


async def test_a_descriptor_set_says_what_there_is_and_what_it_is_for(tmp_path: Path) -> None:
    (tmp_path / "shop.binpb").write_bytes(descriptor_set())
    more = f'services = ["{ORDERS}"]\ndescriptor_set = "shop.binpb"\nallow = ["Echo", "Wa?t"]\nprefix = "shop_"'
    async with Orders(reflections=()).at() as orders, kept(tmp_path, entry(orders, more)) as files:
        echo, wait = files.registry.specs()
        assert (echo.name, echo.description) == ("shop_Echo", "Says back what it was asked.")
        assert (wait.name, wait.description) == ("shop_Wait", "Wait of shop.v1.Orders")
        assert echo.schema["properties"]["id"]["description"] == "The order's number."
        assert (await run(files, "shop_Echo", {"id": 1})).result_json == '{"id":"1"}'


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (f'services = ["{ORDERS}", "shop.v1.Nothing"]', "there is no service shop.v1.Nothing"),
        ('services = ["shop.v1.Order"]', "there is no service shop.v1.Order"),
    ],
)
async def test_a_service_that_is_not_there_is_named(tmp_path: Path, more: str, error: str) -> None:
    async with Orders().at() as orders, kept(tmp_path, entry(orders, more)) as files:
        (server,) = files.servers
        assert (server.up, server.error) == (False, error)


async def test_a_server_without_reflection_needs_a_descriptor_set(tmp_path: Path) -> None:
    async with Orders(reflections=()).at() as orders, kept(tmp_path, entry(orders)) as files:
        (server,) = files.servers
        assert server.error == "the server has no reflection; `descriptor_set` can say what it has"


async def test_a_literal_allow_of_nothing_is_told(tmp_path: Path) -> None:
    more = f'services = ["{HEALTH}"]\nallow = ["Check", "Chekc", "none*"]'
    async with Orders().at() as orders, kept(tmp_path, entry(orders, more)) as files:
        (server,) = files.servers
        assert server.left_out == ["Chekc: `allow` names no method of the services"]


async def test_a_server_is_asked_again_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolset, "LOOK_SECONDS", 0.02)
    async with Orders().at() as orders, kept(tmp_path, entry(orders, f'services = ["{HEALTH}"]')) as files:
        await until_offered(files, 2)
        check = files.registry.spec("Check", "")
        looked = orders.asked
        async with asyncio.timeout(30):
            while orders.asked < looked + 3:  # noqa: ASYNC110 (nothing to await)
                await asyncio.sleep(0.02)
        assert files.registry.spec("Check", "") is check, "what has not changed is not made anew"
        orders.password = "changed"
        await until_offered(files, 0)
        assert files.servers[0].error == "the server's reflection ended with UNAUTHENTICATED"
        orders.password = ""
        await until_offered(files, 2)


# ---- a call


async def test_all_that_messages_may_have_goes_there_and_back(tmp_path: Path) -> None:
    async with Orders().at() as orders, kept(tmp_path, entry(orders)) as files:
        output = await run(files, "Echo", EVERYTHING | {"nothing": None})
        assert output.status == "OK", output
        assert json.loads(output.result_json) == EVERYTHING
        (seen,) = orders.seen
        assert (seen.request.id, seen.request.total) == (2**63 - 1, 2**64 - 1)
        assert seen.request.by_number == {-3: "z"}


async def test_numbers_of_64_bits_are_taken_as_numbers_too(tmp_path: Path) -> None:
    async with Orders().at() as orders, kept(tmp_path, entry(orders)) as files:
        output = await run(files, "Echo", {"id": -(2**63), "total": 2**64 - 1})
        assert json.loads(output.result_json) == {"id": str(-(2**63)), "total": str(2**64 - 1)}


@pytest.mark.parametrize(
    "arguments",
    [
        {"nope": 1},
        {"id": 2**63},
        {"id": "9223372036854775808"},
        {"total": -1},
        {"shelf": 1.5},
        {"price": "x"},
        {"price": 1e39, "weight": -1},
        {"price": 10**399},
        {"anything": 10**399},
        {"id": 10**399},
        {"seal": "!"},
        {"seal": "é"},
        {"colour": "COLOUR_GREEN"},
        {"card": "visa", "barter": {}},
        {"older": {}},
        {"firstLine": {"parts": [{"nope": 1}]}},
        {"byNumber": {"x": "y"}},
        {"byNumber": {"2147483648": "y"}},
        {"byFlag": {"TRUE": "COLOUR_RED"}},
        {"at": "soon"},
        {"at": "2020-99-02T03:04:05Z"},
        {"lasts": "99999999999999s"},
        {"mask": "a_b"},
        {"any": {"@type": "x/nope"}},
        {"any": {}},
        {"perhaps": "x"},
        {"nothing": 0},
    ],
)
async def test_wrong_arguments_are_not_sent(tmp_path: Path, arguments: dict[str, Any]) -> None:
    async with Orders().at() as orders, kept(tmp_path, entry(orders)) as files:
        output = await run(files, "Echo", arguments)
        assert (output.status, orders.seen) == ("INVALID_ARGUMENTS", [])
        assert not json.loads(output.result_json)["error"]["message"].endswith("..")


async def test_metadata_says_whose_call_it_is_and_what_the_entry_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    more = f'{BOTH}\nmetadata = {{ authorization = "Bearer ${{env:SHOP_TOKEN}}" }}\ntimeout_seconds = 7'
    async with Orders(password="Bearer s3cret").at() as orders, kept(tmp_path, entry(orders, more)) as files:
        assert (await run(files, "Echo", {})).status == "OK"
        (seen,) = orders.seen
    whose = identity(CALL)
    found = {name: seen.metadata[name] for name in ("authorization", "idempotency-key", *whose.trace)}
    assert found == {"authorization": "Bearer s3cret", "idempotency-key": whose.key, **whose.trace}
    assert found["tracestate"] == "acme=1"
    assert seen.seconds is not None
    assert 7 < seen.seconds <= 8.1, "the server is told of a deadline that is just later than the time limit"


async def test_metadata_says_who_asked(tmp_path: Path) -> None:
    more = f'{BOTH}\nmetadata = {{ x-user = "${{user.subject}}", x-mail = "${{claim:email}}" }}'
    async with Orders().at() as orders, kept(tmp_path, entry(orders, more)) as files:
        for subject in ("u 1\u00e9", "u2"):
            asked = Context("s", "c", subject=subject, claims={"email": "a@b.example"})
            assert (await files.registry.run("Echo", "{}", asked)).status == "OK"
        assert code(await run(files, "Echo", {})) == "user_unknown"
        told = [(seen.metadata["x-user"], seen.metadata["x-mail"]) for seen in orders.seen]
        assert told == [("u%201%C3%A9", "a@b.example"), ("u2", "a@b.example")]


async def test_a_password_that_is_wrong(tmp_path: Path) -> None:
    async with Orders(password="x").at() as orders, kept(tmp_path, entry(orders)) as files:
        (server,) = files.servers
        assert (server.up, server.error) == (False, "the server's reflection ended with UNAUTHENTICATED")
        (tmp_path / "shop.binpb").write_bytes(descriptor_set())
    more = f'services = ["{ORDERS}"]\ndescriptor_set = "shop.binpb"\nallow = ["Echo"]'
    async with Orders(password="x").at() as orders, kept(tmp_path, entry(orders, more)) as files:
        output = await run(files, "Echo", {})
        assert (output.status, code(output)) == ("TOOL_ERROR", "grpc_unauthenticated")


# ---- how a call ends


@pytest.mark.parametrize(
    ("number", "name"),
    [(1, "cancelled"), (2, "unknown"), (4, "deadline_exceeded"), (5, "not_found"), (14, "unavailable")],
)
async def test_a_status_is_an_answer(tmp_path: Path, number: int, name: str) -> None:
    async with Orders().at() as orders, kept(tmp_path, entry(orders)) as files:
        output = await run(files, "Fail", {"code": number, "text": "é" * 600})
        assert output.status == "TOOL_ERROR"
        assert json.loads(output.result_json) == {"error": {"code": f"grpc_{name}", "message": "é" * 500}}
        assert len(orders.seen) == 1


async def test_a_stop_reaches_the_server(tmp_path: Path) -> None:
    async with Orders().at() as orders, kept(tmp_path, entry(orders)) as files:
        call = asyncio.create_task(run(files, "Wait", {}))
        await asyncio.wait_for(orders.waiting.wait(), 30)
        call.cancel()
        await asyncio.wait_for(orders.cancelled.wait(), 30)


async def test_time_that_is_up_is_told_to_the_server(tmp_path: Path) -> None:
    async with Orders().at() as orders, kept(tmp_path, entry(orders, f"{BOTH}\ntimeout_seconds = 0.3")) as files:
        assert (await run(files, "Wait", {})).status == "TIMEOUT"
        await asyncio.wait_for(orders.cancelled.wait(), 30)


async def test_a_connection_that_is_torn_down_in_the_middle_of_a_call(tmp_path: Path) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
            sink.close()

        async with dialled(orders.port) as (there, back):
            writers.extend((writer, back))
            await asyncio.gather(pump(reader, back), pump(there, writer))

    async with (
        Orders().at() as orders,
        listening(relay) as port,
        kept(tmp_path, entry(orders).replace(orders.target, f"127.0.0.1:{port}")) as files,
    ):
        call = asyncio.create_task(run(files, "Wait", {}))
        await asyncio.wait_for(orders.waiting.wait(), 30)
        for writer in writers:
            writer.transport.abort()
        assert (await call).status == "UNKNOWN_OUTCOME"
        assert len(orders.seen) == 1


async def test_a_server_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    orders = Orders()
    async with orders.at(), kept(tmp_path, entry(orders)) as files:
        await orders.server.stop(None)
        await until_offered(files, 0)
        assert not files.servers[0].up
        output = await run(files, "Echo", {})
        assert (output.status, code(output), orders.seen) == ("TOOL_ERROR", "unreachable", [])
        async with Orders().at(orders.port) as again:
            await until_offered(files, 6)
            assert (await run(files, "Echo", {})).status == "OK"
            assert len(again.seen) == 1


async def test_a_call_of_a_connection_that_was_given_up_is_not_sent() -> None:
    async with Orders().at() as orders:
        server = GrpcServer(Target("127.0.0.1", orders.port), True, (), None)
        async with connected(server, 1.0) as connection:
            await connection.channel.close()
            with pytest.raises(UnreachableError):
                await connection.call(f"/{ORDERS}/Echo", b"", (), 1.0)
        assert orders.seen == []


async def test_a_call_under_way_outlives_a_server_that_takes_no_more(tmp_path: Path) -> None:
    async with Orders().at() as orders, kept(tmp_path, entry(orders)) as files:
        call = asyncio.create_task(run(files, "Wait", {}))
        await asyncio.wait_for(orders.waiting.wait(), 30)
        stopping = asyncio.create_task(orders.server.stop(30))
        await until_offered(files, 0)
        orders.go_on.set()
        assert (await call).status == "OK"
        await stopping


@pytest.mark.parametrize(("size", "status"), [(262_000, "OK"), (262_140, "TOOL_ERROR"), (3_000_000, "TOOL_ERROR")])
async def test_a_result_is_bounded(tmp_path: Path, size: int, status: str) -> None:
    async with Orders().at() as orders, kept(tmp_path, entry(orders)) as files:
        output = await run(files, "Fill", {"bytes": size})
        assert output.status == status
        assert status == "OK" or code(output) == "result_too_large"


# ---- where it goes


async def test_private_addresses_need_leave(tmp_path: Path) -> None:
    async with Orders().at() as orders:
        async with kept(tmp_path, entry(orders, f"{BOTH}\ntls = false").replace("private = true\n", "")) as files:
            (server,) = files.servers
            assert server.error == "The tool's service has an address that may not be asked."
        for target in (f"localhost:{orders.port}", f"dns:///localhost:{orders.port}", f"dns:127.0.0.1:{orders.port}"):
            async with kept(tmp_path, entry(orders).replace(orders.target, target)) as files:
                assert files.servers[0].up


async def test_the_address_that_was_checked_is_the_one_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        resolved.append(host)
        return ["::1", "127.0.0.1"] if len(resolved) == 1 else ["127.0.0.9"]

    monkeypatch.setattr(addresses, "resolve", resolve)
    async with Orders().at() as orders:
        async with kept(tmp_path, entry(orders).replace("127.0.0.1", "shop.example")) as files:
            assert files.servers[0].up, "the second address is tried where the first refuses"
            assert (await run(files, "Echo", {})).status == "OK"
            assert resolved == ["shop.example"], "no call looks the name up again"
        async with kept(tmp_path, entry(orders, f"{BOTH}\ntls = false").replace("private = true", "")) as files:
            assert files.servers[0].error == "The tool's service has an address that may not be asked."


async def test_no_proxy_of_the_environment_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Orders().at() as orders, kept(tmp_path, entry(orders)) as files:
        assert (await run(files, "Echo", {})).status == "OK"


CA = f'ca = "{TLS}/ca.pem"'
CLIENT = f'{CA}\ncert = "{TLS}/client.pem"\nkey = "{TLS}/client.pem"'
UNTRUSTED = "The certificate of the tool's service cannot be trusted."


@pytest.mark.parametrize(
    ("certificate", "more", "error"),
    [
        ("localhost.pem", CA, ""),
        ("localhost.pem", "tls = true", UNTRUSTED),
        ("elsewhere.pem", CA, UNTRUSTED),
        ("expired.pem", CA, UNTRUSTED),
        ("localhost.pem", "", "The tool's service cannot be reached."),
    ],
)
async def test_certificates_are_verified(tmp_path: Path, certificate: str, more: str, error: str) -> None:
    async with Orders().at(certificate=certificate) as orders:
        text = entry(orders, f"{BOTH}\n{more}").replace("127.0.0.1", "localhost")
        async with kept(tmp_path, text) as files:
            assert (files.servers[0].up, files.servers[0].error) == (not error, error)
            if not error:
                assert (await run(files, "Echo", {})).status == "OK"


async def test_a_certificate_of_ones_own(tmp_path: Path) -> None:
    async with Orders().at(certificate="localhost.pem", clients=True) as orders:
        for more, up in ((CLIENT, True), (CA, False)):
            text = entry(orders, f"{BOTH}\n{more}").replace("127.0.0.1", "localhost")
            async with kept(tmp_path, text) as files:
                assert files.servers[0].up is up


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "shop %41.sock"
    async with Orders().at(path=path) as orders, kept(tmp_path, entry(orders)) as files:
        assert (await run(files, "Echo", {})).status == "OK"
