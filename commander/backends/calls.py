"""The tool calls of one round, put together from deltas."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import msgspec

from commander.backends.errors import ProviderError
from shared.records import MAX_ARGUMENTS_BYTES, MAX_NAME
from shared.wire import well_formed

MAX_CALLS = 64  # of one round; no model asks for so many at once


class FunctionDelta(msgspec.Struct, frozen=True):
    """`arguments`: a piece of their JSON, or, from some servers, the object itself."""

    name: str | None = None
    arguments: Any = None


class CallDelta(msgspec.Struct, frozen=True):
    """`extra_content`: what the provider wants back with the call."""

    index: int | None = None
    id: str | None = None
    function: FunctionDelta = FunctionDelta()
    extra_content: dict[str, Any] | None = None


class CallParts:
    """A tool call, as its deltas have put it together so far.

    call_id   as it was given, or made up; unlike that of any other call of the round
    given_id  as it was given; empty: it was not
    """

    def __init__(self, call_id: str, index: int | None, given_id: str) -> None:
        self.call_id = call_id
        self.index = index
        self.given_id = given_id
        self.name = ""
        self.extra_content: dict[str, Any] = {}
        self._arguments: list[str] = []
        self._length = 0

    @property
    def arguments(self) -> str:
        return well_formed("".join(self._arguments))

    @property
    def object_text(self) -> str:
        """The arguments as the text of an object, where they are one in whatever way; else as they came."""
        text = self.arguments
        found = parsed(text)
        return text if found is None or text.lstrip().startswith("{") else json.dumps(found, ensure_ascii=False)

    @property
    def begun(self) -> bool:
        return bool(self.name or self._length)

    @property
    def complete(self) -> bool:
        """Its arguments are all there."""
        last = self._arguments[-1].rstrip() if self._arguments else ""
        return last.endswith(("}", "null")) and parsed(self.arguments) is not None

    def add(self, delta: CallDelta) -> None:
        name, arguments = delta.function.name or "", delta.function.arguments
        if not self._length:  # after that it is only said again; before that it may come in pieces, too
            self.name = well_formed(name if name.startswith(self.name) else self.name + name)
        if isinstance(arguments, str):
            self._arguments.append(arguments)
            self._length += len(arguments)
        elif arguments:  # whole, whatever came before; an empty object or null: none yet
            self._arguments = [json.dumps(arguments)]
            self._length = len(self._arguments[0])
        self.extra_content |= delta.extra_content or {}
        if self._length > MAX_ARGUMENTS_BYTES or len(self.name) > MAX_ARGUMENTS_BYTES:
            raise ProviderError(f"a tool call of more than {MAX_ARGUMENTS_BYTES} characters")


class Calls:
    """The tool calls of one round, in the order in which they were begun."""

    def __init__(self) -> None:
        self._calls: list[CallParts] = []

    def __iter__(self) -> Iterator[CallParts]:
        return (call for call in self._calls if call.begun)

    def __bool__(self) -> bool:
        return any(call.begun for call in self._calls)

    def add(self, *deltas: CallDelta) -> None:
        """What one chunk says of calls. Raises ProviderError."""
        said: set[str] = set()
        for delta in deltas:
            call = self._found(delta, said)
            call.add(delta)
            said.add(call.call_id)

    def _found(self, delta: CallDelta, said: set[str]) -> CallParts:
        """The call that a delta goes on with, or a new one."""
        numbered = [call for call in self._calls if delta.index is None or call.index == delta.index]
        of_this_id = [call for call in numbered if delta.id and call.given_id == delta.id]
        call = (of_this_id or numbered)[-1] if numbered else None
        return self._begun(delta) if call is None or _begins_another(delta, call, said) else call

    def _begun(self, delta: CallDelta) -> CallParts:
        if len(self._calls) == MAX_CALLS:
            raise ProviderError(f"more than {MAX_CALLS} tool calls at once")
        taken = {call.call_id for call in self._calls}
        given = well_formed(delta.id or "")
        # made up: one that no other answer of the conversation has either, for the client may see it
        call_id = given if given and given not in taken and len(given) <= MAX_NAME else f"call_{secrets.token_hex(16)}"
        call = CallParts(call_id, delta.index, given)
        self._calls.append(call)
        return call


def _begins_another(delta: CallDelta, call: CallParts, said: set[str]) -> bool:
    """Whether a delta that by its number goes on with this call begins the next: some servers give all one number, or
    none, and no ids. `said`: the ids of the calls that the same chunk has spoken of."""
    name, arguments = delta.function.name, delta.function.arguments
    other_id = bool(delta.id and call.given_id) and delta.id != call.given_id
    if not name:
        return other_id and delta.index is None
    if call.complete and (arguments or name != call.name):
        return True
    if delta.id and delta.id == call.given_id:
        return False
    return other_id or call.call_id in said


def parsed(text: str) -> dict[str, Any] | None:
    """A call's arguments; none at all and `null` are an empty object. None: they are no JSON object."""
    try:
        found = json.loads(text.strip() or "{}")
        if isinstance(found, str):  # written twice
            found = json.loads(found.strip() or "{}")
    except (ValueError, RecursionError):
        return None
    if found is None:
        return {}
    return found if isinstance(found, dict) else None
