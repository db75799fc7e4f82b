"""Operators' own functions as policies: `use = "module:attribute"`, an async callable that is given a Question.

True: the text may pass. False: it breaks the policy. A text: what to show instead (of arguments and results, which are
not shown: it breaks the policy). Anything else is nonsense, and counts like an exception: the policy's `on_failure`.
"""

import inspect
from collections.abc import Awaitable, Callable

from dispatcher.policies.questions import Question, UnusableAnswerError, Verdict
from shared.config import import_attribute
from shared.errors import ConfigError


def plugin(use: str) -> Callable[[Question], Awaitable[Verdict]]:
    """Raises ConfigError; what it returns, UnusableAnswerError and what the operator's function raises."""
    function = import_attribute(use)
    called = function if inspect.isroutine(function) else getattr(type(function), "__call__", None)  # noqa: B004
    if not callable(function) or not inspect.iscoroutinefunction(called):
        raise ConfigError(f"{use} is not an async callable")

    async def judge(question: Question) -> Verdict:
        answer: object = await function(question)
        if answer is True:
            return Verdict("pass")
        if answer is False:
            return Verdict("violation")
        if isinstance(answer, str):
            return Verdict("replace", (answer,))
        raise UnusableAnswerError(f"it answered with {type(answer).__name__}, neither True nor False nor a text")

    return judge
