"""The atomic steps in Redis, as scripts that are found by their content: an older and a newer Dispatcher may share a
server. What a session's rules say is decided in Python (`dispatcher.core.log.apply`); here stands compare-and-set.

A session's keys are its hash and its stream, where entry n has the id `n-0`. In the hash stand token, head, request and
`brief`, which is the request without its prompt (not where an older Dispatcher made it);
`ended` once it has; `key`, the idempotency key that made it; and at times `turn`, who alone may write, and until when.
"""

import hashlib
from typing import NamedTuple

from dispatcher.store.redis.pipeline import Argument, pack


class Command(NamedTuple):
    """packed: as it goes over the wire. key: decides which server of a cluster gets it. again: the same in full, where
    `packed` names a script that the server may not know.
    """

    key: bytes
    packed: bytes
    script: "Script | None" = None
    arguments: tuple[Argument, ...] = ()

    def in_full(self) -> bytes:
        """The same, for a server that does not know the script."""
        return pack("EVAL", self.script.source, *self.arguments) if self.script else self.packed


def command(name: str, key: bytes, *arguments: Argument) -> Command:
    return Command(key, pack(name, key, *arguments))


class Script:
    def __init__(self, source: str) -> None:
        self.source = source.strip().encode()
        self._sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()

    def __call__(self, keys: tuple[bytes, ...], *arguments: Argument) -> Command:
        in_order = (len(keys), *keys, *arguments)
        return Command(keys[0], pack(b"EVALSHA", self._sha, *in_order), self, in_order)


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: hash, stream
# ARGV: token read · token to write, or '' · who asks, for the turn · its ms · head, or '' · ended at, or ''
#       · offset of the first entry · entries · each entry · then channel and payload, each
# 1: written. nil: no such session. {token, head, turn}: another one wrote; turn 1: nobody else may write before us.
STEP = Script(f"""
local known = redis.call('HMGET', KEYS[1], 'token', 'head', 'turn', 'until')
if not known[1] then return false end
local turn, lost = known[3], known[1] ~= ARGV[1]
if turn or lost then
  {_NOW}
  if turn and turn ~= ARGV[3] and tonumber(known[4]) > now then return {{known[1], known[2], 0}} end
  if lost then
    redis.call('HSET', KEYS[1], 'turn', ARGV[3], 'until', string.format('%.0f', now + ARGV[4]))
    return {{known[1], known[2], 1}}
  end
end
local first, entries = tonumber(ARGV[7]), tonumber(ARGV[8])
for n = 1, entries do
  redis.call('XADD', KEYS[2], string.format('%.0f-0', first + n - 1), 'e', ARGV[8 + n])
end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'head', ARGV[5]) end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'ended', ARGV[6]) end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'token', ARGV[2]) end
if turn then redis.call('HDEL', KEYS[1], 'turn', 'until') end
for n = 9 + entries, #ARGV, 2 do redis.call('PUBLISH', ARGV[n], ARGV[n + 1]) end
return 1
""")

# KEYS: hash, stream. ARGV: token, request, head, idempotency key or '', brief.
# 1, or {request, head, idempotency key} of the one that is there.
CREATE = Script("""
local known = redis.call('HMGET', KEYS[1], 'request', 'head', 'key')
if known[1] then return known end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'request', ARGV[2], 'brief', ARGV[5], 'head', ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'key', ARGV[4]) end
return 1
""")

# KEYS: a tenant's live sessions, those that it has begun. ARGV: session, most at once, or '' · most in a time, or ''
#       · that time, ms
# -1: counted, as it may be already. 0: as many live as may. Else after how many ms one fewer has begun in that time.
ADMIT = Script(f"""{_NOW}
if redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('ZSCORE', KEYS[2], ARGV[1]) then return -1 end
if ARGV[3] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[4])
  local excess = redis.call('ZCARD', KEYS[2]) - ARGV[3]
  if excess >= 0 then
    local frees = redis.call('ZRANGE', KEYS[2], excess, excess, 'WITHSCORES')[2]
    return math.max(1, frees + ARGV[4] - now)
  end
end
if ARGV[2] ~= '' then
  if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
  redis.call('ZADD', KEYS[1], now, ARGV[1])
end
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return -1
""")

# KEYS: a tenant's metered sessions, its settled tokens. ARGV: session, tokens, day. 1: they are counted now.
SETTLE = Script("""
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HINCRBY', KEYS[2], ARGV[3], ARGV[2])
local days = redis.call('HGETALL', KEYS[2])
for n = 1, #days, 2 do
  if tonumber(days[n]) < ARGV[3] - 1 then redis.call('HDEL', KEYS[2], days[n]) end
end
return 1
""")

