"""Asks what decides a policy of kind `plugin` or `http`, and always has a verdict within the policy's time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TypeAlias

import structlog

from dispatcher.metrics import Metrics
from dispatcher.policies.outcomes import Reading
from dispatcher.policies.questions import AskedPolicy, Question, UnusableAnswerError, Verdict, reading_of
from dispatcher.policing.guardrail import Guardrail
from dispatcher.policing.plugins import plugin
from shared.errors import text_of
from shared.logs import MAX_CALL_ID

logger = structlog.get_logger()

Judge: TypeAlias = Callable[[Question], Awaitable[Verdict]]


class Judges:
    """All that is asked, for all sessions. `ask` raises nothing but CancelledError."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._guardrail = Guardrail()
        self._judges: dict[AskedPolicy, Judge] = {}
        self._abandoned: set[asyncio.Task[Verdict]] = set()

    async def ask(self, question: Question) -> Verdict:
        """The verdict; `unavailable`, with a reason that quotes nothing, where there is none that can be used."""
        policy = question.policy
        started = perf_counter()
        # A task of its own: one that holds up or swallows its cancellation holds nobody up.
        task = asyncio.create_task(self._asked(question), name=f"policy {policy.name}")
        try:
            await asyncio.wait({task}, timeout=policy.timeout_seconds)
        finally:
            if not task.done():
                task.cancel()
                self._abandoned.add(task)
                task.add_done_callback(partial(self._drop, question))
        self._metrics.policy_seconds(policy.name).observe(perf_counter() - started)
        if not task.done():
            return self._unavailable(policy, f"no answer within {policy.timeout_seconds:g} seconds")
        if task.cancelled():
            return self._unavailable(policy, "it cancelled itself")
        if error := task.exception():
            why = str(error) if isinstance(error, UnusableAnswerError) else type(error).__name__
            self._tell(question, error)
            return self._unavailable(policy, why)
        return task.result()

    async def read(self, policies: Sequence[AskedPolicy], question: Callable[[AskedPolicy], Question]) -> list[Reading]:
        """What these policies say to a whole text, asked at the same time."""
        questions = [question(policy) for policy in policies]
        verdicts = await asyncio.gather(*(self.ask(each) for each in questions))
        return [reading_of(each, verdict) for each, verdict in zip(questions, verdicts, strict=True)]

    async def close(self) -> None:
        await self._guardrail.close()

    async def _asked(self, question: Question) -> Verdict:
        try:
            return await self._judge(question.policy)(question)
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:  # would end the whole program
            raise RuntimeError(f"it raised {type(error).__name__}") from error

    def _judge(self, policy: AskedPolicy) -> Judge:
        if policy not in self._judges:
            self._judges[policy] = self._guardrail.ask if policy.kind == "http" else plugin(policy.target)
        return self._judges[policy]

    def _unavailable(self, policy: AskedPolicy, why: str) -> Verdict:
        logger.warning("policy_unavailable", policy=policy.name, why=why, on_failure=policy.on_failure)
        return Verdict("unavailable", why=why)

    def _drop(self, question: Question, task: "asyncio.Task[Verdict]") -> None:
        self._abandoned.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._tell(question, error)

    def _tell(self, question: Question, error: BaseException) -> None:
        """What an author's function raised, whole; what a server answered is no fault of theirs."""
        policy = question.policy
        if policy.kind == "http" or isinstance(error, UnusableAnswerError):
            logger.debug("policy_failed", policy=policy.name, message=text_of(error))
            return
        whose = {"session_id": question.session_id, "call_id": question.call_id[:MAX_CALL_ID]}
        known = {name: value for name, value in whose.items() if value}
        logger.warning("policy_failed", policy=policy.name, **known, exc_info=error, traceback=True)
