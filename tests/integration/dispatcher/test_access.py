"""Every route and the RPC, by every role, with every credential; tenants apart. Over real sockets."""

import asyncio
import contextlib
import copy
import datetime
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import grpc
import httpx2
import pytest
from cryptography import x509
from websockets.asyncio.client import connect

from dispatcher import app
from dispatcher.access.new_keys import NewKey
from dispatcher.live.outliers import CONSECUTIVE_FAILURES
from dispatcher.settings import DispatcherSettings, MutualTls
from dispatcher.store.memory import MemoryStore
from dispatcher.tools.context import Context
from dispatcher.tools.registry import Registry, ToolOutput
from shared.config import load
from shared.errors import ConfigError
from shared.pb import agent_pb2_grpc
from shared.records import Content, Drain, Error, Open, Thought, ToolCall, ToolResult, Upstream, Usage, User
from tests.certificates import Authority
from tests.gateway_routes import routes
from tests.integration.dispatcher.peer import SECONDS, Peer, samples, until
from tests.issuer import AUDIENCE, ISSUER, ScriptedIssuer
from tests.shared_store import SharedStore

PAST = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)).date().isoformat()
MISSING = "A" * 32  # no session has this id
ITEM_MISSING = {"previous_response_id": "previous_response_not_found", "item_reference": "item_not_found"}
ANYBODY = {"/healthz", "/readyz", "/metrics", "/", "/page/page.css"}


class House:
    """A Dispatcher with a key of each kind, and one Commander that offers `support` and `sales`. shared: its store is a
    view of this one.
    """

    def __init__(self, folder: Path, text: str = "", shared: SharedStore | None = None) -> None:
        self._shared = shared
        self.file = folder / "access.toml"
        self.file.write_text(text)
        self.audit = folder / "audit.log"
        self._stack = contextlib.AsyncExitStack()
        self.keys = {
            key.name: key.append_to(self.file)
            for key in (
                NewKey("acme", "user", "acme", ("support",)),
                NewKey("other", "user", "other"),
                NewKey("worker", "commander", agents=("support", "sales")),
                NewKey("narrow", "commander", agents=("support",)),
                NewKey("operator", "operator"),
                NewKey("auditor", "auditor"),
                NewKey("metrics", "metrics"),
                NewKey("late", "user", "acme", expires=PAST),
                NewKey("late-operator", "operator", expires=PAST),
                NewKey("late-worker", "commander", expires=PAST),
            )
        }
        self.keys |= {"wrong": "mst_" + "A" * 43, "none": ""}

    async def __aenter__(self) -> "House":
        edges: dict[str, Any] = {f"{edge}_address": "127.0.0.1:0" for edge in ("grpc", "http", "operator")}
        with pytest.MonkeyPatch.context() as patch:
            if self._shared:
                patch.setattr("dispatcher.app.open_store", AsyncMock(return_value=self._shared.view()))
            self.dispatcher = await app.start(
                DispatcherSettings(store="memory://", access=str(self.file), audit_log=str(self.audit), **edges)
            )
        self._stack.push_async_callback(self.dispatcher.close)
        self.users = await self._client(self.dispatcher.http_port)
        self.operators = await self._client(self.dispatcher.operator_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.dispatcher.sessions.closing.set()
        await self._stack.aclose()

    def replica(self) -> "House":
        """Another Dispatcher, by the same access file."""
        made = copy.copy(self)
        made._stack = contextlib.AsyncExitStack()
        return made

    async def _client(self, port: int) -> httpx2.AsyncClient:
        client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS)
        return await self._stack.enter_async_context(client)

    def shown(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[key]}"} if self.keys[key] else {}

    async def ask(self, key: str, method: str, path: str, body: object = None, **headers: str) -> httpx2.Response:
        client = self.operators if path.startswith(("/operator", "/metrics")) else self.users
        async with client.stream(method, path, json=body, headers=self.shown(key) | headers) as answer:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):  # which may have no end
                await answer.aread()
            return answer

    def stream(self, key: str) -> Peer:
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{self.dispatcher.grpc_port}", options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._stack.push_async_callback(channel.close)
        metadata = [(name.lower(), value) for name, value in self.shown(key).items()]
        stub = agent_pb2_grpc.AgentInteractionStub(channel)  # type: ignore[no-untyped-call]
        peer = Peer(stub.ChatStream(metadata=metadata))
        self._stack.push_async_callback(peer.cut)
        return peer

    async def refusals(self, edge: str) -> dict[str, float]:
        """What has been counted there, by its kind."""
        told = samples((await self.ask("operator", "GET", "/metrics")).text)
        before = f'dispatcher_refusals_total{{edge="{edge}",kind="'
        return {name[len(before) : -2]: times for name, times in told.items() if name.startswith(before) and times}

    def audited(self) -> list[dict[str, Any]]:
        """What the audit log says, without its times and addresses."""
        lines = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [{name: value for name, value in line.items() if name not in ("at", "from")} for line in lines]

    async def take_out(self, key: str) -> None:
        """Of the access file, which is read again."""
        before, named, after = self.file.read_text().partition(f'[[key]]\nname = "{key}"\n')
        assert named
        self.file.write_text(before + "".join(after.partition("[[key]]")[1:]))
        await self.dispatcher._access.reload()

    async def worker(self) -> Peer:
        peer = self.stream("worker")
        peer.agents = ("support", "sales")
        await peer.report(4)
        await until(lambda: self.dispatcher.sessions.pool.members, "joined")
        return peer

    async def refused(self, key: str, *packets: Upstream, agents: tuple[str, ...] = ("support",)) -> str:
        """The status with which its stream ends.

        A write that meets the end makes it INTERNAL at a client of grpc.aio, whatever the server said
        (`grpc/aio/_call.py`: `set_internal_error`): then it is asked again.
        """
        status = "INTERNAL"
        for _ in range(20):
            peer = self.stream(key)
            peer.agents = agents
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await (peer.send(*packets) if packets else peer.report(1))
            status = (await peer.status()).name
            if status != "INTERNAL":
                break
        return status


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path) as house:
        yield house


