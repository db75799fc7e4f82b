"""From a URL to connections, and what is wrong with the server behind it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote

import msgspec
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    InvalidResponse,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from dispatcher.store.ports import StoreMisconfigured
from dispatcher.store.redis.pipeline import CONNECT_SECONDS, REPLY_SECONDS, Reply, connect, pack
from dispatcher.store.redis.rights import lacking, probes, remedy

OLDEST = 7  # the oldest version of Redis that is served: scripts replicate what they did, not themselves
LOADING_SECONDS = 30.0  # for a server that is starting to have read its data
PARAMETERS = {"redis": ("wait",), "rediss": ("wait", "ca"), "unix": ("wait", "db")}


class RedisAddress(msgspec.Struct, frozen=True):
    """shown: without user and password. replicas: that must acknowledge each step."""

    shown: str
    kind: type[AbstractConnection]
    arguments: Mapping[str, Any]
    database: int = 0
    replicas: int = 0

    def connection(self, **other: Any) -> AbstractConnection:
        """A new one, not open yet. other: in place of what the URL says."""
        return self.kind(
            **{
                "db": self.database,
                "protocol": 2,
                "client_name": "midsentence",
                "driver_info": None,
                "socket_timeout": None,  # `Pipeline` bounds it: redis-py would start a task for each command
                "socket_connect_timeout": CONNECT_SECONDS,
                **self.arguments,
                **other,
            }
        )


def parse(parts: SplitResult) -> RedisAddress:
    """Raises StoreMisconfigured."""
    scheme = parts.scheme
    query = _query(scheme, parts.query)
    replicas = _number(scheme, "wait", query.get("wait", "0"))
    credentials = {"username": unquote(parts.username or "") or None, "password": unquote(parts.password or "") or None}
    if parts.fragment:
        raise StoreMisconfigured(f"the store {scheme}:// takes no '#'; write it as %23 in a password")
    if scheme == "unix":
        path = unquote(parts.path)
        if parts.hostname or not path.startswith("/"):
            raise StoreMisconfigured("the store unix:// needs the path of a socket: unix:///run/redis.sock")
        database = _number(scheme, "db", query.get("db", "0"))
        return RedisAddress(
            f"unix://{path}", UnixDomainSocketConnection, {"path": path, **credentials}, database, replicas
        )
    try:
        host, port = parts.hostname, parts.port or 6379
    except ValueError:
        raise StoreMisconfigured(f"the store {scheme}:// has a port that is none") from None
    if not host:
        raise StoreMisconfigured(f"the store {scheme}:// needs a host: {scheme}://host:6379/0")
    database = _number(scheme, "database", parts.path.strip("/") or "0")
    arguments = {"host": unquote(host), "port": port, **credentials}
    if "ca" in query:
        arguments["ssl_ca_certs"] = query["ca"]
    kind = SSLConnection if scheme == "rediss" else Connection
    shown = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/{database}"
    return RedisAddress(shown, kind, arguments, database, replicas)


def _query(scheme: str, query: str) -> dict[str, str]:
    found = dict(parse_qsl(query, keep_blank_values=True))
    known = PARAMETERS[scheme]
    for name in found:
        if name not in known:
            raise StoreMisconfigured(f"the store {scheme}:// has no parameter {name!r}; there is {', '.join(known)}")
    return found


def _number(scheme: str, name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise StoreMisconfigured(f"the store {scheme}:// needs a number for {name}")
    return int(text)


async def ask_server(address: RedisAddress) -> dict[str, str]:
    """What the server says of itself (INFO), once it has read its data. Raises StoreMisconfigured."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + LOADING_SECONDS
    while True:
        info = await _info(address)
        if info.get("loading") != "1":
            return info
        if loop.time() > give_up:
            raise StoreMisconfigured(f"the store {address.shown} is still loading its data")
        await asyncio.sleep(0.2)


async def _info(address: RedisAddress) -> dict[str, str]:
    reply = (await _ask(address, [pack("INFO")]))[0]
    if isinstance(reply, ResponseError):
        raise _refusal(address, reply)
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


async def _ask(address: RedisAddress, commands: Sequence[bytes]) -> list[Reply]:
    """The replies; errors stand among them. Raises StoreMisconfigured."""
    connection = address.connection()
    replies: list[Reply] = []
    try:
        await connect(connection)
        async with asyncio.timeout(REPLY_SECONDS):
            await connection.send_packed_command(commands, check_health=False)
            while len(replies) < len(commands):
                replies.append(await _reply(connection))
    except (AuthenticationError, AuthorizationError) as error:
        raise StoreMisconfigured(f"the store {address.shown} refuses the user or the password: {error}") from None
    except InvalidResponse as error:
        raise StoreMisconfigured(f"the store {address.shown} does not answer as Redis: {error}") from None
    except ResponseError as error:  # such as a database that is not there
        raise _refusal(address, error) from None
    except (RedisError, OSError) as error:
        reason = str(error) or f"no answer within {CONNECT_SECONDS:g} s"
        raise StoreMisconfigured(f"the store {address.shown} cannot be reached: {reason}") from None
    finally:
        await connection.disconnect(nowait=True)
    return replies


async def _reply(connection: AbstractConnection) -> Reply:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def _refusal(address: RedisAddress, error: ResponseError) -> StoreMisconfigured:
    more = f"; {remedy(address.arguments.get('username'))}" if isinstance(error, NoPermissionError) else ""
    return StoreMisconfigured(f"the store {address.shown} refuses: {error}{more}")


async def check_rights(address: RedisAddress, cluster: bool) -> None:
    """Try all that will be asked of the server. Raises StoreMisconfigured: what its user may not do."""
    tried = probes(address.database, address.replicas > 0, cluster)
    missing = lacking(tried, await _ask(address, [pack(*probe) for probe in tried]))
    if missing:
        user = address.arguments.get("username")
        raise StoreMisconfigured(f"the store {address.shown} does not allow {missing}; {remedy(user)}")


def check_server(address: RedisAddress, info: Mapping[str, str]) -> None:
    """Raises StoreMisconfigured where it cannot keep logs."""
    version = info.get("redis_version", "")
    major = version.partition(".")[0]
    if not major.isdecimal() or int(major) < OLDEST:
        raise StoreMisconfigured(f"the store {address.shown} is Redis {version}; {OLDEST} or later is needed")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        raise StoreMisconfigured(
            f"the store {address.shown} may evict live sessions (maxmemory-policy {policy}); noeviction is needed"
        )
    if info.get("cluster_enabled") != "1" and info.get("role", "master") != "master":
        raise StoreMisconfigured(f"the store {address.shown} is a read-only replica; the master is needed")
