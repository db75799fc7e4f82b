"""Toolsets of kind `mcp`: what a server offers, while there is a connection to it."""

import asyncio
import importlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from dispatcher.tools.context import Context
from dispatcher.tools.entry import Terms
from dispatcher.tools.errors import UnreachableError
from dispatcher.tools.mcp.servers import McpProcess, McpUrl
from dispatcher.tools.ports import Offer, Spec

if TYPE_CHECKING:
    from dispatcher.tools.mcp.connection import Listed, McpConnection


class McpToolset:
    """connection: None while there is none."""

    def __init__(self, terms: Terms, server: McpUrl | McpProcess) -> None:
        self.name = terms.spec.name
        self._terms, self._server = terms, server
        self.connection: McpConnection | None = None

    async def run(self, offer: Offer) -> None:
        """As `dispatcher.tools.ports.Toolset` says."""
        # The SDK is large: who has no such toolset does not pay for it, and the loop goes on while it is imported.
        await asyncio.to_thread(importlib.import_module, "dispatcher.tools.mcp.connection")
        from dispatcher.tools.mcp.connection import connected

        async with connected(self.name, self._server) as connection:
            try:
                await self._offered(connection, offer)
            except Exception as why:
                offer.lost(why)
                await connection.idle()

    async def _offered(self, connection: "McpConnection", offer: Offer) -> None:
        """Until the server is gone. Raises why it does not say what it has."""
        try:
            async with aclosing(connection.listings()) as listings:
                async for found in listings:
                    self.connection = connection
                    offer([self._tool(one) for one in found if self._terms.allows(one.name)])
        finally:
            self.connection = None

    def _tool(self, found: "Listed") -> "McpTool":
        return McpTool(self, self._terms.offered(found.name, found.description, found.schema), found.name)


class McpTool:
    """name: the server's own for it."""

    def __init__(self, toolset: McpToolset, spec: Spec, name: str) -> None:
        self.spec = spec
        self._toolset, self._name = toolset, name

    async def call(self, arguments: dict[str, Any], context: Context) -> str:
        """As `dispatcher.tools.ports.Tool` says."""
        connection = self._toolset.connection
        if connection is None:
            raise UnreachableError
        return await connection.call(self._name, arguments, context)
