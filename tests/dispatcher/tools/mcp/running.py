"""A toolset of kind `mcp` while it runs, as an operator's file has it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dispatcher.tools.context import Context
from dispatcher.tools.load import load
from dispatcher.tools.ports import Tool, Toolset
from dispatcher.tools.registry import Registry, ToolOutput

CALL = Context("session-secret", "call-1")
SECONDS = 30.0  # within which whatever is waited for has come


class Running:
    """A toolset while it runs; its tools as they are offered."""

    def __init__(self, toolset: Toolset) -> None:
        self._toolset = toolset
        self.registry = Registry(())
        self._changed = asyncio.Event()
        self.down: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._toolset.run(self)

    def lost(self, why: Exception) -> None:
        """The toolset says so; calls may still be under way."""
        self.down.set_result(why)

    def __call__(self, tools: Sequence[Tool], left_out: Sequence[str] = ()) -> None:
        self.registry.use(tools)
        self._changed.set()

    async def offered(self, name: str) -> None:
        """Return when there is a tool of that name."""
        async with asyncio.timeout(SECONDS):
            while not self.registry.knows(name):
                self._changed.clear()
                await self._changed.wait()

    async def call(self, name: str, context: Context = CALL, **arguments: Any) -> ToolOutput:
        async with asyncio.timeout(SECONDS):
            return await self.registry.run(name, json.dumps(arguments), context)

    async def code(self, name: str) -> str:
        """The status and the error's code."""
        output = await self.call(name)
        return f"{output.status} {json.loads(output.result_json)['error']['code']}"

    async def ended(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def running(folder: Path, entry: str) -> AsyncIterator[Running]:
    file = folder / "tools.toml"
    file.write_text(f'[[toolset]]\nname = "test"\nkind = "mcp"\n{entry}\n')
    (given,) = load(file).toolsets.values()
    toolset = Running(given.toolset)
    try:
        yield toolset
    finally:
        await toolset.ended()
