"""What an answer has to fit, to the letter, where the client asked for that (rule 41)."""

from collections.abc import Callable
from typing import TypeAlias

from dispatcher.core.entries import Failed, Finished
from shared.records import ClientCall

MAX_STRICT = 1024 * 1024  # characters of an answer that is checked; a longer one does not fit
# Of the text, None where it need not fit, and of the calls of the client's tools: what does not fit, for operators.
Misfit: TypeAlias = Callable[[str | None, tuple[ClientCall, ...]], str]


class StrictAnswer:
    """What was let out so far."""

    def __init__(self, misfit: Misfit) -> None:
        self._misfit = misfit
        self._released: list[str] = []
        self._size = 0

    def add(self, released: str) -> None:
        if self._size <= MAX_STRICT:
            self._released.append(released)
            self._size += len(released)

    def failure(self, end: Finished) -> Failed | None:
        """What the end is instead. An answer that was cut, by its limit or by a rule, is told as that; text beside
        calls is no answer yet.
        """
        if end.finish_reason not in ("stop", "tool_calls"):
            return None
        if self._size > MAX_STRICT:
            return Failed("invalid_output", f"more than {MAX_STRICT} characters")
        text = "".join(self._released) if end.finish_reason == "stop" else None
        detail = self._misfit(text, end.calls)
        return Failed("invalid_output", detail) if detail else None