def expected(method: str, path: str, key: str) -> int | None:
    """The status by which that key is refused on that route; None: it is not."""
    operators = path.startswith(("/operator", "/metrics"))
    if path in ANYBODY:
        return None
    if key in ("none", "wrong") or key.startswith("late"):
        return 401
    role = key.removeprefix("token-")
    if operators:
        return None if role == "operator" or (role == "auditor" and method == "GET") else 403
    return None if role in ("acme", "other") else 403


async def test_who_did_what_is_told(house: House) -> None:
    await house.worker()
    acme = {"role": "user", "subject": "acme", "tenant": "acme", "edge": "http"}
    operator = {"role": "operator", "subject": "operator", "tenant": "", "edge": "operator"}
    body = {"agent": "support", "prompt": "A secret prompt."}
    created = (await house.ask("acme", "POST", "/v1/sessions", body)).json()["session_id"]
    await house.ask("other", "GET", f"/v1/sessions/{created}")
    await house.ask("acme", "POST", f"/v1/sessions/{created}/stop")
    await house.ask("operator", "GET", f"/operator/sessions/{created}")
    await house.ask("auditor", "POST", "/operator/stop", {"all": True})
    await house.ask("operator", "POST", "/operator/stop", {"agent": "sales", "detail": "A secret detail."})
    await house.ask("wrong", "GET", f"/v1/sessions/{created}")
    await house.refused("acme")
    assert house.audited() == [
        {"event": "stream_opened", "role": "commander", "subject": "worker", "tenant": "", "edge": "grpc"},
        {"event": "session_created", **acme, "session_id": created, "status": 201},
        {
            **acme,
            "event": "session_read",
            "subject": "other",
            "tenant": "other",
            "session_id": created,
            "status": 404,
            "code": "session_not_found",
        },
        {"event": "session_stopped", **acme, "session_id": created, "reason": "UserCancel", "status": 202},
        {"event": "session_read", **operator, "session_id": created, "status": 200},
        {
            **operator,
            "event": "access_refused",
            "role": "auditor",
            "subject": "auditor",
            "status": 403,
            "code": "forbidden",
        },
        {
            "event": "fleet_stopped",
            **operator,
            "fits": {"agent": "sales"},
            "reason": "RiskControl",
            "hold_seconds": 0.0,
            "status": 200,
        },
        {"event": "access_refused", "edge": "http", "status": 401, "code": "invalid_api_key"},
        {"event": "access_refused", "edge": "grpc", "status": "PERMISSION_DENIED"},
    ]
    text = house.audit.read_text()
    assert not [key for name, key in house.keys.items() if key and key in text]
    assert "secret" not in text


async def test_every_route_by_every_credential(tmp_path: Path) -> None:
    """Generated from the sources: a new route is asked too. Every role, by keys and by tokens, good ones and late."""
    scripted = ScriptedIssuer()
    (tmp_path / "keys.json").write_bytes(scripted.document)
    roles = {"acme": "user", "operator": "operator", "auditor": "auditor"}
    entries = [issuer("keys.json", key, f'role = "{role}"') for key, role in roles.items()]
    async with House(tmp_path, "".join(entries)) as house:
        for key in roles:
            house.keys[f"token-{key}"] = scripted.token({"aud": key})
            house.keys[f"late-token-{key}"] = scripted.token({"aud": key, "exp": 1})
        await _ask_everything(house)


async def _ask_everything(house: House) -> None:
    refused: Counter[str] = Counter()
    for method, path in routes():
        asked = path.replace("{session_id}", MISSING).replace("{response_id}", f"resp_{MISSING}")
        asked = asked.replace("{call_id}", "call").replace("{model:path}", "none").replace("{file}", "page.css")
        for key in house.keys:
            answer = await house.ask(key, method, asked, {} if method == "POST" else None)
            status = expected(method, asked, key)
            if status is None:
                assert answer.status_code not in (401, 403), (method, path, key)
                continue
            assert answer.status_code == status, (method, path, key, answer.text)
            code = {401: "invalid_api_key", 403: "forbidden"}[status]
            assert answer.json()["error"]["code"] == code
            refused[code] += 1
            assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert await house.refusals("http") == refused


async def test_no_other_method_and_no_other_service_goes_round(house: House) -> None:
    """On the path of every route what asks for none; and of gRPC's services all but the two that there are."""
    for path in sorted({path for _, path in routes()}):
        asked = path.replace("{session_id}", MISSING).replace("{file}", "page.css")
        for method in ("HEAD", "OPTIONS", "PUT", "PATCH", "TRACE"):
            for ticket in ("", "?ticket=none"):
                answer = await house.ask("none", method, asked + ticket)
                reads = asked in ANYBODY and method in ("HEAD", "OPTIONS")
                assert reads or answer.status_code == 401, (method, asked, answer.status_code)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{house.dispatcher.grpc_port}") as channel:
        for name in (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/grpc.channelz.v1.Channelz/GetServers",
            "/southwest.ai.agent.v1.AgentInteraction/Other",
            "/southwest.ai.agent.v1.AgentInteraction/chatstream",
            "//southwest.ai.agent.v1.AgentInteraction/ChatStream",
        ):
            unserved: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(name)
            assert await unserved(iter(())).code() is grpc.StatusCode.UNIMPLEMENTED, name
        chat: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/southwest.ai.agent.v1.AgentInteraction/ChatStream"
        )
        own = f"Bearer {house.keys['worker']}"
        for shown in (
            (("authorization", own), ("authorization", own)),
            (("authorization", own.removeprefix("Bearer ")),),
            (("authorization", f"Basic {own}"),),
            (("authorization-bin", own.encode()),),
            (("x-authorization", own),),
        ):
            assert await chat(iter(()), metadata=shown).code() is grpc.StatusCode.UNAUTHENTICATED, shown


