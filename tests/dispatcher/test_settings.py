"""The Dispatcher's own rules for its settings; what all settings share is tested in tests/shared/test_config.py."""

import pytest

from dispatcher.settings import DispatcherSettings
from shared.config import load
from shared.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("*", ("*",)),
        ("null", ("null",)),
        ("https://a.example, http://[::1]:3000", ("https://a.example", "http://[::1]:3000")),
    ],
)
def test_origins(monkeypatch: pytest.MonkeyPatch, value: str, origins: tuple[str, ...]) -> None:
    monkeypatch.setenv("DISPATCHER_CORS_ORIGINS", value)
    assert load(DispatcherSettings).cors_origins == origins


@pytest.mark.parametrize("value", ["a.example", "https://a.example/", "https://a.example,b", "https://A.example"])
def test_what_no_browser_sends_as_an_origin_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DISPATCHER_CORS_ORIGINS", value)
    with pytest.raises(ConfigError, match=r"^DISPATCHER_CORS_ORIGINS: must be \* or origins like https://a.example"):
        load(DispatcherSettings)


def test_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_ALLOWED_HOSTS", "api.example, 10.0.0.1,[::1],dispatcher_1")
    assert load(DispatcherSettings).allowed_hosts == ("api.example", "10.0.0.1", "[::1]", "dispatcher_1")


@pytest.mark.parametrize("value", ["https://a.example", "a.example:80", "A.example", "a.example/", "*", "::1", "a b"])
def test_what_no_host_is_compared_to_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DISPATCHER_ALLOWED_HOSTS", value)
    with pytest.raises(ConfigError, match=r"^DISPATCHER_ALLOWED_HOSTS: must be names like api.example, in lower case"):
        load(DispatcherSettings)


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_STORE", "redis://user:p4ssword@redis/0")
    monkeypatch.setenv("DISPATCHER_KEY", "mst_p4ssword")
    assert "p4ssword" not in repr(load(DispatcherSettings))


def test_a_body_fits_into_what_a_commander_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_MAX_BODY_BYTES", str(8 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match=r"^DISPATCHER_MAX_BODY_BYTES: .*8388608"):
        load(DispatcherSettings)
