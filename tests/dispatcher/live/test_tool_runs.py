"""Whose calls are given up, and when."""

from types import SimpleNamespace
from typing import cast

import pytest

from dispatcher.core.log import OpenCall
from dispatcher.live.ports import Owner
from dispatcher.live.tool_runs import ANSWER_SECONDS, ToolRuns
from dispatcher.tools.ports import UNKNOWN_TIMEOUT
from dispatcher.tools.registry import Registry
from shared.records import ToolResult
from tests.dispatcher.tools.fakes import FakeTool, spec


@pytest.mark.parametrize(("tool", "limit"), [("search", 20.0), ("elsewhere", UNKNOWN_TIMEOUT)])
def test_another_instance_has_the_tools_own_time_to_answer(tool: str, limit: float) -> None:
    registry = Registry([FakeTool(spec("search", timeout_seconds=20.0))])
    settled: list[ToolResult] = []
    host = SimpleNamespace(instance="here", registry=registry, spawn=lambda settling: None)
    runs = ToolRuns(cast("Owner", SimpleNamespace(host=host, settle=settled.append)))
    calls = {name: OpenCall(tool, 1, name, 100.0) for name in ("here", "there")}
    until = 100.0 + limit + ANSWER_SECONDS

    runs.settle_gone(calls, {"there"}, until)
    assert settled == []
    runs.settle_gone(calls, {"there"}, until + 0.1)
    assert [(result.call_id, result.status) for result in settled] == [("there", "UNKNOWN_OUTCOME")]
    runs.settle_gone(calls, set(), 100.0)
    assert [result.call_id for result in settled] == ["there", "there"], "its instance is gone"
