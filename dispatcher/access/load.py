"""The access rules from their file. All that is wrong is told at once, and nothing of what keys are."""

import datetime
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from dispatcher.access.rules import (
    CLAIM,
    DEFAULT_TENANT,
    NAME,
    ROLES,
    AccessKey,
    AccessRole,
    AccessRules,
    Caller,
    CertificateRule,
    IssuerRule,
)
from dispatcher.access.tokens import parse_keys
from dispatcher.core.tenant_limits import TenantLimit
from dispatcher.files.document import Fault, FileError, Where, document, listed_tables, quoted
from dispatcher.files.entry import FileEntry, listed
from shared import http_environment
from shared.addresses import is_loopback
from shared.errors import ConfigError

TOP = ("key", "certificate", "issuer", "limit", "older", "metrics")
# Signed with a private key: whoever may read what a token is checked by cannot make one.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

MAX_TOKENS_PER_DAY = 10**15
MAX_LIMIT = 10_000  # each session that counts is looked at where a limit is reached: milliseconds, with so many
MAX_CLAIMS = 16  # that go on with each session

FileNamed: TypeAlias = Callable[[Path], object]


def load(path: Path, reading: FileNamed | None = None) -> AccessRules:
    """reading: called with each file that this one names, before it is read. Raises FileError."""
    faults: list[Fault] = []
    if path.is_dir():
        raise FileError([Fault(Where(path), "is a folder; access rules stand in one file")])
    found = document(path, faults)
    rules = _rules(path, found, faults, reading or (lambda _: None)) if found is not None else AccessRules()
    if faults:
        raise FileError(faults)
    return rules


def _rules(path: Path, found: dict[str, Any], faults: list[Fault], reading: FileNamed) -> AccessRules:
    top = FileEntry(Where(path), found, faults)
    top.only(TOP, "access rules")
    metrics = top.choice("metrics", ("open", "operator"), "open")
    older = FileEntry(Where(path, "older"), top.table("older"), faults)
    older.only(("allow",), "[older]")
    keys = [_key(entry) for entry in _entries(path, found, "key", faults)]
    _check_distinct(path, keys, faults)
    return AccessRules(
        keys=tuple(keys),
        certificates=tuple(_certificate(entry) for entry in _entries(path, found, "certificate", faults)),
        issuers=tuple(_issuer(entry, path.parent, reading) for entry in _entries(path, found, "issuer", faults)),
        limits=tuple(map(_limit, _entries(path, found, "limit", faults))),
        older=older.flag("allow"),
        closed_metrics=metrics == "operator",
    )


def _entries(path: Path, found: dict[str, Any], kind: str, faults: list[Fault]) -> list[FileEntry]:
    return [FileEntry(where, table, faults) for where, table in listed_tables(path, found, kind, faults)]


def _key(entry: FileEntry) -> AccessKey:
    entry.only(("name", "role", "sha256", "tenant", "agents", "expires"), "a key")
    role = _role(entry, ROLES)
    tenant = DEFAULT_TENANT if role == "user" else ""
    if "tenant" in entry:
        tenant = _name(entry, "tenant")
        entry.check(role == "user", "`tenant` is a user's", "tenant")
    digest = entry.get("sha256")
    right = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest) is not None
    entry.check(right, "`sha256` has to be the 64 hexadecimal digits that `dispatcher keys new` writes", "sha256")
    caller = Caller(role, _name(entry, "name"), tenant, _agents(entry, role))
    return AccessKey(caller, bytes.fromhex(digest) if right else b"", _expires(entry))


def _certificate(entry: FileEntry) -> CertificateRule:
    entry.only(("san", "role", "agents"), "a certificate")
    role = _role(entry, tuple(role for role in ROLES if role != "user"))
    return CertificateRule(entry.text("san"), role, _agents(entry, role))


