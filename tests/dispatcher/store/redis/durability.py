"""What each setting of Redis keeps, tried: `python -m tests.dispatcher.store.redis.durability` (two minutes).

A process appends to eight sessions as fast as it is answered, until Redis is killed or fails over; then what had been
answered is looked for. The figures stand in `deploy/README.md`.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from dispatcher.store.factory import open_store
from tests.dispatcher.store.redis.test_trouble import in_step, writing_process
from tests.dispatcher.store.redis.world import Switch, until
from tests.redis_servers import answers, redis_server
from tests.redis_servers import until as until_servers

SECONDS = 1.0  # of writing before the fault
CUT_SECONDS = 0.3  # for which the replica has heard nothing when the master dies
ROUNDS = 5


class Writing:
    """What the process was answered: session → sequence, and how often."""

    def __init__(self) -> None:
        self.answered: dict[str, int] = {}
        self.appends = 0


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[Writing]:
    """A process that writes until it cannot any more, or the block ends."""
    process = await writing_process(url)
    result = Writing()

    async def listen() -> None:
        assert process.stdout
        async for line in process.stdout:
            name, sequence = line.split()
            result.answered[name.decode()] = int(sequence)
            result.appends += 1

    listening = asyncio.create_task(listen())
    await until(lambda: bool(result.answered))
    try:
        yield result
    finally:
        process.kill()
        await process.wait()
        await listening


async def lost(url: str, written: Writing) -> int:
    """Answered appends (of two entries each) that are not there."""
    store = await open_store(url)
    try:
        missing = 0
        for name, sequence in written.answered.items():
            record = await store.load(name)
            missing += max(0, sequence - (record.head.sequence if record else 0)) // 2
        return missing
    finally:
        await store.close()


async def killed(folder: Path, options: tuple[str, ...] = ()) -> tuple[int, int]:
    """kill -9 of redis-server, and a new start: (appends answered, lost)."""
    with redis_server(folder, *options) as server:
        async with writing(f"redis://{server.address}/0") as written:
            await asyncio.sleep(SECONDS)
            server.kill()
        server.start()
        return written.appends, await lost(f"redis://{server.address}/0", written)


async def failed_over(folder: Path, query: str, cut: bool) -> tuple[int, int]:
    """kill -9 of the master, whose replica takes over; cut: it had heard nothing of it for a while."""
    with redis_server(folder / "master") as master, redis_server(folder / "replica") as replica:
        between, users = Switch(master), Switch(master)
        async with between.listening(), users.listening() as url:
            replica.ask("REPLICAOF", "127.0.0.1", str(between.port))
            await asyncio.to_thread(
                until_servers, partial(answers, replica, b"master_link_status:up", "INFO", "replication")
            )
            await asyncio.to_thread(until_servers, partial(in_step, master, replica))
            async with writing(f"{url}{query}") as written:
                await asyncio.sleep(SECONDS)
                if cut:
                    between.open.clear()
                    await asyncio.sleep(CUT_SECONDS)
                master.kill()
            replica.ask("REPLICAOF", "NO", "ONE")
            return written.appends, await lost(f"redis://{replica.address}/0", written)


async def main() -> None:
    aof = ("--appendonly", "yes", "--appendfsync")
    trials: dict[str, Callable[[Path], Awaitable[tuple[int, int]]]] = {}
    for policy in ("always", "everysec", "no"):
        trials[f"kill -9 of Redis, appendfsync {policy}"] = partial(killed, options=(*aof, policy))
    trials["kill -9 of Redis, no persistence"] = killed
    for query in ("", "?wait=1"):
        for cut in (False, True):
            name = f"failover{', its replica cut off' if cut else ''}, redis://...{query}"
            trials[name] = partial(failed_over, query=query, cut=cut)
    for name, trial in trials.items():
        rounds = []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                rounds.append(await trial(Path(folder)))
        appends, missing = (sum(column) for column in zip(*rounds, strict=True))
        print(f"{name:60} {appends:8} answered {missing:8} lost")


if __name__ == "__main__":
    asyncio.run(main())
