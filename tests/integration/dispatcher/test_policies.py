"""Rules that redact, deny and observe, with a Commander on a real stream."""

import json
import re
from pathlib import Path

import pytest

from shared.records import Content, ToolCall, ToolResult
from tests.integration.dispatcher import waiting_tools
from tests.integration.dispatcher.peer import serving, until

POLICIES = """
[[policy]]
name = "birds"
kind = "phrases"
phrases = ["Nightingale"]
reads = ["content", "arguments", "results"]
action = "redact"

[[policy]]
name = "dogs"
kind = "phrases"
phrases = ["dog"]
action = "observe"
"""

OTHER = """
[[policy]]
name = "numbers"
kind = "patterns"
patterns = ['<\\d+>']
action = "redact"
replacement = "#"
"""

TOOLS = """
[[tool]]
name = "bird"
kind = "local"
use = "tests.integration.dispatcher.waiting_tools:bird"
"""


async def test_the_session_goes_on_and_what_is_redacted_gets_nowhere(tmp_path: Path) -> None:
    waiting_tools.reset()
    (tmp_path / "policies.toml").write_text(POLICIES + TOOLS)
    async with serving(policies=tmp_path / "policies.toml", tools=tmp_path / "policies.toml") as world:
        member, session_id, _ = await world.served()
        await member.say(session_id, "A night", "ingale and a dog", ToolCall("bird", '{"name": "nightingale"}', "c1"))
        denied = await member.next(ToolResult, session_id)
        assert (denied.call_id, denied.status) == ("c1", "DENIED")
        assert waiting_tools.begun == []

        await member.say(session_id, ToolCall("bird", '{"name": "robin"}', "c2"))
        assert json.loads((await member.next(ToolResult, session_id)).result_json) == "a robin"
        await member.say(session_id, ToolCall("bird", '{"name": "Philomela"}', "c3"))
        assert (await member.next(ToolResult, session_id)).status == "DENIED"
        assert waiting_tools.begun == ["robin", "Philomela"]

        await member.finish(session_id, ", night")
        assert await world.text(session_id) == "A [redacted] and a dog, night"
        assert next(body.text for body in await world.bodies(session_id, Content)) == "A night"
        results = await world.bodies(session_id, ToolResult)
        assert [result.status for result in results] == ["DENIED", "OK", "DENIED"]
        assert "ightingale" not in repr(results)
        metrics = await world.metrics()
        assert metrics['dispatcher_policy_hits_total{action="redact",policy="birds"}'] == 3
        assert metrics['dispatcher_policy_hits_total{action="observe",policy="dogs"}'] == 1
        assert metrics['dispatcher_tool_calls_total{status="DENIED",tool="bird"}'] == 2
        assert metrics['dispatcher_stop_seconds_count{stage="sent"}'] == 0


@pytest.mark.parametrize("running", [False, True])
async def test_running_sessions_take_changed_rules_where_the_setting_says_so(tmp_path: Path, running: bool) -> None:
    policies = tmp_path / "policies.toml"
    policies.write_text(POLICIES)
    async with serving(policies=policies, policy_reload_running=running) as world:
        member, session_id = await world.own()
        await member.say(session_id, "Nightingale <1> night")
        policies.write_text(OTHER)
        world.dispatcher.reload()

        async def talk() -> None:
            for number in range(2, 200):  # in the middle of which the rules change
                await member.say(session_id, f"<{number}> ")

        await talk()
        await until(lambda: world.sessions.runners.rules.readers("content") == ("numbers",))
        await until(lambda: not world.sessions.runners._tasks)
        await member.finish(session_id, "<200>, Nightingale")
        text = await world.text(session_id)
        assert text.startswith("[redacted] <1> night")
        assert text.endswith("#, Nightingale" if running else "<200>, [redacted]")
        shown = re.findall(r"<(\d+)>|(#)", text)
        numbers = [int(number) for number, _ in shown if number]
        assert len(shown) == 200
        assert numbers == [*range(1, len(numbers) + 1)], "in their order, and the new rules hold once they do"
