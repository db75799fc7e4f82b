"""Issuers' keys, fetched over real connections: when, how often, and what holds while they are away."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from dispatcher.access import issuers
from dispatcher.access.issuers import Issuers
from dispatcher.access.rules import Caller, IssuerRule
from dispatcher.metrics import Metrics
from tests.issuer import AUDIENCE, ISSUER, ScriptedIssuer

ACME = Caller("user", "u-1", "acme", issued=True)
BOUND_SECONDS = 30.0


class House:
    """An issuer that is served, and what the Dispatcher knows of it."""

    def __init__(self, scripted: ScriptedIssuer, address: str) -> None:
        self.scripted, self.registry = scripted, CollectorRegistry()
        self.rule = IssuerRule(ISSUER, AUDIENCE, address, ("ES256",), "user", "${claim:org_id}")
        self.issuers = Issuers([self.rule], Metrics(self.registry))

    async def caller(self, token: str | None = None) -> Caller | None:
        return await self.issuers.caller((token or self.scripted.token()).encode())

    @property
    def failures(self) -> float | None:
        return self.registry.get_sample_value("dispatcher_issuer_failures_total")


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """Whatever the machine's pace: a fetch has its time, and nothing is fetched again because it took long."""
    monkeypatch.setattr(issuers, "FETCH_SECONDS", BOUND_SECONDS)
    for name in ("FRESH_SECONDS", "UNKNOWN_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(issuers, name, 3600.0)
    scripted = ScriptedIssuer()
    async with scripted.served() as address:
        house = House(scripted, address)
        yield house
        await house.issuers.close()


async def test_keys_are_fetched_when_a_token_comes_and_kept(house: House) -> None:
    assert house.scripted.asked == 0
    assert await house.caller() == await house.caller() == ACME
    assert house.scripted.asked == 1


async def test_those_who_come_at_once_wait_for_one_fetch(house: House) -> None:
    house.scripted.held.clear()
    waiting = [asyncio.create_task(house.caller()) for _ in range(5)]
    async with asyncio.timeout(BOUND_SECONDS):
        await house.scripted.reached.wait()
    waiting[0].cancel()  # who began it has left
    await asyncio.wait({waiting[0]})
    house.scripted.held.set()
    assert await asyncio.gather(*waiting[1:]) == [ACME] * 4
    assert house.scripted.asked == 1


async def test_a_new_key_is_asked_for_once_a_minute(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    old = house.scripted.token()
    assert await house.caller(old) == ACME
    house.scripted.rotate("k2")
    assert await house.caller() == ACME
    assert await house.caller(old) is None  # its key was taken back
    for _ in range(3):
        assert await house.caller(house.scripted.token(kid="nobodys")) is None
    assert house.scripted.asked == 2
    monkeypatch.setattr(issuers, "UNKNOWN_SECONDS", 0.0)
    house.scripted.rotate("k3")
    assert await house.caller() == ACME
    assert house.scripted.asked == 3


async def test_a_key_that_was_taken_back_is_none_after_a_while(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    old = house.scripted.token()
    assert await house.caller(old) == ACME
    house.scripted.rotate("k2")
    assert await house.caller(old) == ACME
    monkeypatch.setattr(issuers, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(issuers, "RETRY_SECONDS", 0.0)
    assert await house.caller(old) is None


@pytest.mark.parametrize("trouble", ["status", "document", "large", "silent"])
async def test_old_keys_hold_while_the_issuer_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    assert await house.caller() == ACME
    for name in ("FRESH_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(issuers, name, 0.0)
    match trouble:
        case "status":
            house.scripted.status = 302
        case "document":
            house.scripted.document = b'{"keys": []}'
        case "large":
            monkeypatch.setattr(issuers, "MAX_BYTES", 10)
        case "silent":
            monkeypatch.setattr(issuers, "FETCH_SECONDS", 0.02)
            house.scripted.held.clear()
    with capture_logs() as logs:
        assert await house.caller() == ACME
    assert [each["event"] for each in logs] == ["issuer_keys_failed"]
    assert house.failures == 1


@pytest.mark.parametrize("why", ["kid", "away"])
async def test_a_key_that_is_known_waits_for_no_slow_issuer(
    house: House, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Neither while somebody else's unknown `kid` is looked for, nor again and again while the issuer is away."""
    assert await house.caller() == ACME
    if why == "away":
        for name in ("FRESH_SECONDS", "RETRY_SECONDS"):
            monkeypatch.setattr(issuers, name, 0.0)
        house.scripted.status = 500
        assert await house.caller() == ACME
    house.scripted.held.clear()
    house.scripted.reached.clear()
    token = house.scripted.token(kid="nobodys") if why == "kid" else None
    slow = asyncio.create_task(house.caller(token))
    await house.scripted.reached.wait()
    assert await house.caller() == ACME
    assert slow.done() is (why == "away")
    house.scripted.held.set()
    assert await slow == (ACME if why == "away" else None)


async def test_without_keys_nobody_is_known(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.scripted.status = 500
    assert await house.caller() is None
    house.scripted.status = 200
    assert await house.caller() is None  # it has just been asked
    assert house.scripted.asked == 1
    monkeypatch.setattr(issuers, "RETRY_SECONDS", 0.0)
    assert await house.caller() == ACME


async def test_nobody_listens(house: House) -> None:
    await house.issuers.use([replace(house.rule, jwks="http://127.0.0.1:1/jwks")])
    assert await house.caller() is None
    assert house.failures == 1


@pytest.mark.parametrize("token", ["a.b", "a.b.c", "", "mst_" + "A" * 43, "other issuer", "algorithm"])
async def test_nothing_is_fetched_for_what_cannot_be_its(house: House, token: str) -> None:
    if token == "other issuer":
        token = house.scripted.token({"iss": "https://evil.example"})
    elif token == "algorithm":
        await house.issuers.use([replace(house.rule, algorithms=("RS256",))])
        token = house.scripted.token()
    assert await house.issuers.caller(token.encode()) is None
    assert house.scripted.asked == 0


async def test_a_key_of_one_issuer_signs_nothing_of_another(house: House) -> None:
    other = ScriptedIssuer()
    other.rotate("theirs")
    async with other.served() as address:
        theirs = replace(house.rule, issuer="https://other.example", jwks=address)
        await house.issuers.use([house.rule, theirs])
        assert await house.caller(other.token()) is None
        assert await house.caller(other.token(kid="k1")) is None
        assert await house.caller(other.token({"iss": "https://other.example"})) == ACME


async def test_rules_that_change_keep_what_is_known(house: House) -> None:
    assert await house.caller() == ACME
    await house.issuers.use([replace(house.rule, audience="others"), replace(house.rule, tenant="one")])
    assert await house.caller() == Caller("user", "u-1", "one", issued=True)
    assert house.scripted.asked == 1
    await house.issuers.use([])
    assert await house.caller() is None


async def test_a_fetch_ends_with_the_server(house: House) -> None:
    house.scripted.held.clear()
    asking = asyncio.create_task(house.caller())
    async with asyncio.timeout(BOUND_SECONDS):
        await house.scripted.reached.wait()
    await house.issuers.close()
    assert await asking is None


async def test_keys_of_a_file() -> None:
    scripted = ScriptedIssuer()
    rule = IssuerRule(ISSUER, AUDIENCE, "keys.json", ("ES256",), "operator", document=scripted.document)
    known = Issuers([rule], Metrics(CollectorRegistry()))
    assert await known.caller(scripted.token().encode()) == Caller("operator", "u-1", issued=True)
    before = scripted.token()
    scripted.rotate("k2")
    assert await known.caller(scripted.token().encode()) is None
    await known.use([replace(rule, document=scripted.document)])
    assert await known.caller(scripted.token().encode()) == Caller("operator", "u-1", issued=True)
    assert await known.caller(before.encode()) is None
