"""Who a caller is, by what it shows."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.access.rules import (
    AccessKey,
    AccessRules,
    Caller,
    CertificateRule,
    IssuerRule,
    UnknownCaller,
    digest_of,
    identify,
)
from dispatcher.core.tenant_limits import TenantLimit

USER = Caller("user", "web", "acme")
RULES = AccessRules(
    keys=(
        AccessKey(Caller("operator", "ops"), digest_of(b"mst_ops"), math.inf),
        AccessKey(USER, digest_of(b"mst_web"), 100.0),
    ),
    certificates=(CertificateRule("spiffe://acme/commander/*", "commander", frozenset({"support"})),),
)


def test_a_key_until_it_expires() -> None:
    assert identify(RULES, [b"Bearer mst_web"], (), 99.9) is USER
    assert identify(RULES, [b"bearer  mst_ops"], (), 1e12).subject == "ops"
    with pytest.raises(UnknownCaller):
        identify(RULES, [b"Bearer mst_web"], (), 100.0)


@pytest.mark.parametrize(
    "shown",
    [
        [],
        [b""],
        [b"mst_web"],
        [b"Bearer"],
        [b"Bearer "],
        [b"Basic mst_web"],
        [b"Bearer mst_webb"],
        [b"Bearer MST_WEB"],
        [b"Bearer mst_web", b"Bearer mst_web"],
        [b"Bearer mst_web mst_ops"],
        [b"Bearer " + digest_of(b"mst_web").hex().encode()],
        [b"Bearer \xff\x00"],
    ],
)
def test_what_is_no_key(shown: Sequence[bytes]) -> None:
    with pytest.raises(UnknownCaller):
        identify(RULES, shown, (), 0)


def test_who_may_still_be_a_user() -> None:
    """By a key of that name, tenant and role that has not expired; of an issuer's users nobody knows."""
    assert RULES.knows("web", "acme", 99.9)
    for subject, tenant, now in (
        ("web", "acme", 100.0),
        ("web", "other", 0.0),
        ("webb", "acme", 0.0),
        ("ops", "", 0.0),
    ):
        assert not RULES.knows(subject, tenant, now)
    for role, known in (("user", True), ("operator", False)):
        issuer = IssuerRule("https://login.example", "midsentence", "keys.json", ("ES256",), role)  # type: ignore[arg-type]
        assert AccessRules(issuers=(issuer,)).knows("u-1", "acme", 0.0) is known


@given(st.binary(max_size=100))
def test_nothing_but_a_key_is_one(token: bytes) -> None:
    known = token.strip() in (b"mst_ops", b"mst_web")
    try:
        identify(RULES, [b"Bearer " + token], (), 0)
        assert known
    except UnknownCaller:
        assert not known


def test_a_certificate_by_its_names() -> None:
    names = ["dns.example", "spiffe://acme/commander/7"]
    assert identify(RULES, [], names, 0) == Caller("commander", names[1], agents=frozenset({"support"}))
    with pytest.raises(UnknownCaller):
        identify(RULES, [b"Bearer wrong"], names, 0)
    for name in ("spiffe://acme/commander/7/x", "spiffe://acmeX/commander/7", "xspiffe://acme/commander/7", "a"):
        with pytest.raises(UnknownCaller):
            identify(RULES, [], [name], 0)


def test_nothing_of_a_pattern_but_its_stars_is_special() -> None:
    assert not CertificateRule("a.b", "commander").fits("axb")
    assert not CertificateRule("[ab]", "commander").fits("a")
    assert CertificateRule("*.example", "commander").fits("a.example")


def test_what_operators_are_shown_is_nothing_that_opens_anything() -> None:
    limits = (TenantLimit("*", sessions_at_once=5, spent=7),)
    issuers = (IssuerRule("https://id.example", "us", "", ("ES256",), "user", "${claim:org}", document=b"{}"),)
    assert replace(RULES, limits=limits, issuers=issuers).shown() == {
        "keys": [
            {"role": "operator", "agents": None, "name": "ops", "tenant": "", "expires_at": None},
            {"role": "user", "agents": None, "name": "web", "tenant": "acme", "expires_at": 100.0},
        ],
        "certificates": [{"role": "commander", "agents": ["support"], "san": "spiffe://acme/commander/*"}],
        "issuers": [
            {
                "role": "user",
                "agents": None,
                "issuer": "https://id.example",
                "audience": "us",
                "tenant": "${claim:org}",
            }
        ],
        "limits": [{"tenant": "*", "sessions_at_once": 5, "sessions_per_minute": None, "tokens_per_day": None}],
        "older": False,
    }


def test_agents() -> None:
    assert USER.may_use("any")
    limited = Caller("user", agents=frozenset({"support"}))
    assert limited.may_use("support")
    assert not limited.may_use("other")
