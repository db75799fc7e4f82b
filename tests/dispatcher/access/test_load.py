"""The access file: what it may say, and all that is wrong with it at once."""

import datetime
import math
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from dispatcher.access.load import load
from dispatcher.access.rules import Caller, CertificateRule, IssuerRule
from dispatcher.access.watch import Access, AccessFile
from dispatcher.core.tenant_limits import TenantLimit
from dispatcher.files.document import FileError
from dispatcher.metrics import Metrics
from tests.issuer import ScriptedIssuer

A, B = "a" * 64, "b" * 64
GOOD = f"""
metrics = "operator"

[[key]]
name = "acme-web"
role = "user"
sha256 = "{A}"
tenant = "acme"
agents = ["support"]
expires = 2027-01-01

[[key]]
name = "ops"
role = "operator"
sha256 = "{B}"
expires = 2027-01-01T00:00:00+01:00

[[certificate]]
san = "spiffe://acme/commander/*"
role = "commander"

[older]
allow = true
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "access.toml"
    path.write_text(text)
    return path


def test_all_that_there_is(tmp_path: Path) -> None:
    rules = load(written(tmp_path, GOOD))
    assert [key.caller for key in rules.keys] == [
        Caller("user", "acme-web", "acme", frozenset({"support"})),
        Caller("operator", "ops"),
    ]
    new_year = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert [key.expires_at for key in rules.keys] == [new_year, new_year - 3600]
    assert rules.certificates == (CertificateRule("spiffe://acme/commander/*", "commander"),)
    assert rules.older
    assert rules.closed_metrics


def test_defaults(tmp_path: Path) -> None:
    rules = load(written(tmp_path, f'[[key]]\nname = "a"\nrole = "user"\nsha256 = "{A}"'))
    assert rules.keys[0].caller == Caller("user", "a", "default")
    assert rules.keys[0].expires_at == math.inf
    assert not rules.older
    assert not rules.closed_metrics


KEY = f'[[key]]\nname = "a"\nrole = "user"\nsha256 = "{A}"\n'


ISSUER = """
[[issuer]]
issuer = "https://login.acme.example"
audience = "midsentence"
jwks = "https://login.acme.example/jwks"
algorithms = ["RS256", "ES256"]
role = "user"
tenant = "${claim:org_id}"
"""
JWKS = 'jwks = "https://login.acme.example/jwks"'


def test_an_issuer(tmp_path: Path) -> None:
    rule = IssuerRule(
        "https://login.acme.example",
        "midsentence",
        "https://login.acme.example/jwks",
        ("RS256", "ES256"),
        "user",
        "${claim:org_id}",
    )
    assert load(written(tmp_path, ISSUER)).issuers == (rule,)
    local = load(written(tmp_path, ISSUER.replace("https://login.acme.example/jwks", "http://127.0.0.1:8080/jwks")))
    assert local.issuers[0].jwks == "http://127.0.0.1:8080/jwks"
    assert load(written(tmp_path, ISSUER.replace("tenant", "#"))).issuers[0].tenant == "default"


def test_an_issuers_keys_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(document := ScriptedIssuer().document)
    read: list[Path] = []
    rules = load(written(tmp_path, ISSUER.replace(JWKS, 'jwks = "keys.json"')), read.append)
    assert rules.issuers[0].document == document
    assert read == [tmp_path / "keys.json"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("keys = 1", 'unknown key "keys"'),
        ("key = 1", "keys are written as [[key]]"),
        ('metrics = "closed"', "unknown metrics 'closed'"),
        ("older = true", "`older` has to be a table"),
        ('[older]\nallow = "yes"', "`allow` has to be true or false"),
        ("[[key]]", "`role` is missing"),
        (KEY.replace('"user"', '"admin"'), "unknown role 'admin'"),
        (KEY.replace(A, A.upper()), "`sha256` has to be the 64 hexadecimal digits"),
        (KEY.replace(A, "mst_secret"), "`sha256` has to be the 64 hexadecimal digits"),
        (KEY + 'expires = "2027-01-01"', "`expires` has to be a date"),
        (KEY + "expires = 2027-01-01T00:00:00", "`expires` has to be a date"),
        (KEY + "agents = []", "`agents` has to be a list"),
        (KEY + "tenant = 'a\\nb'".replace("'", '"'), "`tenant` has to be one line"),
        (KEY.replace("user", "operator") + 'tenant = "a"', "`tenant` is a user's"),
        (KEY.replace("user", "auditor") + 'agents = ["a"]', "`agents` are a user's or a Commander's"),
        (KEY + "expire = 1", 'unknown key "expire" for a key'),
        (KEY + KEY.replace(A, B), "its name is taken by key 1"),
        (KEY + KEY.replace('"a"', '"b"'), 'its `sha256` is that of key 1 "a"'),
        ('[[certificate]]\nsan = "a"\nrole = "user"', "unknown role 'user'"),
        ('[[certificate]]\nrole = "commander"', "`san` has to be a text"),
        ('[[limit]]\ntenant = "*"', 'has none of "sessions_at_once", "sessions_per_minute", "tokens_per_day"'),
        ("[[limit]]\nsessions_at_once = 1", "`tenant` has to be a text"),
        ('[[limit]]\ntenant = "*"\nsessions_at_once = 0', "`sessions_at_once` has to be a whole number, 1 to 10000"),
        ('[[limit]]\ntenant = "*"\nsessions_per_minute = true', "`sessions_per_minute` has to be a whole number"),
        ('[[limit]]\ntenant = "*"\ntokens_per_day = 0.5', "`tokens_per_day` has to be a whole number, 1 to"),
        ("[[issuer]]", "`role` is missing"),
        (ISSUER.replace('"user"', '"commander"'), "unknown role 'commander'"),
        (ISSUER.replace("RS256", "HS256"), 'algorithm 1 is none of "RS256",'),
        (ISSUER.replace("RS256", "none"), 'algorithm 1 is none of "RS256",'),
        (ISSUER.replace('["RS256", "ES256"]', "[]"), "`algorithms` has to be a list"),
        (ISSUER.replace("user", "auditor"), "`tenant` is a user's"),
        (ISSUER + 'forward = "email"', "`forward` has to be a list of texts"),
        (ISSUER.replace("user", "auditor").replace("tenant", "#") + 'forward = ["email"]', "`forward` is of a user's"),
        (ISSUER.replace("claim:org_id", "org_id"), "written as ${claim:NAME}"),
        (ISSUER.replace("audience", "aud"), "`audience` has to be a text"),
        (ISSUER.replace(JWKS, 'jwks = "http://login.acme.example/jwks"'), "has to be a file or an https address"),
        (ISSUER.replace(JWKS, 'jwks = "https://me:secret@login/jwks"'), "has to be a file or an https address"),
        (ISSUER.replace(JWKS, 'jwks = "ftp://127.0.0.1/jwks"'), "has to be a file or an https address"),
        (ISSUER.replace(JWKS, 'jwks = "https://[/jwks"'), "has to be a file or an https address"),
        (ISSUER.replace(JWKS, 'jwks = "keys.json"'), "keys.json: No such file"),
        (ISSUER.replace(JWKS, 'jwks = "access.toml"'), "access.toml is no JWK set"),
        ("[", "Invalid"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(FileError) as raised:
        load(written(tmp_path, text))
    assert any(reason in str(fault) for fault in raised.value.faults), raised.value
    assert "mst_secret" not in str(raised.value)


def test_all_faults_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileError) as raised:
        load(written(tmp_path, 'keys = 1\nmetrics = 2\n[[key]]\nname = "a"\n[[certificate]]\n'))
    assert len(raised.value.faults) == 6


def test_a_folder_or_nothing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(FileError):
            load(path)


async def test_the_first_limit_that_fits_counts(tmp_path: Path) -> None:
    first = '[[limit]]\ntenant = "acme"\nsessions_at_once = 20\nsessions_per_minute = 60\n'
    more = '[[limit]]\ntenant = "*"\nsessions_at_once = 1\ntokens_per_day = 2_000_000\n'
    path = written(tmp_path, first + more)
    access = AccessFile(str(path), Metrics(CollectorRegistry()))
    assert access.limit_of("acme") == TenantLimit("acme", 20, 60)
    assert access.limit_of("other") == TenantLimit("*", 1, tokens_per_day=2_000_000)
    written(tmp_path, first)
    await access.reload()
    assert access.limit_of("other") is None
    assert Access(None).limit_of("") is None


async def test_a_changed_file_counts_and_a_broken_one_does_not(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    path = written(tmp_path, GOOD)
    access = AccessFile(str(path), Metrics(registry))
    before = access.rules
    written(tmp_path, "broken")
    with capture_logs() as logs:
        await access.reload()
    assert access.rules is before
    assert [each["event"] for each in logs] == ["access_broken"]
    assert registry.get_sample_value("dispatcher_access_reload_success") == 0
    written(tmp_path, KEY)
    await access.reload()
    assert access.rules
    assert [key.caller.subject for key in access.rules.keys] == ["a"]
    assert registry.get_sample_value("dispatcher_access_reload_success") == 1


@pytest.mark.parametrize("setting", [None, "open"])
async def test_without_a_file_access_is_open(setting: str | None) -> None:
    access = AccessFile(setting, Metrics(CollectorRegistry()))
    assert access.rules is None
    assert access.said == (setting == "open")
    await access.reload()
    assert access.rules is None
