"""One connection to a server: its tools, and calls of them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeAlias

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp_types import (
    CONNECTION_CLOSED,
    PARSE_ERROR,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    InputRequiredResult,
    PaginatedRequestParams,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from dispatcher.tools.context import Context
from dispatcher.tools.errors import (
    BrokenAnswerError,
    ResultTooLargeError,
    ServiceError,
    UnknownOutcomeError,
    UnreachableError,
)
from dispatcher.tools.identity import identity, who_asked
from dispatcher.tools.mcp.attempt import CURRENT, Attempt
from dispatcher.tools.mcp.incoming import Incoming
from dispatcher.tools.mcp.process import TOO_LARGE, process
from dispatcher.tools.mcp.results import result
from dispatcher.tools.mcp.servers import McpProcess, McpUrl
from dispatcher.tools.mcp.web import MAX_MESSAGE_BYTES, Web
from shared.version import version

CONNECT_SECONDS = 30.0  # to agree on a version of the protocol; a server over stdio may have to be installed first
LIST_SECONDS = 30.0
LOOK_SECONDS = 30.0  # between two looks at what a server offers, which also show whether it is there
LISTEN_SECONDS = 10.0  # before a subscription that was lost is made again
PAUSE_SECONDS = 1.0  # at least between two looks, however often a server says that its tools have changed
MAX_PAGES = 100
MAX_LISTED = 2000  # tools; of these as many are offered as `keeper` lets pass
ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)

# They write down what servers said.
for name in ("mcp", "client"):
    logging.getLogger(name).setLevel(logging.CRITICAL)

Streams: TypeAlias = AbstractAsyncContextManager[tuple[Any, Any]]


class Listed(NamedTuple):
    """A tool as the server has it."""

    name: str
    description: str
    schema: dict[str, Any]


@asynccontextmanager
async def connected(toolset: str, server: McpUrl | McpProcess) -> "AsyncIterator[McpConnection]":
    """Raises ServiceError."""
    attempt = Attempt()
    token = CURRENT.set(attempt)
    try:
        connection = McpConnection(server.connecting.told if isinstance(server, McpUrl) else ())
        client = Client(
            _streams(toolset, server, connection.lose),
            cache=None,
            message_handler=connection.hear,
            client_info=Implementation(name="midsentence", version=version()),
        )
        async with asyncio.timeout(CONNECT_SECONDS) as limit, client:
            limit.reschedule(None)
            CURRENT.set(None)
            connection.use(client)
            async with connection.listening():
                yield connection
    except TimeoutError:
        raise ServiceError("unreachable", "the server did not answer in time") from None
    except Exception as error:
        raise _reason(error, attempt) from error
    finally:
        with suppress(ValueError):  # closed from another context, as an abandoned generator is
            CURRENT.reset(token)


def _reason(error: Exception, attempt: Attempt) -> Exception:
    """The one that says most."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError) and attempt.error:
        error = attempt.error
    # Its own words may be anything.
    if isinstance(error, MCPError):
        return ServiceError(f"mcp_{error.code}", f"the server refused, with {error.code}")
    if isinstance(error, ServiceError) and error.code.startswith("http_"):
        return ServiceError(error.code, f"the server answered {error.code}")
    return error


@asynccontextmanager
async def _streams(toolset: str, server: McpUrl | McpProcess, lost: Any) -> AsyncIterator[tuple[Any, Any]]:
    if isinstance(server, McpProcess):
        carried: Streams = process(toolset, server.command, server.environment, server.folder)
        async with carried as (messages, sending):
            yield Incoming(toolset, messages, lost), sending
        return
    headers = [*server.connecting.headers, ("Accept-Encoding", "identity"), ("Connection", "close")]
    agent = ("User-Agent", f"midsentence/{version()}")
    async with (
        httpx2.AsyncClient(
            transport=Web(server.connecting), headers=[agent, *headers], timeout=None, trust_env=False
        ) as client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as (
            messages,
            sending,
        ),
    ):
        yield Incoming(toolset, messages, lost), sending


