"""A session's trace over real processes that are killed, at a collector's receiver."""

import os
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.reading import ask
from tests.otlp import collecting
from tests.replicas import eventually, figure, replicas

TOKENS = 80  # of 0.1 s: time enough to lose a Commander and a Dispatcher in


@pytest.mark.slow
@pytest.mark.faults
def test_one_tree_over_a_killed_commander_and_a_killed_dispatcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting(monkeypatch) as collector, replicas(tmp_path) as rig:
        first = rig.dispatcher(grace_seconds="1")
        lost = rig.commander("tests.e2e.agents:continuing")
        eventually(lambda: figure(first.operator, "dispatcher_commanders") == 1, "joined")
        session_id = ask(f"http://{first.http}", tokens=TOKENS, seconds=0.1)

        def session(operator: str) -> dict[str, Any]:
            found: dict[str, Any] = httpx2.get(f"http://{operator}/operator/sessions/{session_id}", timeout=30).json()
            return found

        eventually(lambda: session(first.operator)["sequence"] > 0, "it speaks")
        rig.commander("tests.e2e.agents:continuing")
        eventually(lambda: figure(first.operator, "dispatcher_commanders") == 2, "another joined")
        os.kill(lost.program.pid, signal.SIGKILL)
        eventually(lambda: session(first.operator)["generation"] == 2, "taken over")
        second = rig.dispatcher(grace_seconds="1")
        os.kill(first.program.pid, signal.SIGKILL)
        rig.leave(first)
        eventually(lambda: session(second.operator)["state"] == "finished", "it went on")
        eventually(lambda: len(collector.spans) >= 2, "told")
        root, *later = collector.spans
        assert {span.name for span in later} == {"invoke_agent default"}
        assert {(span.trace, span.parent, span.linked) for span in later} == {(root.trace, root.span, (root.span,))}
        assert (root.parent, root.attributes["midsentence.session_id"]) == ("", session_id)
        assert root.attributes["gen_ai.response.finish_reasons"] == ["stop"]
        assert root.began <= later[0].began <= later[-1].ended <= root.ended
