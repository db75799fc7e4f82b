"""How much a tenant may begin: decided here, counted by the store, in the one step that makes the session."""

import math
from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from dispatcher.core.log import Record
from dispatcher.core.receipts import token_count
from shared.records import Usage

MINUTE, DAY = 60.0, 86_400.0  # seconds
MAX_TOKENS = 2**40  # of one session: whatever its agent says, no sum of them is too large for a store
# Until a session of the tenant's ends, which nobody knows.
OCCUPIED_RETRY_SECONDS = 5

OverCode: TypeAlias = Literal["too_many_sessions", "rate_limit_exceeded", "quota_exceeded"]


class TenantLimit(msgspec.Struct, frozen=True):
    """Of one tenant, `*`: of each. sessions_at_once: that wait or run. sessions_per_minute: that begin within any 60 s.
    tokens_per_day: that are asked with and answered in a day of UTC. None: any number. spent: of today's tokens, as it
    is known when a session is to begin.
    """

    tenant: str
    sessions_at_once: int | None = None
    sessions_per_minute: int | None = None
    tokens_per_day: int | None = None
    spent: int = 0

    def fits(self, tenant: str) -> bool:
        return self.tenant in ("*", tenant)

    def since(self, now: float) -> float:
        """Of sessions that are over, those count that began after that time. Unix seconds."""
        return now if self.sessions_per_minute is None else now - MINUTE


class OverLimit(Exception):
    """The tenant has begun as many as it may. retry_after: seconds until it may try again."""

    def __init__(self, code: OverCode, retry_after: int = OCCUPIED_RETRY_SECONDS) -> None:
        super().__init__(code)
        self.code, self.retry_after = code, retry_after


def check_tokens(limit: TenantLimit, now: float) -> None:
    """Raises OverLimit: none of today's are left. now: Unix seconds."""
    if limit.tokens_per_day is not None and limit.spent >= limit.tokens_per_day:
        raise OverLimit("quota_exceeded", math.ceil(DAY - now % DAY))


def day_of(at: float) -> int:
    """Days since 1970 in UTC, of Unix seconds."""
    return int(at // DAY)


def tokens_of(record: Record, usage: Usage | None) -> int:
    """What a session has cost so far: as its agent counted, or an estimate from what it was asked and has said."""
    count = token_count(usage, record.request.prompt_bytes, record.head.decided)
    return min(count.prompt + count.completion, MAX_TOKENS)


def check(limit: TenantLimit, begun: Iterable[tuple[float, bool]], now: float) -> None:
    """begun: of the tenant's sessions, when each began, and whether it lives; all that live, and those since
    `limit.since`. Raises OverLimit.
    """
    check_tokens(limit, now)
    known = list(begun)
    if (most := limit.sessions_per_minute) is not None:
        recent = sorted(at for at, _ in known if at > now - MINUTE)
        if len(recent) >= most:
            raise OverLimit("rate_limit_exceeded", after(recent[len(recent) - most] + MINUTE - now))
    if (most := limit.sessions_at_once) is not None and sum(lives for _, lives in known) >= most:
        raise OverLimit("too_many_sessions")


def after(seconds: float) -> int:
    """As `Retry-After` says it: whole, not too early, and no longer than a clock that was set back could make it."""
    return max(1, math.ceil(min(seconds, MINUTE)))
