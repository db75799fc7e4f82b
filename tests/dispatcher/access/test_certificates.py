"""What an edge shows, as its files change."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from dispatcher.access.certificates import Certificates
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings, MutualTls
from shared.config import load
from shared.errors import ConfigError
from shared.tls import read
from tests.certificates import Authority


def value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(f"dispatcher_tls_{name}", {"edge": "operator"})


async def test_changed_files_are_taken_and_broken_ones_are_not(tmp_path: Path) -> None:
    authority, registry = Authority(tmp_path), CollectorRegistry()
    files = authority.issue("edge")
    shown = Certificates("operator", MutualTls(cert=files.cert, key=files.key), Metrics(registry))
    first = shown.context()
    assert value(registry, "certificate_expiry_seconds") == read(files.cert, files.key).expires_at
    assert value(registry, "reload_success") == 1

    files.key.write_text("broken")
    with capture_logs() as logs:
        await shown.reload()
    assert shown.context() is first
    assert value(registry, "reload_success") == 0
    assert [(each["event"], each["edge"], each["error"]) for each in logs] == [
        ("tls_reload_failed", "operator", f"{files.key}: not an unencrypted key in PEM, or not that of {files.cert}")
    ]

    authority.issue("edge", days=3)
    await shown.reload()
    assert shown.context() is not first
    assert value(registry, "certificate_expiry_seconds") == read(files.cert, files.key).expires_at
    assert value(registry, "reload_success") == 1


def test_files_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    files = MutualTls(cert=tmp_path / "none.pem", key=tmp_path / "none.key")
    with pytest.raises(ConfigError) as raised:
        Certificates("grpc", files, Metrics(CollectorRegistry()))
    assert str(raised.value) == f"DISPATCHER_GRPC_TLS: {tmp_path}/none.pem: no such file or directory"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("HTTP_TLS__CERT", "DISPATCHER_HTTP_TLS: CERT and KEY have to be given together"),
        ("GRPC_TLS__CLIENT_CA", "DISPATCHER_GRPC_TLS: CLIENT_CA needs CERT and KEY"),
        ("HTTP_TLS__CLIENT_CA", "DISPATCHER_HTTP_TLS__CLIENT_CA: unknown setting"),
    ],
)
def test_halves_of_the_settings_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, error: str) -> None:
    monkeypatch.setenv(f"DISPATCHER_{name}", "a.pem")
    with pytest.raises(ConfigError, match=f"^{error}"):
        load(DispatcherSettings)
