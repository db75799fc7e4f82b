"""Writes to the store at argv[1] until it is killed; a line `session sequence` on stdout for each answered append."""

import asyncio
import sys

from dispatcher.store.factory import open_store
from shared import logs
from tests.contracts.sessions import acquire, append, brought, head_of, said

SESSIONS = 8


async def main() -> None:
    logs.configure()  # to standard error: the lines on stdout are answers alone
    store = await open_store(sys.argv[1])

    async def write(name: str) -> None:
        await store.create(brought(name))
        head = head_of(await store.submit(name, acquire("c1", 0)))
        sequence = head.sequence
        while True:
            sequence += 2
            await store.submit(name, append(head.epoch, said(sequence - 1, "odd "), said(sequence, "even ")))
            sys.stdout.write(f"{name} {sequence}\n")
            sys.stdout.flush()

    await asyncio.gather(*(write(f"s{n}") for n in range(SESSIONS)))


if __name__ == "__main__":
    asyncio.run(main())
