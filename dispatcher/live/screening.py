"""Brings one session what policies of kind `plugin` and `http` say to its text, and to its calls and their results."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from msgspec.structs import replace

from dispatcher.core.effects import Ask, AskCalls
from dispatcher.core.entries import Call
from dispatcher.core.packets import read_as
from dispatcher.core.session import Session
from dispatcher.live import clock
from dispatcher.live.ports import Owner
from dispatcher.policies.arguments import strings
from dispatcher.policies.questions import AskedPolicy, Question
from dispatcher.tools.context import Context
from dispatcher.tools.registry import ApprovalRequest, ToolOutput
from shared.records import ClientCall, ToolResult
from shared.turns import LoopTurn


class Screening:
    """Of one session."""

    def __init__(self, owner: Owner) -> None:
        self._owner, self._judges = owner, owner.host.judges
        self._asking: set[asyncio.Task[None]] = set()

    def ask(self, effect: Ask | AskCalls) -> None:
        """About content or a thought, or the calls that an end holds: what is said comes back to the core that asks."""
        session = self._owner.session
        match effect:
            case Ask(question):
                self._spawn_asking(self._ask(question, session))
            case AskCalls(calls):
                self._spawn_asking(self._ask_calls(calls, session))

    def cancel(self) -> None:
        """What is asked about content, and by observers, matters to nobody any more."""
        for task in self._asking:
            task.cancel()

    def _spawn_asking(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._owner.host.spawn(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, question: Question, session: Session) -> None:
        verdict = await self._judges.ask(replace(question, session_id=self._owner.session_id))
        if session is self._owner.session:
            self._owner.carry_out(session.answered(question, verdict, clock.now()))

    async def _ask_calls(self, calls: tuple[ClientCall, ...], session: Session) -> None:
        async def denial(call: Call) -> ToolResult | None:
            return await self._read("arguments", call, strings(call.arguments_json))

        denials = await asyncio.gather(*(denial(read_as(call)) for call in calls))
        if session is self._owner.session:
            denied = {each.call_id for each in denials if each}
            self._owner.carry_out(session.calls_read(denied, clock.now()))

    async def check(self, call: Call) -> ApprovalRequest | ToolResult:
        """What has to be approved before the call runs; or its result, where policies deny it or it would not run."""
        if denied := await self._read("arguments", call, strings(call.arguments_json)):
            return denied
        agent = self._owner.session.record.request.agent
        found = await self._owner.host.registry.request(call.tool_name, call.arguments_json, agent)
        return _result(call, found) if isinstance(found, ToolOutput) else found

    async def run(self, call: Call) -> ToolResult:
        """The call's result. Policies are asked before the tool runs, unless they have read what was approved, and then
        about its answer.
        """
        if not call.approval and (denied := await self._read("arguments", call, strings(call.arguments_json))):
            return denied
        session_id, session = self._owner.session_id, self._owner.session
        request = session.record.request
        traceparent = self._owner.host.traceparent(session_id, request, session.head.generation)
        context = Context(
            session_id,
            call.call_id,
            request.agent,
            request.conversation_id,
            traceparent,
            request.subject,
            request.tenant,
            dict(request.claims),
            self._owner.host.tokens.of(session_id),
            request.tracestate,
        )
        given = _result(call, await self._owner.host.registry.run(call.tool_name, call.arguments_json, context))
        with self._owner.host.starts.held(len(given.result_json)):
            turn = LoopTurn()
            for _ in self._owner.session.read_ahead(given):
                await turn.step()
            result, effects = self._owner.session.result(given, clock.now())
        self._owner.carry_out(effects)
        if result is not given:
            return result
        return await self._read("results", given, strings(given.result_json)) or given

    async def _read(
        self, channel: Literal["arguments", "results"], of: Call | ToolResult, texts: list[str]
    ) -> ToolResult | None:
        """The result that goes into the log instead, if one does."""
        policies = self._owner.session.asked(channel) if any(texts) else []
        if not policies:
            return None

        def question(policy: AskedPolicy) -> Question:
            return Question(policy, 0, channel, tuple(texts), "", of.tool_name, self._owner.session_id, of.call_id)

        async def read(several: list[AskedPolicy]) -> ToolResult | None:
            denied = None
            for reading in await self._judges.read(several, question):
                result, effects = self._owner.session.judged(of, reading, clock.now())
                self._owner.carry_out(effects)
                denied = denied or result
            return denied

        async def observe() -> None:
            await read([policy for policy in policies if not policy.holds(channel)])

        self._spawn_asking(observe())
        return await read([policy for policy in policies if policy.holds(channel)])


def _result(call: Call, output: ToolOutput) -> ToolResult:
    return ToolResult(call.tool_name, output.result_json, call.call_id, output.status)
