"""What a token has to be before anything of it is believed."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.access import tokens
from dispatcher.access.rules import Caller, IssuerRule
from dispatcher.access.tokens import caller_by, parse_keys, shown
from tests.issuer import AUDIENCE, ISSUER, Private, key_set, public

RSA = rsa.generate_private_key(65537, 2048)
EC, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
ALGORITHMS = ("RS256", "ES256", "EdDSA")
RULE = IssuerRule(ISSUER, AUDIENCE, "https://login.acme.example/jwks", ALGORITHMS, "user", "${claim:org_id}")
KEYS = parse_keys(key_set(public(RSA, "r"), public(EC, "e"), public(ED, "d")), ALGORITHMS)
NOW = int(time.time())
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u-1", "org_id": "acme", "exp": NOW + 3600}


def signed(claims: dict[str, Any], key: Private = EC, algorithm: str = "ES256", kid: str = "e", **headers: Any) -> str:
    return jwt.encode(claims, key, algorithm, headers={"kid": kid} | headers)


def caller(token: str, rule: IssuerRule = RULE) -> Caller | None:
    """As `Issuers` goes about it, with keys that are there."""
    told = shown(token.encode())
    if not told or told.issuer != rule.issuer or told.algorithm not in rule.algorithms:
        return None
    key = KEYS.get((told.kid, told.algorithm))
    return caller_by(token.encode(), rule, key) if key else None


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def symmetric(secret: bytes, kid: str) -> str:
    """HS256, over what everybody knows of a key."""
    body = f"{part({'alg': 'HS256', 'kid': kid, 'typ': 'JWT'})}.{part(CLAIMS)}"
    mac = hmac.new(secret, body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


PEM = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e"), (ED, "EdDSA", "d")])
def test_a_token_of_each_kind(key: Private, algorithm: str, kid: str) -> None:
    assert caller(signed(CLAIMS, key, algorithm, kid)) == Caller("user", "u-1", "acme", issued=True)


def test_clocks_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "LEEWAY_SECONDS", 36_000.0)  # however long the tests take
    assert caller(signed(CLAIMS | {"exp": NOW - 18_000, "nbf": NOW + 18_000, "iat": NOW + 18_000}))
    assert caller(signed(CLAIMS | {"aud": ["others", AUDIENCE]}))


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "others"},
        {"aud": []},
        {"aud": None},
        {"aud": 7},
        {"exp": NOW - 3600},
        {"exp": None},
        {"exp": "soon"},
        {"exp": 1e400},
        {"nbf": NOW + 3600},
        {"iat": NOW + 3600},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": "\ud800"},
        {"sub": "s" * 256},
        {"org_id": None},
        {"org_id": ""},
        {"org_id": 7},
        {"org_id": ["acme"]},
        {"org_id": "a\nb"},
        {"org_id": "\ud800"},
        {"org_id": "o" * 129},
    ],
)
def test_claims_that_do_not_do(changed: dict[str, Any]) -> None:
    assert caller(signed(CLAIMS | changed)) is None


TOKEN = signed(CLAIMS)
HEADER, BODY, SIGNATURE = TOKEN.split(".")


@pytest.mark.parametrize(
    "token",
    [
        jwt.encode(CLAIMS, None, "none", headers={"kid": "e"}),  # type: ignore[arg-type]
        f"{part({'alg': 'none', 'kid': 'e'})}.{BODY}.",
        f"{part({'alg': 'None', 'kid': 'e'})}.{BODY}.{SIGNATURE}",
        symmetric(PEM, "r"),
        symmetric(json.dumps(public(RSA, "r")).encode(), "r"),
        signed(CLAIMS, OTHER),
        signed(CLAIMS, OTHER, jwk=public(OTHER, "e")),
        signed(CLAIMS, OTHER, jku="https://evil.example/jwks"),
        signed(CLAIMS, kid="unknown"),
        signed(CLAIMS, kid="r"),
        signed(CLAIMS, RSA, "PS256", "r"),
        signed(CLAIMS, crit=["new"], new=1),
        jwt.encode(CLAIMS, EC, "ES256"),
        f"{HEADER}.{part(CLAIMS | {'sub': 'admin'})}.{SIGNATURE}",
        f"{HEADER}.{BODY}.",
        f"{HEADER}.{BODY}",
        f"{HEADER}.{part([])}.{SIGNATURE}",
        f"{part({'alg': ['ES256'], 'kid': 'e'})}.{BODY}.{SIGNATURE}",
        f"{part({'alg': 'ES256', 'kid': 7})}.{BODY}.{SIGNATURE}",
        f"{part(CLAIMS | {'iss': 7})}.{BODY}.{SIGNATURE}",
        signed(CLAIMS | {"iss": f"{ISSUER}/"}),
        "..",
        f"{base64.urlsafe_b64encode(b'[' * 20_000).decode().rstrip('=')}.{BODY}.{SIGNATURE}",
        f"{HEADER}.{'A' * 2**20}.{SIGNATURE}",
    ],
    ids=lambda _: "token",  # they are signed anew each time
)
def test_what_is_no_token(token: str) -> None:
    assert caller(token) is None


@given(st.lists(st.binary(max_size=60), min_size=3, max_size=3))
def test_nothing_else_is_one(parts: list[bytes]) -> None:
    told = b".".join(base64.urlsafe_b64encode(each).rstrip(b"=") for each in parts)
    assert shown(told) is None or caller(told.decode()) is None
    assert shown(b".".join(parts)) is None


def test_whose_it_is_is_the_entrys_word() -> None:
    assert caller(TOKEN, replace(RULE, tenant="eu-${claim:org_id}")) == Caller("user", "u-1", "eu-acme", issued=True)
    assert caller(TOKEN, replace(RULE, tenant="all", agents=frozenset({"support"}))) == Caller(
        "user", "u-1", "all", frozenset({"support"}), issued=True
    )
    assert caller(TOKEN, replace(RULE, role="operator", tenant="")) == Caller("operator", "u-1", issued=True)
    assert caller(TOKEN, replace(RULE, algorithms=("RS256",))) is None
    assert caller(signed(CLAIMS | {"org_id": "${claim:sub}"})) == Caller("user", "u-1", "${claim:sub}", issued=True)


def test_only_what_the_entry_names_is_told_of_a_token() -> None:
    rule = replace(RULE, forward=("email", "more", "team", "none"))
    told = caller(signed(CLAIMS | {"email": "a@b.example", "more": "x\ny", "team": ["a"], "secret": "s"}), rule)
    assert told == Caller("user", "u-1", "acme", claims=(("email", "a@b.example"),), issued=True)
    assert caller(signed(CLAIMS | {"email": "x" * 1025}), rule) == Caller("user", "u-1", "acme", issued=True)


def test_keys_that_are_of_no_use_are_left_out() -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - as it must not be
    numbers = public(RSA, "x")
    document = key_set(
        public(EC, "e", alg="ES256", use="sig"),
        public(EC, "e", x="AA"),
        public(EC, "sealing", use="enc"),
        public(EC, "other", alg="ES512"),
        public(weak, "weak"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {"kty": "RSA", "kid": "half", "n": 7},
        {"kty": "RSA", "kid": "none"},
        {name: value for name, value in numbers.items() if name != "kid"},
        numbers | {"d": "AQAB", "kid": "private"},
        {"kty": ["RSA"], "kid": "list"},
    )
    assert set(parse_keys(document, ("RS256", "ES256"))) == {("e", "ES256")}


@pytest.mark.parametrize(
    "document", [b"", b"[]", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [7]}', b"\xff", b"[" * 9999]
)
def test_what_is_no_key_set(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"is no JWK set|holds no key"):
        parse_keys(document, ALGORITHMS)
