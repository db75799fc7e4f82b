"""What rules say to what they were given."""

import msgspec

from dispatcher.policies.matches import Action

UNAVAILABLE = "policy_unavailable"


class Violation(msgspec.Struct, frozen=True):
    """reason: for the user and the Commander, one of STOP_REASONS. detail: for operators; never quotes the text."""

    policy: str
    reason: str
    detail: str = ""

    @property
    def unavailable(self) -> bool:
        """The policy could not say, and so it fails closed."""
        return self.detail.startswith(UNAVAILABLE)


class Hit(msgspec.Struct, frozen=True):
    """A policy has acted, so many times: a text of a thousand matches is told as one."""

    policy: str
    action: Action
    times: int = 1


class Release(msgspec.Struct, frozen=True):
    """text: content let out now, with what is redacted replaced. decided: raw content characters of the session that
    were let out, redacted or dropped so far. hits: of rules that do not stop. redacted_by: the policies that
    redacted some of what is let out.
    """

    text: str
    decided: int
    violation: Violation | None
    hits: tuple[Hit, ...] = ()
    redacted_by: tuple[str, ...] = ()


class Reading(msgspec.Struct, frozen=True):
    """What is read, but not let out. denied: the policy that wants it redacted, empty if none does."""

    violation: Violation | None = None
    denied: str = ""
    hits: tuple[Hit, ...] = ()
