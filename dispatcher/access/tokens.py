"""Tokens of OpenID Connect's issuers: their keys, and who a token says that calls.

All of JOSE is PyJWT's: maintained for ten years, over `cryptography` alone, and in the lock already, as `mcp` needs it;
`joserfc` is kept as well, but does encryption and JWE too, of which nothing is used here.
"""

import re
from typing import Any, NamedTuple, TypeAlias

import jwt
import msgspec

from dispatcher.access.rules import CLAIM, NAME, Caller, IssuerRule

LEEWAY_SECONDS = 30.0  # by which an issuer's clock may be wrong
MAX_KEYS = 100  # of an issuer; two or three are usual
_REQUIRED = ["iss", "aud", "exp", "sub"]
_SUBJECT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,255}")  # OpenID Connect Core, section 2, has that length
MAX_CLAIM = 1024  # characters of one that goes on with a session
_LINE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")  # a claim may come to stand in a log or a header

Keys: TypeAlias = dict[tuple[str, str], jwt.PyJWK]  # by its `kid` and the algorithm that it is for


class Shown(NamedTuple):
    """What a token says of itself, before anything of it is believed."""

    issuer: str
    algorithm: str
    kid: str


class _KeySet(msgspec.Struct):
    keys: list[dict[str, Any]]


class _Header(msgspec.Struct):
    alg: str
    kid: str


class _Claims(msgspec.Struct):
    iss: str


class _SignedToken(msgspec.Struct):
    header: _Header
    payload: _Claims


def parse_keys(document: bytes, algorithms: tuple[str, ...]) -> Keys:
    """Those of a JWK set (RFC 7517) that are of use: with a `kid`, public, for signatures, and for one of these
    algorithms. Raises ValueError: there are none.
    """
    try:
        listed = msgspec.json.decode(document, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("is no JWK set") from None
    found: Keys = {}
    for key in listed[:MAX_KEYS]:
        kid, use = key.get("kid"), key.get("use", "sig")
        if not isinstance(kid, str) or use != "sig" or "d" in key:
            continue
        for algorithm in algorithms:
            if key.get("alg", algorithm) == algorithm and (usable := _key(key, algorithm)):
                found.setdefault((kid, algorithm), usable)
    if not found:
        raise ValueError("holds no key with a `kid` that is for one of the algorithms")
    return found


def _key(key: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        usable = jwt.PyJWK(key, algorithm)
        short = usable.Algorithm.check_key_length(usable.key)
        usable.Algorithm.prepare_key(usable.key)
    except Exception:  # of a kind that this algorithm is not for, or whatever a foreign document makes of one
        return None
    return None if short else usable


def shown(token: bytes) -> Shown | None:
    """None: it is no token at all."""
    try:
        found = jwt.decode_complete(token, options={"verify_signature": False})
        told = msgspec.convert(found, type=_SignedToken)
    except (jwt.PyJWTError, msgspec.ValidationError):
        return None
    return Shown(told.payload.iss, told.header.alg, told.header.kid)


def caller_by(token: bytes, rule: IssuerRule, key: jwt.PyJWK) -> Caller | None:
    """Who calls; None: it is not signed by that key, not for this audience, not valid now, or lacks what the rule
    needs.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=rule.algorithms,
            audience=rule.audience,
            issuer=rule.issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": _REQUIRED, "enforce_minimum_key_length": True},
        )
    except jwt.PyJWTError:
        return None
    subject, tenant = claims["sub"], _filled(rule.tenant, claims)
    if not _SUBJECT.fullmatch(subject) or tenant is None:
        return None
    forwarded = tuple((name, claims[name]) for name in rule.forward if _told(claims.get(name)))
    return Caller(rule.role, subject, tenant, rule.agents, forwarded, issued=True)


def _told(claim: object) -> bool:
    return isinstance(claim, str) and len(claim) <= MAX_CLAIM and _LINE.fullmatch(claim) is not None


def _filled(template: str, claims: dict[str, Any]) -> str | None:
    """The tenant; None: a claim of it is not there, or no name."""
    for name in CLAIM.findall(template):
        if not isinstance(claims.get(name), str) or not claims[name]:
            return None
    filled = CLAIM.sub(lambda found: str(claims[found[1]]), template)
    return filled if not template or NAME.fullmatch(filled) else None
