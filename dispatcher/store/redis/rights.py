"""What the store's user in Redis must be allowed to do (its ACL), and how each right is tried without any change.

Redis judges the rights to a command, its keys and its channels before its arguments, and before a cluster says that
another server has the key: what is answered with any other error is allowed. Commands in scripts are judged likewise.
"""

import shlex
from collections.abc import Sequence

from redis.exceptions import NoPermissionError, ResponseError

from dispatcher.store.redis.keys import (
    ENDED,
    HOLDS,
    LEASES,
    LIVE,
    OFFERS,
    PREFIX,
    QUEUE_KEYS,
    Channels,
    binding_key,
    session_keys,
    tenant_keys,
)
from dispatcher.store.redis.pipeline import Argument, Reply

RULE = "resetkeys '~midsentence:*' resetchannels '&midsentence:*' +@all -@admin -@dangerous +info"

Probe = tuple[Argument, ...]  # a command

_NONE = PREFIX + b"rights"  # nothing stands there, nor will
_KEYS = (*session_keys(""), binding_key(""), *tenant_keys(""), LIVE, ENDED, *QUEUE_KEYS, LEASES, OFFERS, HOLDS)
_COMMANDS: tuple[Probe, ...] = (
    ("INFO", "server"),
    ("TIME",),
    ("EVAL", "return 1", 1, _NONE),
    ("EVALSHA", "0" * 40, 1, _NONE),
    ("DEL", _NONE),
    ("UNLINK", _NONE),
    ("PEXPIRE", _NONE, "none"),
    ("HDEL", _NONE, "field"),
    ("HGETALL", _NONE),
    ("HINCRBY", _NONE, "field", "none"),
    ("HMGET", _NONE, "field"),
    ("XADD", _NONE, "0-0", "field", ""),
    ("XLEN", _NONE),
    ("XRANGE", _NONE, "-", "+"),
    ("ZADD", _NONE, "XX", 0, "member"),
    ("ZCARD", _NONE),
    ("ZRANGE", _NONE, 0, 0),
    ("ZREM", _NONE, "member"),
    ("ZREMRANGEBYRANK", _NONE, 0, 0),
    ("ZREMRANGEBYSCORE", _NONE, 0, 0),
    ("ZSCORE", _NONE, "member"),
    *(probe for key in _KEYS for probe in (("HGET", key, "field"), ("HSET", key, "of", "three", "one too few"))),
)
_OF_CLUSTERS: tuple[Probe, ...] = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"), ("ASKING",))
_OF_REPLICAS: tuple[Probe, ...] = (("WAIT", 0, 1),)


def probes(database: int, replicas: bool, cluster: bool) -> list[Probe]:
    """In this order: once subscribed, a connection takes nothing else. Each is answered once."""
    channels = Channels(database)
    nobodys = channels.log(""), channels.instance("")  # what is published there reaches nobody
    return [
        *_COMMANDS,
        *(_OF_CLUSTERS if cluster else ()),
        *(_OF_REPLICAS if replicas else ()),
        *(("PUBLISH", channel, "") for channel in nobodys),
        *(("SUBSCRIBE", channel) for channel in (*nobodys, channels.waiting)),
        ("PING",),
        ("UNSUBSCRIBE", nobodys[0]),
    ]


def lacking(tried: Sequence[Probe], replies: Sequence[Reply]) -> str:
    """What of it is not allowed, or not there (`rename-command`); empty: nothing."""
    commands: dict[str, None] = {}
    places: dict[str, None] = {}
    for probe, reply in zip(tried, replies, strict=True):
        text = str(reply) if isinstance(reply, ResponseError) else ""
        if isinstance(reply, NoPermissionError) and "to access" in text:
            places["the channels midsentence:*" if "channel" in text else "the keys midsentence:*"] = None
        elif isinstance(reply, NoPermissionError) or text.startswith("unknown command"):
            commands["|".join(map(str, probe[:2])) if probe[0] == "CLUSTER" else str(probe[0])] = None
    return ", ".join([*commands, *places])


def remedy(user: str | None) -> str:
    """The ACL that works."""
    return f"what works is ACL SETUSER {shlex.quote(user or 'default')} {RULE}"