# KEYS: stream. ARGV: first offset · most entries · bytes. Entries, the last one that with which they have as many.
# What is read beyond that, of 16 at a time, does not leave the server.
LOG_PART = Script("""
local first, left, bytes, answer = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), {}
while left > 0 do
  local most = math.min(left, 16)
  local found = redis.call('XRANGE', KEYS[1], string.format('%.0f-0', first), '+', 'COUNT', most)
  for _, entry in ipairs(found) do
    answer[#answer + 1] = entry[2][2]
    bytes = bytes - #entry[2][2]
    if bytes <= 0 then return answer end
  end
  if #found < most then break end
  first, left = first + most, left - most
end
return answer
""")

# KEYS: hash, stream. ARGV: ended before, or '' for whenever · channel · payload.
# nil: no such session. 0: it has not ended, or not before that. Else the idempotency key that made it, or ''.
DROP = Script("""
local known = redis.call('HMGET', KEYS[1], 'token', 'ended', 'key')
if not known[1] then return false end
if not known[2] or (ARGV[1] ~= '' and tonumber(known[2]) >= tonumber(ARGV[1])) then return 0 end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return known[3] or ''
""")

# KEYS: the idempotency key. ARGV: fingerprint, session, expires at, now, ms to live
#       · the session that it is bound to, if that is to be replaced, or ''
# {session, fingerprint} that the key is bound to now.
BIND = Script("""
local bound = redis.call('HMGET', KEYS[1], 'session', 'fingerprint', 'expires')
if bound[1] and tonumber(bound[3]) > tonumber(ARGV[4]) and bound[1] ~= ARGV[6] then
  return {bound[1], bound[2]}
end
redis.call('HSET', KEYS[1], 'session', ARGV[2], 'fingerprint', ARGV[1], 'expires', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return {ARGV[2], ARGV[1]}
""")

# KEYS: the idempotency key. ARGV: session.
UNBIND = Script("""
if redis.call('HGET', KEYS[1], 'session') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")

# KEYS: live, ended. ARGV: session, ended at. In one step, so that it is always found in one of them.
OVER = Script("""
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
""")

# KEYS: waiting, agents, tenants. ARGV: session, since, agent · channel, payload · tenant, or ''. Whether that was news.
ENLIST = Script("""
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
if ARGV[6] ~= '' then redis.call('HSET', KEYS[3], ARGV[1], ARGV[6]) end
local news = redis.call('ZADD', KEYS[1], 'CH', ARGV[2], ARGV[1])
if news == 1 then redis.call('PUBLISH', ARGV[4], ARGV[5]) end
return news
""")

# KEYS: waiting, agents, tenants. ARGV: session · unless it waits since later than that · channel, payload.
WITHDRAW = Script("""
local since = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not since or (ARGV[2] ~= 'inf' and tonumber(since) > tonumber(ARGV[2])) then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return redis.call('ZREM', KEYS[1], ARGV[1])
""")

# KEYS: waiting, agents, tenants. ARGV: index of the last. {session, since, agent, tenant, ...}, the oldest first.
OLDEST_WAITING = Script("""
local found = redis.call('ZRANGE', KEYS[1], 0, ARGV[1], 'WITHSCORES')
local answer = {}
for n = 1, #found, 2 do
  answer[#answer + 1] = found[n]
  answer[#answer + 1] = found[n + 1]
  answer[#answer + 1] = redis.call('HGET', KEYS[2], found[n]) or ''
  answer[#answer + 1] = redis.call('HGET', KEYS[3], found[n]) or ''
end
return answer
""")

# One hash, instance → when its lease ends, by Redis's clock: no key of its own that could be evicted.

# KEYS: leases. ARGV: instance, ms (0: it resigns). 1: it was still in force.
RENEW = Script(f"""{_NOW}
local before = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[2]))
return (before and tonumber(before) > now) and 1 or 0
""")

# KEYS: leases. {instance, 1 or 0, ...}: whether its lease is in force.
LEASES_IN_FORCE = Script(f"""{_NOW}
local known = redis.call('HGETALL', KEYS[1])
for n = 2, #known, 2 do known[n] = tonumber(known[n]) > now and 1 or 0 end
return known
""")

# KEYS: leases. ARGV: instances that have no session any more: forgotten, unless they have renewed their lease.
FORGET = Script(f"""{_NOW}
for n = 1, #ARGV do
  local ends = redis.call('HGET', KEYS[1], ARGV[n])
  if ends and tonumber(ends) <= now then redis.call('HDEL', KEYS[1], ARGV[n]) end
end
return 1
""")
