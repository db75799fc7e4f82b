"""One ChatStream: a reader for its whole life, and one writer that takes from all its sessions in turn (rule 6).

What grpc.aio asks for: a `read` that is cancelled loses messages, and two `write` at once fail. So there is one task
for each, and the reader is never cancelled: the call is.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

import grpc
import structlog
from grpc import aio

from commander.credentials import Credentials
from commander.session import Session
from shared.channel import Options
from shared.envelope import MalformedPacketError
from shared.grpc_metrics import ClientMetrics, OutgoingCall
from shared.records import MAX_BATCH_BYTES, MAX_TEXT_BYTES, Downstream, Upstream
from shared.wire import SERVICE, DownstreamMessage, decode_downstream, encode_upstream

# Said in the initial metadata by a Dispatcher that knows all of the contract.
CONTRACT_KEY, CONTRACT_VERSION = "midsentence-contract", "1"
PATH = f"/{SERVICE}/ChatStream"

# Back-off with full jitter: from nothing up to these. A Dispatcher that restarts is found again within about a second.
FIRST_BACKOFF, MAX_BACKOFF = 0.1, 1.0

logger = structlog.get_logger()

StreamCall: TypeAlias = "aio.StreamStreamCall[bytes, DownstreamMessage]"


def backoff(failures: int) -> float:
    """Seconds to wait before the next stream, after so many that nobody answered."""
    doubled = FIRST_BACKOFF * 2 ** min(failures, 10)
    return random.uniform(0, min(MAX_BACKOFF, doubled))  # noqa: S311 # jitter


class DispatcherChannel:
    """The way to the Dispatcher: any gRPC target, all its addresses in turn. Make it inside the running loop."""

    def __init__(
        self, target: str, options: Options, metrics: ClientMetrics, credentials: Credentials | None = None
    ) -> None:
        self._target, self._options, self._metrics = target, options, metrics
        self._credentials = credentials or Credentials()
        self._channel = self._open()

    def stream(
        self,
        receive: Callable[["Stream", Downstream], None],
        flush: float,
        status: Callable[["Stream"], Upstream] | None = None,
    ) -> "Stream":
        """A new ChatStream. It fails soon (UNAVAILABLE) where nobody answers."""
        if self._credentials.changed():
            self._channel.retire()
            self._channel = self._open()
        call = self._channel.chat_stream(metadata=self._credentials.metadata())
        stream = Stream(call, self._metrics.began(PATH), receive, flush, status)
        self._channel.carry(stream)
        return stream

    async def close(self) -> None:
        await self._channel.close()

    def _open(self) -> "_Channel":
        credentials = self._credentials
        if secure := credentials.channel():
            return _Channel(aio.secure_channel(self._target, secure, options=[*self._options, *credentials.options]))
        return _Channel(aio.insecure_channel(self._target, options=self._options))


class _Channel:
    """One set of connections: a channel keeps the certificates that it was made with."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel
        # What `encode_upstream` has made goes as it is.
        self.chat_stream: aio.StreamStreamMultiCallable[bytes, DownstreamMessage] = channel.stream_stream(
            PATH, response_deserializer=DownstreamMessage.FromString
        )
        self._streams: set[Stream] = set()
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    def carry(self, stream: "Stream") -> None:
        self._streams.add(stream)
        stream.ended.add_done_callback(lambda _: self._over(stream))

    def retire(self) -> None:
        """No stream begins on it any more: it is closed when those that it carries have ended."""
        self._retired = True
        self._close_if_idle()

    def _over(self, stream: "Stream") -> None:
        self._streams.discard(stream)
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._retired and not self._streams and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.close())

    async def close(self) -> None:
        await self._channel.close()


