"""From the setting `DISPATCHER_STORE` to a store."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dispatcher.store.memory import MemoryStore
from dispatcher.store.ports import Store, StoreMisconfigured
from dispatcher.store.sqlite.store import SqliteStore

KNOWN = "use sqlite:///PATH, redis://HOST:PORT or memory://"


async def open_store(url: str, observe: Callable[[float, int], None] | None = None) -> Store:
    """The store that `url` names. Raises StoreMisconfigured.

    `sqlite:///relative/path`, `sqlite:////absolute/path`, with `?synchronous=full` if wanted; `memory://`;
    `redis://user:password@host:port/database`, `rediss://` with TLS (`?ca=FILE`), `unix:///socket` (`?db=N`), each with
    `?wait=REPLICAS` if wanted.
    observe: called on the event loop with the seconds that a step took and the entries that it added.
    """
    # Not the whole URL in any error: other schemes may hold a password.
    try:
        parts = urlsplit(url)
    except ValueError:
        raise StoreMisconfigured("the store is not a URL") from None
    match parts.scheme:
        case "sqlite":
            return await _sqlite(parts, observe)
        case "memory":
            if parts.netloc or parts.path or parts.query or parts.fragment:
                raise StoreMisconfigured("the store memory:// takes nothing after the slashes")
            return MemoryStore(observe)
        case "redis" | "rediss" | "unix":
            # Its client takes a tenth of a second to load, which no other store waits for.
            from dispatcher.store.redis.address import parse
            from dispatcher.store.redis.store import RedisStore

            return await RedisStore.open(parse(parts), observe)
        case "":
            raise StoreMisconfigured(f"the store has no scheme; {KNOWN}")
        case scheme:
            raise StoreMisconfigured(f"the store {scheme}:// is unknown; {KNOWN}")


async def _sqlite(parts: SplitResult, observe: Callable[[float, int], None] | None) -> SqliteStore:
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path or path.endswith("/") or "\0" in path:
        raise StoreMisconfigured(
            "the store sqlite:// needs the path of a file: sqlite:///relative/path or sqlite:////absolute/path"
        )
    if parts.fragment:
        raise StoreMisconfigured("the store sqlite:// takes no '#'; write it as %23 in a path")
    synchronous = "normal"
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "synchronous":
            raise StoreMisconfigured(f"the store sqlite:// has no parameter {name!r}; there is synchronous")
        if value not in ("normal", "full"):
            raise StoreMisconfigured(f"the store sqlite:// has no synchronous={value!r}; there are normal and full")
        synchronous = value
    return await SqliteStore.open(Path(path), synchronous == "full", observe)
