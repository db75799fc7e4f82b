"""The access rules from their file. All that is wrong is told at once, and nothing of what keys are."""

import datetime
import math
import re
from pathlib import Path
from typing import Any

from dispatcher.access.rules import DEFAULT_TENANT, ROLES, AccessKey, AccessRole, AccessRules, Caller, CertificateRule
from dispatcher.files.document import Fault, FileError, Where, document, listed_tables, quoted
from dispatcher.files.entry import FileEntry

TOP = ("key", "certificate", "older", "metrics")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")  # of keys and tenants: they stand in logs, and before idempotency keys


def load(path: Path) -> AccessRules:
    """Raises FileError."""
    faults: list[Fault] = []
    if path.is_dir():
        raise FileError([Fault(Where(path), "is a folder; access rules stand in one file")])
    found = document(path, faults)
    rules = _rules(path, found, faults) if found is not None else AccessRules()
    if faults:
        raise FileError(faults)
    return rules


def _rules(path: Path, found: dict[str, Any], faults: list[Fault]) -> AccessRules:
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


def _role(entry: FileEntry, roles: tuple[AccessRole, ...]) -> AccessRole:
    if "role" not in entry:
        entry.wrong("`role` is missing", "role")
        return roles[-1]
    return entry.choice("role", roles, roles[-1])


def _name(entry: FileEntry, key: str) -> str:
    name = entry.text(key)
    entry.check(
        not name or _NAME.fullmatch(name) is not None, f"`{key}` has to be one line of 128 characters at most", key
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