class Stream:
    """Carries sessions until it ends.

    receive   called with each packet that comes, in order
    status    what to send first, and whenever `status_due` was called; None: a stream without (`commander run`)
    flush     seconds: no message sooner than that after the last one, so that what comes meanwhile is one message
    batches   False: an older Dispatcher, which knows no batch
    answered  something came: the Dispatcher is there
    drained   done when `drain` was received: no assignment follows
    leaving   its Dispatcher leaves: its sessions have to move
    ended     done when the RPC is: its status, None where it was cut here
    """

    def __init__(
        self,
        call: StreamCall,
        counted: OutgoingCall,
        receive: Callable[["Stream", Downstream], None],
        flush: float,
        status: Callable[["Stream"], Upstream] | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.batches = True
        self.answered = False
        self.drained: asyncio.Future[None] = loop.create_future()
        self.leaving = False
        self.assignments = 0
        self.ended: asyncio.Future[grpc.StatusCode | None] = loop.create_future()
        self.details = ""
        self._call = call
        self._counted = counted
        self._receive = receive
        self._flush = flush
        self._status = status
        self._status_due = status is not None
        self._ready: dict[Session, None] = {}  # in turn
        self._wake = asyncio.Event()
        self._finishing = False
        self._begun = False
        self._cut = False
        if self._status_due:
            self._wake.set()
        self._writer = loop.create_task(self._write())
        self._reader = loop.create_task(self._read())

    def queue(self, session: Session) -> None:
        """The session has something to send."""
        if session not in self._ready:
            self._ready[session] = None
            self._wake.set()

    def status_due(self) -> None:
        """Send `status` soon."""
        self._status_due = self._status is not None
        self._wake.set()

    def finish(self) -> None:
        """Half-close once everything that is queued is written. It carries no session any more."""
        self._finishing = True
        self._wake.set()

    def cut(self) -> None:
        """End it now."""
        self._cut = True
        self._call.cancel()

    async def current_contract(self) -> bool:
        """Whether the Dispatcher announced itself in its initial metadata. Waits for that; False too when it ended."""
        try:
            metadata = await self._call.initial_metadata()
        except (aio.AioRpcError, asyncio.CancelledError):
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return False
        return (CONTRACT_KEY, CONTRACT_VERSION) in [tuple(pair) for pair in metadata or ()]

    # ---- writing

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        may_write_at = 0.0
        try:
            while True:
                await self._wake.wait()
                if (pause := may_write_at - loop.time()) > 0:
                    await asyncio.sleep(pause)
                self._wake.clear()
                packets = self._take()
                if packets:
                    for message in self._messages(packets):
                        await self._call.write(message)
                        self._counted.sent.inc()
                    may_write_at = loop.time() + self._flush
                elif self._finishing:
                    await self._call.done_writing()
                    return
                if self._ready or self._finishing:
                    self._wake.set()
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return  # the RPC is over; the reader says why
        except asyncio.CancelledError:
            if not self._call.done():
                raise
        except Exception:
            logger.exception("stream_failed")
            self.cut()

    def _take(self) -> list[Upstream]:
        """What is due: the status, then of each session in turn what fits."""
        packets: list[Upstream] = []
        if self._status_due and self._status:
            self._status_due = False
            packets.append(self._status(self))
        size = 0
        ready, self._ready = list(self._ready), {}
        share = min(MAX_BATCH_BYTES // max(len(ready), 1), MAX_TEXT_BYTES)  # of each: all have a turn in a message
        for turn, session in enumerate(ready, 1):
            taken = session.take(self, share)
            packets += taken
            had = sum([packet.size for packet in taken])
            if had >= share:
                self._ready[session] = None  # perhaps there is more; it stands last now
            size += had
            if size >= MAX_BATCH_BYTES:
                self._ready = {**dict.fromkeys(ready[turn:]), **self._ready}
                break
        return packets

    def _messages(self, packets: Sequence[Upstream]) -> list[bytes]:
        if not self.batches:
            return [encode_upstream([packet]) for packet in packets]
        if self._begun or len(packets) == 1:
            self._begun = True
            return [encode_upstream(packets)]
        self._begun = True  # a batch is never a stream's first message
        return [encode_upstream(packets[:1]), encode_upstream(packets[1:])]

    # ---- reading

    async def _read(self) -> None:
        code: grpc.StatusCode | None = None
        try:
            while isinstance(message := await self._call.read(), DownstreamMessage):  # else EOF
                self._counted.received.inc()
                self.answered = True
                for packet in decode_downstream(message):
                    self._receive(self, packet)
            code = await self._call.code()
            self.details = await self._call.details() or ""
        except aio.AioRpcError as error:
            code, self.details = error.code(), error.details() or ""
        except MalformedPacketError as error:
            logger.error("malformed_packet", reason=str(error))  # noqa: TRY400 # the peer's fault: no place in our code
            self.cut()
        except asyncio.CancelledError:
            if not self._cut:
                self.cut()
                raise
        except Exception:
            logger.exception("stream_failed")
            self.cut()
        finally:
            self._counted.ended(code or grpc.StatusCode.CANCELLED)
            self._writer.cancel()
            if not self.ended.done():
                self.ended.set_result(None if self._cut else code)
