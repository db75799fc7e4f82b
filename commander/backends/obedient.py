"""An agent that does what it is asked, without a model: it calls what it is offered, and answers in the form asked for.
To test clients against."""

import re
from collections.abc import AsyncGenerator
from itertools import takewhile

from commander.agent import ClientCall, Finish, Tool, Turn, Yielded, supports
from commander.backends.filling import example
from commander.backends.parameters import answer_form, choice, form_of_arguments, token_limit
from commander.backends.schemas import written
from shared.records import MAX_CLIENT_CALLS


@supports("tools", "structured", "sampling", "reasoning")
async def obedient(turn: Turn) -> AsyncGenerator[Yielded, None]:
    """Calls each of the client's tools that it may, or one where several are not wanted, with the first arguments that
    fit. Where their results have come it says these, unless it has to call again. Asked for JSON it says the first that
    fits, and of all else the newest message. A word is a token. Raises ValueError for what it cannot keep to."""
    chosen = choice(turn)
    results = _results(turn)
    if chosen.tools and (chosen.required or not results):
        tools = chosen.tools[: 1 if chosen.parallel is False else MAX_CLIENT_CALLS]
        yield Finish("tool_calls", completion_tokens=0, calls=tuple(map(_call, tools)))
        return
    form = answer_form(turn.parameters)
    newest = turn.messages[-1].content if turn.messages else ""
    text = results or newest if form is None else written(example(form))
    words = re.findall(r"\S+\s*|\s+", text)
    said = words[: token_limit(turn.parameters)]
    for word in said:
        yield word
    yield Finish("length" if len(said) < len(words) else "stop", completion_tokens=len(said))


def _call(tool: Tool) -> ClientCall:
    return ClientCall(tool.name, example(form_of_arguments(tool)))


def _results(turn: Turn) -> str:
    """What the newest messages say of calls; empty: they are no results."""
    names = {call.call_id: call.name for message in turn.messages for call in message.tool_calls}
    newest = list(takewhile(lambda message: message.role == "tool", reversed(turn.messages)))
    return "; ".join(f"{names.get(each.tool_call_id, each.name)}: {each.content}" for each in reversed(newest))
