"""Who a caller is, by what it shows, and what such a caller may do. Pure: times come in as arguments."""

import hashlib
import hmac
import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, get_args

import msgspec

from dispatcher.core.tenant_limits import TenantLimit

AccessRole: TypeAlias = Literal["user", "commander", "operator", "auditor", "metrics"]
ROLES: tuple[AccessRole, ...] = get_args(AccessRole)
DEFAULT_TENANT = "default"
NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,128}")  # of keys and tenants: they stand in logs, and before keys
CLAIM = re.compile(r"\$\{claim:([^{}]+)\}")  # of a token, in a text


class Caller(msgspec.Struct, frozen=True):
    """subject: the entry's name; of a certificate the name in it, of a token its `sub`. tenant: whose sessions are a
    user's; empty where access is open. agents: that a user may ask for and a Commander offer; None: all. claims: of
    a token, by name, those that agents and tools are told. issued: it showed a token of an issuer.
    """

    role: AccessRole
    subject: str = ""
    tenant: str = ""
    agents: frozenset[str] | None = None
    claims: tuple[tuple[str, str], ...] = ()
    issued: bool = False

    def may_use(self, agent: str) -> bool:
        return self.agents is None or agent in self.agents


class AccessKey(msgspec.Struct, frozen=True):
    """digest: of the key's SHA-256. expires_at: Unix seconds; infinite: never."""

    caller: Caller
    digest: bytes
    expires_at: float


class CertificateRule(msgspec.Struct, frozen=True):
    """san: a name of a certificate; a `*` stands for anything but `/`."""

    san: str
    role: AccessRole
    agents: frozenset[str] | None = None

    def fits(self, name: str) -> bool:
        return re.fullmatch("[^/]*".join(map(re.escape, self.san.split("*"))), name) is not None


class IssuerRule(msgspec.Struct, frozen=True):
    """tenant: with `${claim:NAME}` where a token's claim is to stand. jwks: where its keys are. document: those keys,
    of a file; empty: `jwks` is an address. forward: claims that agents and tools are told, where a token has them.
    """

    issuer: str
    audience: str
    jwks: str
    algorithms: tuple[str, ...]
    role: AccessRole
    tenant: str = ""
    agents: frozenset[str] | None = None
    document: bytes = b""
    forward: tuple[str, ...] = ()


class AccessRules(msgspec.Struct, frozen=True):
    """older: peers of the published contract, which can show nothing, may come. closed_metrics: `/metrics` wants an
    operator.
    """

    keys: tuple[AccessKey, ...] = ()
    certificates: tuple[CertificateRule, ...] = ()
    issuers: tuple[IssuerRule, ...] = ()
    limits: tuple[TenantLimit, ...] = ()
    older: bool = False
    closed_metrics: bool = False

    def by_token(self, token: bytes, now: float) -> Caller | None:
        """Every key is compared, in a time that depends on none of them."""
        digest = digest_of(token)
        found: Caller | None = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest) and now < key.expires_at:
                found = key.caller
        return found

    def knows(self, subject: str, tenant: str, now: float) -> bool:
        """Whether somebody may still be that user: by a key, or by a token of an issuer, which cannot be told."""
        return any(rule.role == "user" for rule in self.issuers) or any(
            (key.caller.role, key.caller.subject, key.caller.tenant) == ("user", subject, tenant)
            and now < key.expires_at
            for key in self.keys
        )

    def by_certificate(self, names: Iterable[str]) -> Caller | None:
        """Of a certificate that was verified, by its names; the first rule that fits one."""
        every = list(names)
        for rule in self.certificates:
            for name in every:
                if rule.fits(name):
                    return Caller(rule.role, name, agents=rule.agents)
        return None

    def shown(self) -> dict[str, object]:
        """For operators: who may come, and what with; nothing by which anybody could, nor a key's digest."""
        return {
            "keys": [{**_who(key.caller), "expires_at": _finite(key.expires_at)} for key in self.keys],
            "certificates": [_may(rule.role, rule.agents) | {"san": rule.san} for rule in self.certificates],
            "issuers": [
                _may(rule.role, rule.agents) | {"issuer": rule.issuer, "audience": rule.audience, "tenant": rule.tenant}
                for rule in self.issuers
            ],
            "limits": [
                {name: value for name, value in msgspec.structs.asdict(limit).items() if name != "spent"}
                for limit in self.limits
            ],
            "older": self.older,
        }


def _who(caller: Caller) -> dict[str, object]:
    return _may(caller.role, caller.agents) | {"name": caller.subject, "tenant": caller.tenant}


def _may(role: AccessRole, agents: frozenset[str] | None) -> dict[str, object]:
    return {"role": role, "agents": None if agents is None else sorted(agents)}


def _finite(at: float) -> float | None:
    return None if at == math.inf else at


class UnknownCaller(Exception):
    """It is not known who calls: nothing was shown, or nothing that is valid. Nobody is told which."""


def digest_of(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def identify(rules: AccessRules, authorization: Sequence[bytes], names: Iterable[str], now: float) -> Caller:
    """authorization: all headers of that name; where there is one, no certificate counts. Raises UnknownCaller."""
    caller = rules.by_token(bearer(authorization), now) if authorization else rules.by_certificate(names)
    if caller is None:
        raise UnknownCaller
    return caller


def bearer(authorization: Sequence[bytes]) -> bytes:
    """The one token that is shown. Raises UnknownCaller."""
    scheme, _, token = authorization[0].partition(b" ") if len(authorization) == 1 else (b"", b"", b"")
    if scheme.lower() != b"bearer":
        raise UnknownCaller
    return token.strip()