def _issuer(entry: FileEntry, folder: Path, reading: FileNamed) -> IssuerRule:
    entry.only(("issuer", "audience", "jwks", "algorithms", "role", "tenant", "agents", "forward"), "an issuer")
    role = _role(entry, tuple(role for role in ROLES if role != "commander"))
    tenant = DEFAULT_TENANT if role == "user" else ""
    if "tenant" in entry:
        tenant = _name(entry, "tenant")
        entry.check(role == "user", "`tenant` is a user's", "tenant")
        right = "${" not in CLAIM.sub("", tenant)
        entry.check(right, "what `tenant` takes of a token is written as ${claim:NAME}", "tenant")
    algorithms = entry.texts("algorithms", "algorithm")
    for number, algorithm in enumerate(algorithms, 1):
        reason = f"algorithm {number} is none of {listed(ALGORITHMS)}"
        entry.check(not algorithm or algorithm in ALGORITHMS, reason, "algorithms", number)
    where, document = _jwks(entry, folder, reading, tuple(algorithms))
    agents = _agents(entry, role)
    forward = tuple(entry.texts("forward", "claim")) if "forward" in entry else ()
    entry.check(len(forward) <= MAX_CLAIMS, f"`forward` has more than {MAX_CLAIMS} claims", "forward")
    entry.check(not forward or role == "user", "`forward` is of a user's claims", "forward")
    issuer, audience = entry.text("issuer"), entry.text("audience")
    return IssuerRule(issuer, audience, where, tuple(algorithms), role, tenant, agents, document, forward)


def _jwks(entry: FileEntry, folder: Path, reading: FileNamed, algorithms: tuple[str, ...]) -> tuple[str, bytes]:
    """An issuer's keys: where they are, and what is there if that is a file, which stands beside this one."""
    where = entry.text("jwks")
    if "://" in where:
        _check_address(entry, where)
        return where, b""
    if not where:
        return where, b""
    file = folder / where
    reading(file)
    try:
        document = file.read_bytes()
        if entry.faultless:
            parse_keys(document, algorithms)
    except OSError as error:
        entry.wrong(f"`jwks`: {file}: {error.strerror or 'cannot be read'}", "jwks")
    except ValueError as error:
        entry.wrong(f"`jwks`: {file} {error}", "jwks")
    else:
        return str(file), document
    return str(file), b""


def _check_address(entry: FileEntry, address: str) -> None:
    """Whoever can answer there can sign in as anybody."""
    try:
        url = urlsplit(address)
        host = url.hostname or ""
        right = url.scheme == "https" or (url.scheme == "http" and is_loopback(host))
        usable = bool(host) and url.port != 0 and url.username is None
    except ValueError:
        right = usable = False
    entry.check(right and usable, "`jwks` has to be a file or an https address (http: on this machine alone)", "jwks")
    try:
        http_environment.check()
    except ConfigError as error:
        entry.wrong(str(error), "jwks")


def _limit(entry: FileEntry) -> TenantLimit:
    counts = {"sessions_at_once": MAX_LIMIT, "sessions_per_minute": MAX_LIMIT, "tokens_per_day": MAX_TOKENS_PER_DAY}
    entry.only(("tenant", *counts), "a limit")
    entry.check(any(count in entry for count in counts), f"has none of {listed(tuple(counts))}")
    given = {count: entry.count(count, 1, 1, most) for count, most in counts.items() if count in entry}
    return TenantLimit(_name(entry, "tenant"), **given)


def _role(entry: FileEntry, roles: tuple[AccessRole, ...]) -> AccessRole:
    if "role" not in entry:
        entry.wrong("`role` is missing", "role")
        return roles[-1]
    return entry.choice("role", roles, roles[-1])


def _name(entry: FileEntry, key: str) -> str:
    name = entry.text(key)
    entry.check(
        not name or NAME.fullmatch(name) is not None, f"`{key}` has to be one line of 128 characters at most", key
    )
    return name


def _agents(entry: FileEntry, role: AccessRole) -> frozenset[str] | None:
    if "agents" not in entry:
        return None
    entry.check(role in ("user", "commander"), "`agents` are a user's or a Commander's", "agents")
    return frozenset(entry.texts("agents", "agent"))


def _expires(entry: FileEntry) -> float:
    """A date: from its beginning in UTC."""
    at = entry.get("expires")
    if at is None:
        return math.inf
    if isinstance(at, datetime.datetime):
        if at.tzinfo is not None:
            return at.timestamp()
    elif isinstance(at, datetime.date):
        return datetime.datetime(at.year, at.month, at.day, tzinfo=datetime.UTC).timestamp()
    entry.wrong("`expires` has to be a date, or a time with its zone, without quotes", "expires")
    return -math.inf


def _check_distinct(path: Path, keys: list[AccessKey], faults: list[Fault]) -> None:
    names: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for number, key in enumerate(keys, 1):
        where = Where(path, "key", number, key.caller.subject)
        if key.caller.subject and (first := names.setdefault(key.caller.subject, number)) != number:
            faults.append(Fault(where, f"its name is taken by key {first}", "name"))
        if key.digest and (first := digests.setdefault(key.digest, number)) != number:
            faults.append(Fault(where, f"its `sha256` is that of key {first} {quoted(keys[first - 1].caller.subject)}"))