class McpConnection:
    """Made before there is a client, which speaks to it from its first message on. told: headers that say who asked, as
    `Connecting` has them.
    """

    def __init__(self, told: tuple[tuple[str, str], ...] = ()) -> None:
        self._told = told
        self._client: Client | None = None
        self._lost = False
        self._look = asyncio.Event()
        self._calls = 0
        self._ended = asyncio.Event()  # one of them has

    def use(self, client: Client) -> None:
        """Of this one it is the connection."""
        self._client = client

    def lose(self) -> None:
        """The server is gone."""
        self._lost = True
        self._look.set()

    async def hear(self, message: object) -> None:
        """What the server says unasked."""
        if isinstance(message, ToolListChangedNotification):
            self._look.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Newer servers say that their tools have changed only to who asks for it."""
        task = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self) -> None:
        client = self.client
        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or not (tools and tools.list_changed):
            return
        while True:
            with suppress(MCPError, SubscriptionLost):
                async with client.listen(tools_list_changed=True) as changes:
                    self._look.set()  # what has changed before, nobody said
                    async for _ in changes:
                        self._look.set()
            await asyncio.sleep(LISTEN_SECONDS)

    @property
    def client(self) -> Client:
        if self._client is None:
            raise UnreachableError
        return self._client

    async def listings(self) -> AsyncGenerator[list[Listed], None]:
        """What the server offers; again, when that may have changed. Ends when the server is gone; raises ServiceError
        if it does not answer.
        """
        while not self._lost:
            self._look.clear()
            attempt = Attempt()
            token = CURRENT.set(attempt)
            try:
                async with asyncio.timeout(LIST_SECONDS):
                    found = await self._listed()
            except TimeoutError:
                raise ServiceError("unreachable", "the server does not say which tools it has") from None
            except (MCPError, ValidationError) as error:
                raise _reason(error, attempt) from None
            finally:
                CURRENT.reset(token)
            yield found
            await asyncio.sleep(PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._look.wait()

    async def _listed(self) -> list[Listed]:
        found: list[Listed] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await self.client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            found += (Listed(tool.name, tool.description or "", tool.input_schema) for tool in page.tools)
            cursor = page.next_cursor
            if not cursor or len(found) >= MAX_LISTED:
                break
        return found[:MAX_LISTED]

    async def call(self, name: str, arguments: dict[str, Any], context: Context) -> str:
        """As `dispatcher.tools.ports.Tool` says; the SDK sends `cancelled` when this is."""
        told = tuple((name, who_asked(context, what)) for name, what in self._told)
        if self._lost:
            raise UnreachableError
        call = identity(context)
        # Its type names what the protocol has in it, and takes anything else.
        meta: Any = {"idempotency-key": call.key, **call.trace}
        request = CallToolRequest(
            params=CallToolRequestParams(
                name=name,
                arguments=arguments,
                _meta=meta,
            )
        )
        attempt = Attempt(told)
        token = CURRENT.set(attempt)
        self._calls += 1
        try:
            answer = await self.client.session.send_request(request, ANSWER)
        except MCPError as error:
            raise self._failure(error, attempt) from None
        except (ValidationError, ValueError):
            raise BrokenAnswerError from None
        finally:
            CURRENT.reset(token)
            self._calls -= 1
            self._ended.set()
            await attempt.end()
        if isinstance(answer, InputRequiredResult):
            raise ServiceError("input_required", "The tool asks its caller for something, which is refused.")
        return result(answer)

    async def idle(self) -> None:
        """Return when no call is under way; each has its time limit."""
        while self._calls:
            self._ended.clear()
            await self._ended.wait()

    def _failure(self, error: MCPError, attempt: Attempt) -> Exception:
        """What it means for the call."""
        if isinstance(attempt.error, ServiceError) and attempt.error.code in ("session_ended", "unreachable"):
            self._look.set()  # it is seen at once that the server is not there
        if attempt.error:
            return attempt.error
        if error.code == TOO_LARGE:
            return ResultTooLargeError()
        if attempt.cut or (self._lost and error.code == CONNECTION_CLOSED):
            return UnknownOutcomeError()
        if error.code == PARSE_ERROR:
            return BrokenAnswerError()
        return ServiceError(f"mcp_{error.code}", error.message or "The tool's service refused the call.")
