"""`deploy/make_keys.py`: each reader gets what fits the others', and what is made once stays."""

import hashlib
import os
import runpy
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from dispatcher.access.load import load
from shared import tls
from tests.compose.stack import ROOT

READERS = ("yours", "dispatcher", "commander", "haproxy", "prometheus", "redis")
SECRET = {
    "yours/user": 0,
    "yours/operator": 0,
    "commander/token": 10001,
    "prometheus/token": 65534,
    "dispatcher/access.toml": 10001,
    "dispatcher/grpc.key": 10001,
    "dispatcher/redis": 10001,
}


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Inode → the user to whom its file was given."""
    given: dict[int, int] = {}
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.__setitem__(Path(path).stat().st_ino, user))
    return given


@pytest.fixture
def make(tmp_path: Path, owners: dict[int, int]) -> Callable[[Path], bool]:
    for reader in READERS:
        (tmp_path / reader).mkdir()
    made: Callable[[Path], bool] = runpy.run_path(str(ROOT / "deploy" / "make_keys.py"))["make"]
    return made


def held(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_is_shown_is_what_is_known(tmp_path: Path, make: Callable[[Path], bool]) -> None:
    assert make(tmp_path)
    texts = held(tmp_path)
    rules = load(tmp_path / "dispatcher" / "access.toml")
    keys = ("yours/user", "yours/operator", "commander/token", "prometheus/token")
    callers = [rules.by_token(texts[name].encode(), time.time()) for name in keys]
    assert [caller and caller.role for caller in callers] == ["user", "operator", "commander", "metrics"]
    assert rules.closed_metrics
    digest = hashlib.sha256(texts["dispatcher/redis"].encode()).hexdigest()
    assert f"user dispatcher on #{digest} ~midsentence:* " in texts["redis/users.acl"]
    assert "user default off ~* &* +@all\n" in texts["redis/users.acl"]
    certificate = tmp_path / "dispatcher" / "grpc.crt"
    tls.read(certificate, tmp_path / "dispatcher" / "grpc.key", tmp_path / "commander" / "grpc.crt")
    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    hosts = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["dispatcher"]
    assert texts["haproxy/grpc.crt"] == texts["commander/grpc.crt"] == texts["dispatcher/grpc.crt"]


def test_secrets_are_their_readers_alone(tmp_path: Path, make: Callable[[Path], bool], owners: dict[int, int]) -> None:
    make(tmp_path)
    for name, owner in SECRET.items():
        found = (tmp_path / name).stat()
        assert (stat.S_IMODE(found.st_mode), owners[found.st_ino]) == (0o600, owner), name
    shown = {name: text for name, text in held(tmp_path).items() if name not in SECRET}
    assert shown.keys() == {
        "redis/users.acl",
        *(f"{reader}/grpc.crt" for reader in ("dispatcher", "commander", "haproxy")),
    }
    assert not [
        (name, secret) for name, text in shown.items() for secret in SECRET if (tmp_path / secret).read_text() in text
    ]


def test_once(tmp_path: Path, make: Callable[[Path], bool]) -> None:
    make(tmp_path)
    before = held(tmp_path)
    assert not make(tmp_path)
    assert held(tmp_path) == before


def test_what_broke_off_is_made_anew(
    tmp_path: Path, make: Callable[[Path], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the attempt is left, so that all fits."""

    def breaks(path: Path, target: Path) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", breaks)
        with pytest.raises(OSError, match="full"):
            make(tmp_path)
    assert make(tmp_path)
    rules = load(tmp_path / "dispatcher" / "access.toml")
    assert len(rules.keys) == 4
    assert rules.by_token((tmp_path / "yours" / "user").read_bytes(), time.time())
