"""Policy files that change while the server runs."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from dispatcher.files import watch
from dispatcher.files.document import FileError
from dispatcher.metrics import Metrics
from dispatcher.policies.rules import RuleSet
from dispatcher.policing import watch as policy_files
from dispatcher.policing.watch import PolicyFiles

RULE = '[[policy]]\nname = "{}"\nkind = "phrases"\nphrases = ["x"]\n'


class Used:
    """The rules that were put in force, in order."""

    def __init__(self) -> None:
        self.rules: asyncio.Queue[RuleSet] = asyncio.Queue()

    def __call__(self, rules: RuleSet) -> None:
        self.rules.put_nowait(rules)

    async def names(self) -> list[str]:
        async with asyncio.timeout(30):
            return [policy.name for policy in (await self.rules.get()).policies]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def watched(
    tmp_path: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[PolicyFiles, Used]]:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.005)
    (tmp_path / "a.toml").write_text(RULE.format("a"))
    files, used = PolicyFiles(tmp_path, Metrics(registry)), Used()
    files.load()
    task = asyncio.create_task(files.watch(used))
    yield files, used
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a file's change has no event to await
            await asyncio.sleep(0.005)


def told(files: PolicyFiles) -> Any:
    """What operators are told."""
    return files.status()


def success(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("dispatcher_policy_reload_success")


async def test_changed_new_and_removed_files_are_seen(watched: tuple[PolicyFiles, Used], tmp_path: Path) -> None:
    files, used = watched
    (tmp_path / "b.toml").write_text(RULE.format("b"))
    assert await used.names() == ["a", "b"]
    (tmp_path / "a.toml").write_text(RULE.format("other"))
    assert await used.names() == ["other", "b"]
    os.replace(tmp_path / "b.toml", tmp_path / "a.toml")  # noqa: PTH105
    assert await used.names() == ["b"]
    assert [policy["name"] for policy in told(files)["policies"]] == ["b"]


async def test_what_lives_while_rules_change_is_looked_at_by_the_collector(
    watched: tuple[PolicyFiles, Used], tmp_path: Path
) -> None:
    """Sessions end, and what is frozen with them in a circle would stay for ever."""
    _, used = watched
    before = gc.get_freeze_count()
    (tmp_path / "a.toml").write_text(RULE.format("other"))
    assert await used.names() == ["other"]
    assert gc.get_freeze_count() <= before


async def test_a_broken_file_keeps_the_rules_and_says_so(
    watched: tuple[PolicyFiles, Used], tmp_path: Path, registry: CollectorRegistry
) -> None:
    files, used = watched
    assert success(registry) == 1
    with capture_logs() as logs:
        (tmp_path / "a.toml").write_text('[[policy]]\nname = "a"\nkind = "phrase"\n')
        await until(lambda: files.status()["errors"])
    (error,) = told(files)["errors"]
    assert error.startswith(f"{tmp_path}/a.toml: policy 1 \"a\": unknown kind 'phrase'")
    assert [entry["errors"] for entry in logs if entry["event"] == "policies_broken"] == [error]
    assert success(registry) == 0
    assert used.rules.empty()
    assert [policy["name"] for policy in told(files)["policies"]] == ["a"]
    (tmp_path / "a.toml").unlink()
    await until(lambda: files.status()["errors"] == [f"{tmp_path}: no *.toml file in this folder"])
    (tmp_path / "a.toml").write_text(RULE.format("mended"))
    assert await used.names() == ["mended"]
    await until(lambda: success(registry) == 1)
    assert files.status()["errors"] == []


async def test_a_fault_of_ours_keeps_the_rules_too(
    watched: tuple[PolicyFiles, Used], monkeypatch: pytest.MonkeyPatch, registry: CollectorRegistry
) -> None:
    def broken(path: Path) -> RuleSet:
        raise RuntimeError("internals")

    files, used = watched
    monkeypatch.setattr(policy_files, "load", broken)
    await files.reload(used)
    assert used.rules.empty()
    assert success(registry) == 0
    assert "internals" not in repr(files.status())


async def test_asked_to_it_reads_also_what_has_not_changed(watched: tuple[PolicyFiles, Used]) -> None:
    files, used = watched
    await files.reload(used)
    assert await used.names() == ["a"]


def test_what_operators_are_told(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        """
        [[policy]]
        name = "numbers"
        kind = "patterns"
        patterns = ["secret.*"]
        action = "redact"
        [[policy]]
        name = "guardrail"
        kind = "http"
        url = "http://127.0.0.1:1"
        headers = {x-api-key = "s3cret"}
        [[policy]]
        name = "limits"
        kind = "budget"
        max_seconds = 1
        """
    )
    files = PolicyFiles(file, Metrics(CollectorRegistry()))
    with capture_logs() as logs:
        files.load()
    status = files.status()
    more = "pattern 1 can match more than 1000 characters (`cap`); what is undecided by then stops the session"
    assert status["notices"] == [{"policy": "numbers", "notice": more}]
    assert [(entry["event"], entry["policy"]) for entry in logs] == [("policy_notice", "numbers")]
    reads, reason = ["arguments", "content"], "PolicyViolation"
    assert status["policies"] == [
        {"name": "numbers", "kind": "patterns", "action": "redact", "reads": reads, "reason": reason},
        {"name": "guardrail", "kind": "http", "action": "stop", "reads": reads, "reason": reason, "mode": "gate"},
        {"name": "limits", "kind": "budget"},
    ]
    assert "secret" not in repr(status["policies"])


def test_the_rules_to_begin_with_have_to_be_right(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[[policy]]")
    with pytest.raises(FileError):
        PolicyFiles(tmp_path, Metrics(CollectorRegistry())).load()
    assert PolicyFiles(None, Metrics(CollectorRegistry())).load().policies


@pytest.mark.parametrize(
    ("limits", "missing"),
    [
        ("", ["max_seconds", "max_characters", "max_thought_characters"]),
        ("max_characters = 5", ["max_seconds", "max_thought_characters"]),
        ("max_seconds = 1\nmax_characters = 5\nmax_thought_characters = 9", []),
        (None, []),
    ],
)
def test_a_file_that_takes_the_built_in_budgets_place_is_told(
    limits: str | None, missing: list[str], tmp_path: Path, registry: CollectorRegistry
) -> None:
    file = tmp_path / "rules.toml"
    budget = f'[[policy]]\nname = "limits"\nkind = "budget"\n{limits}\n' if limits else ""
    file.write_text(RULE.format("a") + budget)
    files = PolicyFiles(None if limits is None else file, Metrics(registry))
    files.load()
    assert files.unbounded == missing
