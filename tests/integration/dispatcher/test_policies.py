"""Rules that redact, deny and observe, with a Commander on a real stream."""

import json
from pathlib import Path

from shared.records import Content, ToolCall, ToolResult
from tests.integration.dispatcher import waiting_tools
from tests.integration.dispatcher.peer import serving

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