async def test_a_ticket_reads_the_events_of_its_session_and_nothing_else(house: House) -> None:
    """On every route: it is no key. Whoever shows a key besides is whom the key says."""
    body = {"agent": "support", "prompt": "hi"}
    await house.worker()
    own, another = [(await house.ask("acme", "POST", "/v1/sessions", body)).json() for _ in range(2)]
    ticket = own["events"].partition("?")[2]
    refused = set()
    for session_id in (own["session_id"], another["session_id"], MISSING):
        for method, path in routes():
            asked = path.replace("{session_id}", session_id).replace("{response_id}", f"resp_{session_id}")
            asked = asked.replace("{call_id}", "call").replace("{model:path}", "support").replace("{file}", "page.css")
            answer = await house.ask("none", method, f"{asked}?{ticket}", {} if method == "POST" else None)
            if path in ANYBODY or asked in ANYBODY:
                continue
            if (method, asked) == ("GET", f"/v1/sessions/{own['session_id']}/events"):
                assert answer.status_code == 200
                continue
            assert answer.status_code == 401, (method, asked)
            refused.add(answer.content)
    assert len(refused) == 1
    assert (await house.ask("none", "HEAD", own["events"])).status_code == 401
    assert (await house.ask("other", "GET", own["events"])).status_code == 404
    assert (await house.ask("wrong", "GET", own["events"])).status_code == 401
    told = [line for line in house.audited() if line["event"] == "session_read" and line["status"] == 200]
    whose = {"role": "user", "subject": "acme", "tenant": "acme", "edge": "http", "session_id": own["session_id"]}
    assert told == [{"event": "session_read", **whose, "status": 200}]
    assert ticket.partition("=")[2] not in house.audit.read_text()


async def test_the_console_is_shown_to_anybody_without_anything_in_it(house: House) -> None:
    for path in ("/", "/page/console.js"):
        assert (await house.operators.get(path)).status_code == 200
    assert (await house.operators.get("/page/user.js")).status_code == 401
    assert (await house.operators.get("/operator/live")).status_code == 401


async def test_a_refusal_does_not_say_what_was_wrong(house: House) -> None:
    answers = [await house.ask(key, "GET", f"/v1/sessions/{MISSING}") for key in ("none", "wrong", "late")]
    assert len({answer.content for answer in answers}) == 1
    odd = [
        {"Authorization": "Basic " + house.keys["acme"]},
        {"Authorization": house.keys["acme"]},
        [("Authorization", f"Bearer {house.keys['acme']}"), ("Authorization", f"Bearer {house.keys['acme']}")],
    ]
    for headers in odd:
        answer = await house.users.get("/v1/models", headers=headers)  # type: ignore[arg-type]
        assert answer.content == answers[0].content


@pytest.mark.parametrize(
    "path", ["/healthz/", "//x/healthz/", "/healthz%2F", "/healthz;x", "/nowhere", "/metrics", "/page/"]
)
async def test_no_other_path_goes_round(house: House, path: str) -> None:
    assert (await house.users.get(path)).status_code == 401


async def test_metrics_may_be_closed(tmp_path: Path) -> None:
    async with House(tmp_path, 'metrics = "operator"\n') as house:
        statuses = {key: (await house.ask(key, "GET", "/metrics")).status_code for key in house.keys}
    assert {key for key, status in statuses.items() if status == 200} == {"operator", "auditor", "metrics"}
    assert statuses["none"] == statuses["wrong"] == 401
    assert statuses["acme"] == 403


async def test_streams(house: House) -> None:
    for key, status in (
        ("none", "UNAUTHENTICATED"),
        ("wrong", "UNAUTHENTICATED"),
        ("late-worker", "UNAUTHENTICATED"),
        ("acme", "PERMISSION_DENIED"),
        ("operator", "PERMISSION_DENIED"),
    ):
        assert await house.refused(key) == status, key
        assert await house.refused(key, Upstream("s" * 32, Content("older"))) == status, key
    assert await house.refused("narrow", agents=("support", "sales")) == "PERMISSION_DENIED"
    assert not house.dispatcher.sessions.pool.members
    assert await house.refusals("chatstream") == {"unauthenticated": 6, "forbidden": 5}
    await house.worker()


async def test_a_commander_cannot_offer_later_what_it_may_not(house: House) -> None:
    peer = house.stream("narrow")
    peer.agents = ("support",)
    await peer.report(1)
    await until(lambda: house.dispatcher.sessions.pool.members, "joined")
    peer.agents = ("sales",)
    await peer.report(1)
    assert (await peer.status()).name == "PERMISSION_DENIED"
    await until(lambda: not house.dispatcher.sessions.pool.members, "left")


