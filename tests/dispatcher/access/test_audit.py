"""The audit log: lines of JSON in a file of its own, whatever becomes of that file."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.access.audit import AuditLog
from dispatcher.access.rules import Caller
from dispatcher.metrics import Metrics
from shared.errors import ConfigError
from shared.logs import KIND_LINES

USER = Caller("user", "web", "acme")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def lost(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("dispatcher_audit_lines_lost_total")


def test_a_line_says_who_did_what(path: Path, registry: CollectorRegistry) -> None:
    audit = AuditLog(str(path), Metrics(registry))
    audit.write("session_stopped", USER, session_id="s\n1", status=202)
    audit.write("drain_begun")
    audit.close()
    audit.write("session_stopped", USER)
    first, second = told(path)
    assert first.pop("at") <= second.pop("at")
    who = {"role": "user", "subject": "web", "tenant": "acme"}
    assert first == {"event": "session_stopped", **who, "session_id": "s\n1", "status": 202}
    assert second == {"event": "drain_begun"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert lost(registry) == 0


def test_a_file_that_was_moved_away_is_begun_anew(path: Path, registry: CollectorRegistry) -> None:
    """As programs do that keep logs short."""
    audit = AuditLog(str(path), Metrics(registry))
    audit.write("one")
    old = path.rename(path.with_suffix(".1"))
    audit.write("two")
    path.unlink()
    audit.write("three")
    audit.close()
    assert [line["event"] for line in told(old) + told(path)] == ["one", "three"]


def test_what_is_there_stays(path: Path, registry: CollectorRegistry) -> None:
    path.write_text('{"event": "before"}\n')
    audit = AuditLog(str(path), Metrics(registry))
    audit.write("after")
    audit.close()
    assert [line["event"] for line in told(path)] == ["before", "after"]


def test_refusals_are_rationed_and_nothing_else_is(path: Path, registry: CollectorRegistry) -> None:
    audit = AuditLog(str(path), Metrics(registry))
    for _ in range(KIND_LINES + 5):
        audit.write("access_refused")
        audit.write("session_read", USER)
    audit.close()
    events = [line["event"] for line in told(path)]
    assert (events.count("access_refused"), events.count("session_read")) == (KIND_LINES, KIND_LINES + 5)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_line_that_cannot_be_written_is_counted(registry: CollectorRegistry) -> None:
    audit = AuditLog("/dev/full", Metrics(registry))
    audit.write("session_read", USER)
    audit.close()
    assert lost(registry) == 1


def test_a_folder_that_went_is_no_end(path: Path, registry: CollectorRegistry) -> None:
    folder = path.parent / "logs"
    folder.mkdir()
    audit = AuditLog(str(folder / "audit.log"), Metrics(registry))
    (folder / "audit.log").unlink()
    folder.rmdir()
    audit.write("one")
    folder.mkdir()
    audit.write("two")
    audit.close()
    assert [line["event"] for line in told(folder / "audit.log")] == ["two"]
    assert lost(registry) == 1


def test_standard_output(capfd: pytest.CaptureFixture[str], registry: CollectorRegistry) -> None:
    audit = AuditLog("-", Metrics(registry))
    audit.write("drain_begun")
    audit.close()
    assert json.loads(capfd.readouterr().out)["event"] == "drain_begun"


def test_without_one_nothing_is_written(tmp_path: Path, registry: CollectorRegistry) -> None:
    AuditLog(None, Metrics(registry)).write("drain_begun")
    assert not list(tmp_path.iterdir())
    assert lost(registry) == 0


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path, registry: CollectorRegistry) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        AuditLog(str(tmp_path / "none" / "audit.log"), Metrics(registry))
