"""Asks plugins and guardrails' servers for the tools, which are no event loop: one question after the other."""

import asyncio
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from dispatcher.metrics import Metrics
from dispatcher.policies.questions import Question, Verdict
from dispatcher.policing.judges import Judges


class Asking:
    """Called with a question, answers with a verdict, as the server would get it. Use as a context manager."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._judges = Judges(Metrics(CollectorRegistry()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runner.run(self._judges.close())
        self._runner.close()

    def __call__(self, question: Question) -> Verdict:
        return self._runner.run(self._judges.ask(question))