async def test_a_commander_that_takes_anothers_id_costs_it_nothing(house: House) -> None:
    """Neither by failing, nor by what operators do to it."""
    worker, thief = await house.worker(), house.stream("narrow")
    thief.commander_id, thief.agents = worker.commander_id, ("support",)
    await thief.report(9)
    pool = house.dispatcher.sessions.pool
    await until(lambda: len(pool.members) == 2, "joined")
    brought = [f"{number}" * 32 for number in range(CONSECUTIVE_FAILURES)]
    for session_id in brought:
        await thief.open(session_id)
        await thief.say(session_id, Error("agent_error", "", False))
        await thief.acked(session_id)
    told = (await house.ask("operator", "GET", f"/operator/sessions/{brought[0]}")).json()
    assert (told["commander_id"], told["credential"]) == (worker.commander_id, "narrow")
    await until(lambda: pool.free("support") == 4, "the thief is ejected, and nobody else")

    meant = {"commander": told["commander_id"], "credential": told["credential"], "hold_seconds": 600}
    placed = await house.ask("operator", "POST", "/operator/holds", meant)
    assert (placed.status_code, placed.json()["credential"]) == (201, "narrow")
    await house.ask("acme", "POST", "/v1/sessions", {"agent": "support", "prompt": "hi"})
    assignment = await worker.serve()
    del meant["hold_seconds"]
    stopped = await house.operators.post("/operator/stop", json=meant, headers=house.shown("operator"))
    assert '"found":0' in stopped.text
    for body in ({"credential": "narrow"}, {"credential": "narrow", "agent": "support"}):
        refused = await house.ask("operator", "POST", "/operator/stop", body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "credential")
    await worker.finish(assignment.session_id)


async def test_a_key_that_is_replaced_ends_no_session(house: House) -> None:
    """Its Commander comes back by another one, and shows the token of its assignment."""
    worker = await house.worker()
    await house.ask("acme", "POST", "/v1/sessions", {"agent": "support", "prompt": "hi"})
    assignment = await worker.serve()
    await worker.cut()
    again = house.stream("narrow")
    again.commander_id = worker.commander_id
    await again.open(assignment.session_id, assignment.generation)
    told = (await house.ask("operator", "GET", f"/operator/sessions/{assignment.session_id}")).json()
    assert (told["commander_id"], told["credential"]) == (worker.commander_id, "narrow")
    await again.finish(assignment.session_id)


async def test_whose_key_is_taken_out_goes_on_with_what_it_has_and_no_more(house: House) -> None:
    """On a stream that is open, whatever its Commander does: it may not leave when it is told to."""
    worker = await house.worker()
    body = {"agent": "support", "prompt": "hi"}
    await house.ask("acme", "POST", "/v1/sessions", body)
    assignment = await worker.serve()
    await house.take_out("worker")
    await worker.report(3, {assignment.session_id: assignment.generation})
    await worker.next(Drain)
    assert house.dispatcher.sessions.pool.free("support") == 0
    await worker.say(assignment.session_id, "words")
    await worker.finish(assignment.session_id)
    await worker.request("b" * 32)
    assert (await worker.status()).name == "UNAUTHENTICATED"


