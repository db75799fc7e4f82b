"""What a back-end tells in traces: each request to a model as a `chat` span, a part of what its session's Assignment
names. Off, as at the Dispatcher, unless a collector is named (`docs/traces.md`).
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from commander.agent import Turn
from shared.spans import Attribute, Span, trace_context, trace_headers
from shared.traces import Traces


class ChatSpan:
    """A request under way. trace: headers for the server that gets it."""

    def __init__(self, traceparent: str, tracestate: str) -> None:
        self.trace = trace_headers(traceparent, tracestate)
        self.attributes: dict[str, Attribute] = {}

    def finished(self, reason: str, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """How it ended, and what the server counted; None: it did not."""
        self.attributes["gen_ai.response.finish_reasons"] = [reason]
        for name, count in (("input", prompt_tokens), ("output", completion_tokens)):
            if count is not None:
                self.attributes[f"gen_ai.usage.{name}_tokens"] = count


class ChatSpans:
    """provider: whose model it is, as the conventions name it."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._traces: Traces | None = None

    def open(self) -> None:
        """Raises ConfigError."""
        self._traces = Traces.of("midsentence-commander")

    async def close(self) -> None:
        if self._traces:
            await self._traces.close()

    @contextmanager
    def request(self, turn: Turn, model: str) -> Iterator[ChatSpan]:
        """Told at the end of the block, with the exception that it ended with, unless that is a stop."""
        if self._traces is None:
            yield ChatSpan(turn.trace, turn.tracestate)
            return
        name = f"chat {model}"
        context, span_id = trace_context(turn.trace, turn.session_id, turn.tracestate), secrets.token_hex(8)
        flags = self._traces.sampled(context, name).flags
        chat = ChatSpan(context._replace(flags=flags).traceparent(span_id), context.state)
        began, error = time.time(), ""
        try:
            yield chat
        except Exception as failure:
            error = type(failure).__qualname__
            raise
        finally:
            attributes: dict[str, Attribute] = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": self._provider,
                "gen_ai.request.model": model,
                **({"gen_ai.conversation.id": turn.conversation_id} if turn.conversation_id else {}),
                **chat.attributes,
            }
            span = Span(name, "client", span_id, context.span, began, time.time(), attributes, error=error)
            self._traces.tell(context, [span])
