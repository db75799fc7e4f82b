"""What stands where in Redis, and under which names."""

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

PREFIX = b"midsentence:"

# Indexes are hints, each in a slot of its own; the sessions themselves say what is true.
LIVE = PREFIX + b"{sessions}:live"  # sorted set: every session that is not complete, by when it was made
ENDED = PREFIX + b"{sessions}:ended"  # sorted set: every session that has ended, by when
WAITING = PREFIX + b"{waiting}:since"  # sorted set: the sessions that wait, by since when
AGENTS = PREFIX + b"{waiting}:agents"  # hash: what for
TENANTS = PREFIX + b"{waiting}:tenants"  # hash: whose, where it is a tenant's
QUEUE_KEYS = (WAITING, AGENTS, TENANTS)
LEASES = PREFIX + b"leases"  # hash: instance → when its lease ends
OFFERS = PREFIX + b"offers"  # sorted set: agents, by when they were last offered
HOLDS = PREFIX + b"holds"  # sorted set: holds as blobs, by when they end

KEPT = 32_768  # sessions whose keys, and commands of the poll, are not made anew each time


class SessionKeys(NamedTuple):
    """The keys of one session, all in one slot of a cluster."""

    head: bytes
    log: bytes


@lru_cache(maxsize=KEPT)
def session_keys(session_id: str) -> SessionKeys:
    # Quoted, so that no brace of an id that a Commander chose can break the hash tag.
    stem = PREFIX + b"{%s}:" % quote(session_id, safe="").encode()
    return SessionKeys(stem + b"head", stem + b"log")


def binding_key(key: str) -> bytes:
    return PREFIX + b"key:{%s}" % quote(key, safe="").encode()


class TenantKeys(NamedTuple):
    """Of one tenant, sorted sets of sessions by when they began, in ms; in one slot. live: for the most at once; some
    may be over. begun: lately. metered: whose tokens are to be counted. settled: hash, day → tokens of those that were.
    """

    live: bytes
    begun: bytes
    metered: bytes
    settled: bytes


def tenant_keys(tenant: str) -> TenantKeys:
    stem = PREFIX + b"tenant:{%s}:" % quote(tenant, safe="").encode()
    return TenantKeys(*(stem + name for name in (b"live", b"begun", b"metered", b"settled")))


class Channels:
    """Names of the channels; Redis's databases share them, so the database's number is in each."""

    def __init__(self, database: int) -> None:
        self._stem = PREFIX + b"%d:" % database
        self.waiting = self._stem + b"waiting"

    def log(self, session_id: str) -> bytes:
        """News of that session's log, for who follows it."""
        return self._stem + b"log:" + session_id.encode()

    def instance(self, instance: str) -> bytes:
        """News of sessions that are that instance's."""
        return self._stem + b"instance:" + instance.encode()