async def test_the_list_of_live_sessions_ends_with_the_key_that_it_is_shown_to(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else of it would ever end."""
    monkeypatch.setattr("dispatcher.gateway.live_list.LOOK_SECONDS", 0.01)
    async with house.operators.stream("GET", "/operator/live", headers=house.shown("auditor")) as answer:
        lines = answer.aiter_lines()
        await anext(line async for line in lines if line == "event: looked")
        await house.take_out("operator")
        await anext(line async for line in lines if line == "event: looked")
        await house.take_out("auditor")
        async with asyncio.timeout(SECONDS):
            assert [line async for line in lines if line == "event: sessions"] == []
    assert (await house.ask("auditor", "GET", "/operator/live")).status_code == 401


async def test_older_peers_come_where_that_is_said(tmp_path: Path) -> None:
    async with House(tmp_path, "[older]\nallow = true\n") as house:
        peer = house.stream("none")
        await peer.send(Upstream("s" * 32, Content("hello", True, "stop")))
        await peer.half_close()
        assert (await peer.status()).name == "OK"
        assert await house.refused("none") == "UNAUTHENTICATED"
        assert await house.refused("none", Upstream("s" * 32, Open("me", 0))) == "UNAUTHENTICATED"
        assert await house.refused("wrong", Upstream("t" * 32, Content("older"))) == "UNAUTHENTICATED"


async def test_tenants_are_apart(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the other knows of it: to the other it does not exist, by the same words as what never did, after the
    same steps of the store.
    """
    steps: list[tuple[str, str]] = []

    def noted(name: str) -> None:
        step = getattr(MemoryStore, name)

        def noting(store: MemoryStore, session_id: str, *rest: Any) -> Any:
            steps.append((session_id, name))
            return step(store, session_id, *rest)

        monkeypatch.setattr(MemoryStore, name, noting)

    for name in ("load", "read", "delete", "follow"):
        noted(name)
    worker = await house.worker()
    created = (await house.ask("acme", "POST", "/v1/sessions", {"agent": "support", "prompt": "hi"})).json()
    session_id = created["session_id"]
    assert (await worker.serve()).user == User("acme", "acme")
    await worker.say(session_id, Thought("t", "SECRET"), "text")
    background = {"model": "support", "input": "hi", "background": True}
    response_id = (await house.ask("acme", "POST", "/v1/responses", background)).json()["id"]
    decision = {"decision": "approve", "arguments_sha256": "0" * 64}
    asked: list[tuple[str, str, object]] = [
        ("GET", "/v1/sessions/{}", None),
        ("DELETE", "/v1/sessions/{}", None),
        ("GET", "/v1/sessions/{}/events", None),
        ("POST", "/v1/sessions/{}/stop", {}),
        ("POST", "/v1/sessions/{}/stop?wait=true", {}),
        ("GET", "/v1/sessions/{}/events?after=1", None),
        ("GET", "/v1/responses/{}?stream=true", None),
        ("GET", "/v1/responses/{}/input_items", None),
        ("POST", "/v1/sessions/{}/calls/call/decision", decision),
        ("GET", "/v1/responses/{}", None),
        ("GET", "/v1/responses/{}/input_items", None),
        ("DELETE", "/v1/responses/{}", None),
        ("POST", "/v1/responses/{}/cancel", {}),
    ]
    with_id = {(method, path) for method, path in routes() if path.startswith("/v1/") and "_id}" in path}
    assert len(with_id) == len({(method, path.partition("?")[0]) for method, path, _ in asked})
    for method, path, body in asked:
        own, missing = (response_id, f"resp_{MISSING}") if "responses" in path else (session_id, MISSING)
        steps.clear()
        theirs = await house.ask("other", method, path.format(own), body)
        taken = [name for of, name in steps if of == own.removeprefix("resp_")]
        nobodys = await house.ask("other", method, path.format(missing), body)
        assert theirs.status_code == nobodys.status_code == 404, (method, path)
        assert theirs.content == nobodys.content
        assert taken == [name for of, name in steps if of == MISSING], (method, path)
        assert taken
    for lane, field in itertools.product(("http", "websocket"), ("previous_response_id", "item_reference")):
        theirs, nobodys = [await _going_on(house, lane, field, own) for own in (response_id, f"resp_{MISSING}")]
        assert theirs == nobodys
        assert theirs["error"]["code"] == ITEM_MISSING[field]
    for own in (session_id, response_id.removeprefix("resp_")):
        state = (await house.ask("operator", "GET", f"/operator/sessions/{own}")).json()
        assert state["state"] in ("waiting", "running")
        assert (state["tenant"], state["subject"]) == ("acme", "acme")
    assert (await house.ask("acme", "POST", f"/v1/sessions/{session_id}/stop", {})).status_code == 202
    assert (await house.ask("acme", "GET", f"/v1/responses/{response_id}")).status_code == 200


async def _going_on(house: House, lane: str, field: str, response_id: str) -> Any:
    """What the other tenant is answered with where it would go on from that response, or from what was asked there."""
    item = {"type": "item_reference", "id": response_id.replace("resp_", "msg_")}
    from_it = {"previous_response_id": response_id, "input": "hi"} if field != "item_reference" else {"input": [item]}
    body = {"model": "support", **from_it}
    if lane == "http":
        return (await house.ask("other", "POST", "/v1/responses", body)).json()
    address = f"ws://127.0.0.1:{house.dispatcher.http_port}/v1/responses"
    async with (
        connect(address, proxy=None, additional_headers=house.shown("other")) as frames,
        asyncio.timeout(SECONDS),
    ):
        await frames.send(json.dumps({"type": "response.create", **body}))
        return json.loads(await frames.recv())


async def test_an_idempotency_key_is_its_tenants(house: House) -> None:
    await house.worker()
    body, key = {"agent": "support", "prompt": "hi"}, "k" * 20

    async def made(who: str) -> str:
        answer = await house.ask(who, "POST", "/v1/sessions", body, **{"Idempotency-Key": key})
        assert answer.status_code == 201
        return str(answer.json()["session_id"])

    assert await made("acme") == await made("acme")
    assert await made("acme") != await made("other")


async def test_agents_are_a_users_own(house: House) -> None:
    await house.worker()
    for user, agents in (("acme", ["support"]), ("other", ["sales", "support"])):
        models = (await house.ask(user, "GET", "/v1/models")).json()["data"]
        assert [model["id"] for model in models] == agents
    key = {"Idempotency-Key": "k" * 20}
    for agent in ("sales", "none"):
        ask = {"model": agent, "messages": [{"role": "user", "content": "hi"}]}
        answers = [
            await house.ask("acme", "GET", f"/v1/models/{agent}"),
            await house.ask("acme", "POST", "/v1/chat/completions", ask),
            await house.ask("acme", "POST", "/v1/responses", {"model": agent, "input": "hi"}),
            await house.ask("acme", "POST", "/v1/sessions", {"agent": agent, "prompt": "hi"}),
        ]
        assert [answer.status_code for answer in answers] == [404] * 4
    held = await house.ask("acme", "POST", "/v1/sessions", {"agent": "sales", "prompt": "hi"}, **key)
    assert held.status_code == 404
    assert not house.dispatcher.sessions.pool.waiting


@pytest.mark.parametrize("told", [True, False])
async def test_a_key_that_is_taken_away_opens_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Once the Dispatcher is told that the file has changed, and where it has to see that."""
    monkeypatch.setattr("dispatcher.files.watch.LOOK_SECONDS", 3600.0 if told else 0.02)
    async with House(tmp_path) as house:
        assert (await house.ask("acme", "GET", "/v1/models")).status_code == 200
        house.file.write_text("")
        if told:
            house.dispatcher.reload()
        async with asyncio.timeout(SECONDS):
            while (await house.ask("acme", "GET", "/v1/models")).status_code == 200:
                pass  # until the file was read
        assert (await house.ask("acme", "GET", "/v1/models")).status_code == 401


async def test_no_key_is_told(house: House, capfd: pytest.CaptureFixture[str]) -> None:
    await house.worker()
    for key in house.keys:
        await house.ask(key, "GET", "/v1/models")
        await house.ask(key, "POST", "/v1/sessions", {"agent": "support", "prompt": "hi"})
    told = json.dumps((await house.ask("operator", "GET", "/operator/sessions")).json())
    told += (await house.ask("operator", "GET", "/metrics")).text
    told += "".join(capfd.readouterr())
    assert not [name for name, key in house.keys.items() if key and key in told]


@pytest.mark.parametrize(
    ("limit", "code"),
    [("sessions_at_once = 2", "too_many_sessions"), ("sessions_per_minute = 2", "rate_limit_exceeded")],
)
async def test_a_tenant_begins_no_more_than_it_may(tmp_path: Path, limit: str, code: str) -> None:
    """On every route that begins a session; another tenant is not concerned."""
    async with House(tmp_path, f'[[limit]]\ntenant = "*"\n{limit}\n') as house:
        await house.worker()
        body = {"agent": "support", "prompt": "hi"}
        made = [(who, await house.ask(who, "POST", "/v1/sessions", body)) for who in ("acme", "other") * 2]
        assert [answer.status_code for _, answer in made] == [201] * 4
        messages = [{"role": "user", "content": "hi"}]
        for refused in (
            await house.ask("acme", "POST", "/v1/sessions", body),
            await house.ask("acme", "POST", "/v1/chat/completions", {"model": "support", "messages": messages}),
            await house.ask("acme", "POST", "/v1/responses", {"model": "support", "input": "hi", "background": True}),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, code)
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await house.refusals("http"))[code] == 3
        for who, answer in made[1:3]:  # of each one: the other's is no room for it
            stopped = await house.ask(who, "POST", f"/v1/sessions/{answer.json()['session_id']}/stop", {})
            assert stopped.status_code == 202
        again = [(await house.ask("acme", "POST", "/v1/sessions", body)).status_code for _ in range(2)]
        assert again == ([201, 429] if code == "too_many_sessions" else [429, 429])


async def test_a_tenants_tokens_of_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its agents counted, also of what was deleted at once; another tenant is not concerned."""
    monkeypatch.setattr("dispatcher.live.quotas.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("dispatcher.live.quotas.day_of", lambda _: 20_000)  # also at midnight
    async with House(tmp_path, '[[limit]]\ntenant = "*"\ntokens_per_day = 100\n') as house:
        worker = await house.worker()
        body = {"agent": "support", "prompt": "hi"}

        async def run(who: str, tokens: int) -> None:
            made = await house.ask(who, "POST", "/v1/sessions", body)
            assert made.status_code == 201, made.text
            session_id = made.json()["session_id"]
            await worker.serve()
            await worker.say(session_id, Content("word", True, "stop", Usage(tokens - 1, 1)))
            await worker.acked(session_id)
            assert (await house.ask(who, "DELETE", f"/v1/sessions/{session_id}")).status_code == 204

        await run("acme", 60)
        await run("acme", 39)
        await run("acme", 1)
        messages = [{"role": "user", "content": "hi"}]
        for refused in (
            await house.ask("acme", "POST", "/v1/sessions", body),
            await house.ask("acme", "POST", "/v1/chat/completions", {"model": "support", "messages": messages}),
            await house.ask("acme", "POST", "/v1/responses", {"model": "support", "input": "hi", "background": True}),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "quota_exceeded")
            assert 1 <= int(refused.headers["retry-after"]) <= 86_400
        await run("other", 5)


async def test_three_replicas_count_as_one_and_know_each_others_tickets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day's tokens are used up at all of them by what was used at each, to one; and what one gives a page to read by,
    all take.
    """
    monkeypatch.setattr("dispatcher.live.quotas.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("dispatcher.live.quotas.day_of", lambda _: 20_000)  # also at midnight
    body = {"agent": "support", "prompt": "hi"}
    first = House(tmp_path, '[[limit]]\ntenant = "acme"\ntokens_per_day = 100\n', SharedStore())
    async with first, first.replica() as second, first.replica() as third:
        houses = (first, second, third)
        worker = await third.worker()
        for house, tokens in zip(houses, (60, 39, 1), strict=True):
            async with asyncio.timeout(SECONDS):
                while not (await house.ask("acme", "GET", "/v1/models")).json()["data"]:
                    pass  # until it has heard of the Commander
            made = await house.ask("acme", "POST", "/v1/sessions", body)
            assert made.status_code == 201, made.text
            await worker.report(4)
            session_id = (await worker.serve()).session_id
            await worker.say(session_id, Content("word", True, "stop", Usage(tokens - 1, 1)))
            await worker.acked(session_id)
            for each in houses:
                read = await each.users.get(made.json()["events"])
                assert (read.status_code, "word" in read.text) == (200, True)
                plain = await each.users.get(f"/v1/sessions/{session_id}/events")
                assert plain.status_code == 401
        for house in houses:
            refused = await house.ask("acme", "POST", "/v1/sessions", body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "quota_exceeded")


async def test_sessions_that_use_up_the_day_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what they have said so far, which nobody has counted yet; those that wait, too."""
    monkeypatch.setattr("dispatcher.live.quotas.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("dispatcher.live.quotas.day_of", lambda _: 20_000)  # also at midnight
    async with House(tmp_path, '[[limit]]\ntenant = "acme"\ntokens_per_day = 100\n') as house:
        worker = await house.worker()
        made = [
            (await house.ask(who, "POST", "/v1/sessions", {"agent": "support", "prompt": "hi"})).json()["session_id"]
            for who in ("acme", "acme", "acme", "acme", "acme", "other")
        ]
        for _ in range(4):
            await worker.serve()
        for session_id in made[:3]:
            await worker.say(session_id, "x" * 200)
        store = house.dispatcher.sessions.store
        assert isinstance(store, MemoryStore)
        await until(lambda: all(store._records[session_id].head.final for session_id in made[:5]), "stopped")
        assert {store._records[session_id].head.reason for session_id in made[:5]} == {"Timeout"}
        assert (
            await house.ask("acme", "POST", "/v1/sessions", {"agent": "support", "prompt": "hi"})
        ).status_code == 429
        others = (await house.ask("other", "GET", f"/v1/sessions/{made[5]}")).json()
        assert others["state"] in ("waiting", "running")


def issuer(address: str, audience: str, rest: str) -> str:
    """An entry of the access file."""
    whose = f'issuer = "{ISSUER}"\naudience = "{audience}"\njwks = "{address}"'
    return f'[[issuer]]\n{whose}\nalgorithms = ["ES256"]\n{rest}\n'


async def test_tokens_of_an_issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users' and operators', told apart by their audience. What is wrong with one is not told."""
    monkeypatch.setattr("dispatcher.access.issuers.FETCH_SECONDS", SECONDS)
    scripted, evil = ScriptedIssuer(), ScriptedIssuer()
    async with scripted.served() as address:
        more = 'agents = ["support"]\nforward = ["email"]'
        text = issuer(address, AUDIENCE, f'role = "user"\ntenant = "${{claim:org_id}}"\n{more}')
        async with House(tmp_path, text + issuer(address, "ops", 'role = "operator"')) as house:
            house.keys |= {
                "user": scripted.token({"email": "a@b.example", "secret": "s"}),
                "ops": scripted.token({"aud": "ops"}),
                "late": scripted.token({"exp": 1}),
                "early": scripted.token({"nbf": 2**40}),
                "audience": scripted.token({"aud": "others"}),
                "issuer": scripted.token({"iss": "https://evil.example"}),
                "kid": scripted.token(kid="unknown"),
                "signature": evil.token(),
                "tenant": scripted.token({"org_id": None}),
                "long": scripted.token({"more": "x" * 20_000}, kid="unknown"),
            }
            worker = await house.worker()
            made = await house.ask("user", "POST", "/v1/sessions", {"agent": "support", "prompt": "hi"})
            assert made.status_code == 201
            assignment = await worker.serve()
            assert assignment.user == User("u-1", "acme", (("email", "a@b.example"),))
            state = (await house.ask("ops", "GET", f"/operator/sessions/{made.json()['session_id']}")).json()
            assert (state["tenant"], state["subject"]) == ("acme", "u-1")
            assert (await house.ask("acme", "GET", f"/v1/sessions/{state['session_id']}")).status_code == 200
            assert (await house.ask("other", "GET", f"/v1/sessions/{state['session_id']}")).status_code == 404
            sales = {"model": "sales", "messages": [{"role": "user", "content": "hi"}]}
            assert (await house.ask("user", "POST", "/v1/chat/completions", sales)).status_code == 404
            assert (await house.ask("user", "GET", "/operator/sessions")).status_code == 403
            assert (await house.ask("ops", "GET", "/v1/models")).status_code == 403
            answers = [
                await house.ask(key, "GET", "/v1/models")
                for key in ("wrong", "late", "early", "audience", "issuer", "kid", "signature", "tenant", "long")
            ]
            assert {answer.status_code for answer in answers} == {401}
            assert len({answer.content for answer in answers}) == 1
            assert await house.refused("user") == "UNAUTHENTICATED"  # no Commander is known by a token


async def test_a_users_token_is_at_hand_for_the_calls_of_its_own_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of an issuer's, never a key; while the session lives; and neither in the log nor in any other."""
    called: dict[str, Context] = {}

    async def run(_: Registry, name: str, arguments_json: str, context: Context) -> ToolOutput:
        called[context.session_id] = context
        return ToolOutput("OK", "1")

    monkeypatch.setattr(Registry, "run", run)
    monkeypatch.setattr(Registry, "forwards_tokens", True)
    scripted = ScriptedIssuer()
    (tmp_path / "keys.json").write_bytes(scripted.document)
    async with House(tmp_path, issuer("keys.json", AUDIENCE, 'role = "user"\ntenant = "acme"')) as house:
        house.keys |= {name: scripted.token({"sub": name}) for name in ("u-1", "u-2")}
        worker = await house.worker()
        responses = {"model": "support", "input": "hi", "background": True}
        made: dict[str, str] = {}
        for who in ("u-1", "u-2", "acme"):
            answer = await house.ask(who, "POST", "/v1/responses", responses)
            assignment = await worker.serve()
            assert answer.json()["id"].endswith(assignment.session_id)
            made[who] = assignment.session_id
        for session_id in made.values():
            await worker.say(session_id, ToolCall("search", "{}", "c1"))
            await worker.next(ToolResult, session_id)
        shown = {who: called[session_id].token for who, session_id in made.items()}
        assert shown == {"u-1": house.keys["u-1"], "u-2": house.keys["u-2"], "acme": ""}
        told = (await house.ask("operator", "GET", "/operator/sessions")).text + house.audit.read_text()
        store = house.dispatcher.sessions.store
        for session_id in made.values():
            told += repr(await store.load(session_id)) + repr((await store.read(session_id, 0, 100)).entries)
            await worker.finish(session_id)
        tokens = house.dispatcher.sessions.runners.tokens
        await until(lambda: not any(map(tokens.of, made.values())), "dropped")
    told += "".join(capfd.readouterr())
    assert not [token for token in shown.values() if token and token in told]


async def test_keys_of_an_issuers_file_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.files.watch.LOOK_SECONDS", 0.02)
    scripted = ScriptedIssuer()
    (tmp_path / "keys.json").write_bytes(scripted.document)
    async with House(tmp_path, issuer("keys.json", AUDIENCE, 'role = "user"')) as house:
        house.keys["old"] = scripted.token()
        assert (await house.ask("old", "GET", "/v1/models")).status_code == 200
        scripted.rotate("k2")
        house.keys["new"] = scripted.token()
        (tmp_path / "keys.json").write_bytes(scripted.document)
        async with asyncio.timeout(SECONDS):
            while (await house.ask("new", "GET", "/v1/models")).status_code == 401:
                pass  # until the file was read
        assert (await house.ask("old", "GET", "/v1/models")).status_code == 401


def uri(role: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(f"spiffe://acme/{role}/1")


async def _outlived(authority: Authority, dispatcher: app.Dispatcher) -> None:
    """A connection that is open for longer than the certificate that was shown for it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        operator, commander = (authority.issue(role, uri(role), days=7) for role in ("operator", "commander"))
        url = f"https://localhost:{dispatcher.operator_port}/operator/sessions"
        credentials = grpc.ssl_channel_credentials(
            authority.ca.read_bytes(), commander.key.read_bytes(), commander.cert.read_bytes()
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        target = f"localhost:{dispatcher.grpc_port}"
        async with (
            httpx2.AsyncClient(verify=authority.client(operator), timeout=SECONDS) as client,
            grpc.aio.secure_channel(target, credentials, options=options) as channel,
        ):
            stub = agent_pb2_grpc.AgentInteractionStub(channel)  # type: ignore[no-untyped-call]
            assert (await client.get(url)).status_code == 200
            first = Peer(stub.ChatStream())
            await first.report(1)
            await until(lambda: dispatcher.sessions.pool.members, "joined")
            real = time.time
            for edge in ("gateway", "grpc_edge"):
                later = SimpleNamespace(time=lambda: real() + 8 * 86_400)
                monkeypatch.setattr(f"dispatcher.{edge}.callers.time", later)
            assert (await client.get(url)).status_code == 401
            await first.report(1)
            await first.next(Drain)
            late = Peer(stub.ChatStream())
            assert (await late.status()).name == "UNAUTHENTICATED"
            await late.cut()
            await first.cut()


async def test_a_certificate_is_an_operators(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    edge = authority.issue("edge")
    file = tmp_path / "access.toml"
    file.write_text(
        '[[certificate]]\nsan = "spiffe://acme/operator/*"\nrole = "operator"\n'
        '[[certificate]]\nsan = "spiffe://acme/commander/*"\nrole = "commander"\n'
        '[[certificate]]\nsan = "*@acme.example"\nrole = "operator"\n'
    )
    mutual = MutualTls(cert=edge.cert, key=edge.key, client_ca=authority.ca)
    edges: dict[str, Any] = {f"{each}_address": "127.0.0.1:0" for each in ("grpc", "http", "operator")}
    settings = DispatcherSettings(store="memory://", access=str(file), grpc_tls=mutual, operator_tls=mutual, **edges)
    dispatcher = await app.start(settings)
    try:
        for role, name, status, refused in (
            ("operator", uri("operator"), 200, "PERMISSION_DENIED"),
            ("commander", uri("commander"), 403, ""),
            ("nobody", uri("nobody"), 401, "UNAUTHENTICATED"),
            ("mail", x509.RFC822Name("ops@acme.example"), 401, "UNAUTHENTICATED"),  # neither a DNS name nor a URI
        ):
            own = authority.issue(role, name)
            url = f"https://localhost:{dispatcher.operator_port}/operator/sessions"
            async with httpx2.AsyncClient(verify=authority.client(own), timeout=SECONDS) as client:
                assert (await client.get(url)).status_code == status, role
            credentials = grpc.ssl_channel_credentials(
                authority.ca.read_bytes(), own.key.read_bytes(), own.cert.read_bytes()
            )
            target = f"localhost:{dispatcher.grpc_port}"
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
                peer = Peer(agent_pb2_grpc.AgentInteractionStub(channel).ChatStream())  # type: ignore[no-untyped-call]
                if refused:  # at once: a write that meets the end would make it INTERNAL
                    assert (await peer.status()).name == refused, role
                else:
                    await peer.report(1)
                    await until(lambda: dispatcher.sessions.pool.members, "joined")
                await peer.cut()
        await _outlived(authority, dispatcher)
    finally:
        await dispatcher.close()


# ---- secure by default


@pytest.mark.parametrize("edge", ["grpc", "http", "operator"])
async def test_an_edge_beyond_loopback_needs_a_word_on_access(edge: str, tmp_path: Path) -> None:
    edges: dict[str, Any] = {f"{each}_address": "127.0.0.1:0" for each in ("grpc", "http", "operator")} | {
        f"{edge}_address": "0.0.0.0:0"
    }
    with pytest.raises(ConfigError) as raised:
        await app.start(DispatcherSettings(store="memory://", **edges))
    assert str(raised.value).startswith(f"DISPATCHER_{edge.upper()}_ADDRESS: 0.0.0.0 can be reached")
    assert "\n" not in str(raised.value)
    (tmp_path / "access.toml").write_text("")
    for access in ("open", str(tmp_path / "access.toml")):
        dispatcher = await app.start(DispatcherSettings(store="memory://", access=access, **edges))
        await dispatcher.close()


@pytest.mark.usefixtures("no_settings")
async def test_a_wrong_file_ends_the_start_with_all_its_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "access.toml").write_text("keys = 1\n[[key]]\n")
    monkeypatch.setenv("DISPATCHER_ACCESS", str(tmp_path / "access.toml"))
    with pytest.raises(ConfigError, match=r"^DISPATCHER_ACCESS: .*unknown key \"keys\".*; .*`role` is missing"):
        await app.start(load(DispatcherSettings))
