"""What the streams of all kinds of rules have in common: each reads one text in pieces and answers with matches."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

import msgspec

Action: TypeAlias = Literal["stop", "redact", "observe"]
ACTIONS: tuple[Action, ...] = get_args(Action)
Fallback: TypeAlias = Literal["stop", "release"]  # what becomes of a text that cannot be decided about
Channel: TypeAlias = Literal["content", "thoughts", "arguments", "prompt", "results"]
CHANNELS: tuple[Channel, ...] = get_args(Channel)
DEFAULT_READS: frozenset[Channel] = frozenset({"content", "arguments"})  # what gets out


class Rule(msgspec.Struct, frozen=True):
    """One thing that a policy looks for.

    what         for operators, where it stands in the policy: `phrase 3`; never quotes a text
    reason       of the stop, one of STOP_REASONS
    replacement  what users see instead of a match, where `action` is redact
    """

    policy: str
    action: Action
    what: str
    reason: str = "PolicyViolation"
    replacement: str = "[redacted]"


class Match(NamedTuple):
    """start, end: of the raw code points that it covers; `end` is the one after. text: what users see instead, if that
    is not the rule's replacement.
    """

    start: int
    end: int
    rule: Rule
    text: str | None = None


class TextStream(Protocol):
    """Reads one text in pieces, whatever the split.

    length  raw code points read. A match of a rule that stops ends the reading: up to and with the code point that
            completed it
    idle    nothing that was read can matter for what follows
    """

    length: int

    @property
    def idle(self) -> bool: ...

    def feed(self, text: str) -> Sequence[Match]:
        """Read on; answers with the matches that are complete, in the order in which they became so."""

    def end(self) -> Sequence[Match]:
        """The text is over: the matches that this decides."""

    def hold(self) -> int:
        """The raw index from which on what was read may still become part of a match; `length` if nothing may."""

    def copy(self) -> "TextStream":
        """One that goes on from here for itself."""
