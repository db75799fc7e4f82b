"""What a provider wants back with calls that a client answers: Gemini's signatures, what DeepSeek has reasoned.

It cannot go by the client, for what a model reasons is for operators. So whoever was given it keeps it, and puts it
back when the client asks again here; at another Commander, or after MAX_KEPT others, the provider goes without it.
"""

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

from commander.agent import User
from commander.backends.calls import CallParts, parsed

MAX_KEPT = 1000  # calls
MAX_KEPT_CHARACTERS = 16 * 1024**2  # of JSON, of all of them
CallKey: TypeAlias = tuple[str, str, str, str, str]
Kept: TypeAlias = tuple[dict[str, Any], dict[str, Any]]  # of the call, and of the message that it stands in


class HandedOver:
    """By who asked and by the call: an id alone may be another conversation's, and a client may write JSON anew."""

    def __init__(self) -> None:
        self._kept: dict[CallKey, tuple[Kept, int]] = {}  # the oldest first
        self._characters = 0

    def keep(self, user: User | None, calls: Iterable[CallParts], of_message: dict[str, Any]) -> None:
        for call in calls:
            if not (call.extra_content or of_message):
                continue
            key = _key(user, call.call_id, call.name, call.object_text)
            size = len(json.dumps((call.extra_content, of_message)))
            self._drop(key)
            self._kept[key] = (call.extra_content, of_message), size
            self._characters += size
        while len(self._kept) > MAX_KEPT or self._characters > MAX_KEPT_CHARACTERS:
            self._drop(next(iter(self._kept)))

    def put_back(self, user: User | None, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The conversation with what was kept of its calls."""
        return [self._whole(user, message) if "tool_calls" in message else message for message in messages]

    def _whole(self, user: User | None, message: dict[str, Any]) -> dict[str, Any]:
        calls, of_message = [], dict[str, Any]()
        for call in message["tool_calls"]:
            function = call["function"]
            found = self._kept.get(_key(user, call["id"], function["name"], function["arguments"]))
            (extra, also), _ = found or (({}, {}), 0)
            calls.append(call | ({"extra_content": extra} if extra else {}))
            of_message = of_message or also
        return {**message, "tool_calls": calls, **of_message}

    def _drop(self, key: CallKey) -> None:
        if key in self._kept:
            _, size = self._kept.pop(key)
            self._characters -= size


def _key(user: User | None, call_id: str, name: str, arguments: str) -> CallKey:
    found = parsed(arguments)
    tenant, subject = (user.tenant, user.subject) if user else ("", "")
    return tenant, subject, call_id, name, arguments if found is None else json.dumps(found, sort_keys=True)
