"""The Commander's own rules for its settings; what all settings share is tested in tests/shared/test_config.py."""

import pytest

from commander.settings import CommanderSettings
from shared.config import load
from shared.errors import ConfigError


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "[::1]:50051",
        "dns:///a:1",
        "dns://8.8.8.8/a:1",
        "dns:a",
        "ipv4:1.2.3.4:1,1.2.3.5:2",
        "unix:/a",
    ],
)
def test_any_grpc_target(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setenv("COMMANDER_DISPATCHER", target)
    assert load(CommanderSettings).dispatcher == target


@pytest.mark.parametrize("target", ["http://127.0.0.1:50051", "bogus://x", "dns:///", "dns:", "ipv4:", "localhost:"])
def test_what_is_no_target_is_refused(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setenv("COMMANDER_DISPATCHER", target)
    with pytest.raises(ConfigError, match=f"^COMMANDER_DISPATCHER: must be a gRPC target.*got '{target}'$"):
        load(CommanderSettings)
