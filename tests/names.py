"""A name server for tests: names have the addresses that the test says now, as replicas of a service come and go."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

HEADER = struct.Struct("!6H")
A, IN = 1, 1
ANSWERED, UNKNOWN = 0x8180, 0x8183  # a response, recursion available; the latter NXDOMAIN
TTL = 0


class NameServer:
    """Answers over UDP on 127.0.0.1. `addresses`: name → IPv4 addresses; a name that is not there is unknown."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:{1}".format(*self._socket.getsockname())
        self._answering = threading.Thread(target=self._answer_all, daemon=True)
        self._answering.start()

    def _answer_all(self) -> None:
        while True:
            query, peer = self._socket.recvfrom(4096)
            if not query:
                return
            with contextlib.suppress(OSError):  # who asked is gone
                self._socket.sendto(self._answer(query), peer)

    def _answer(self, query: bytes) -> bytes:
        number = HEADER.unpack_from(query)[0]
        labels, position = [], HEADER.size
        while length := query[position]:
            labels.append(query[position + 1 : position + 1 + length].decode())
            position += 1 + length
        kind, _ = struct.unpack_from("!2H", query, position + 1)
        question = query[HEADER.size : position + 5]
        known = self.addresses.get(".".join(labels).lower())
        found = known if known and kind == A else []
        # Each answer's name is a pointer to the question's.
        answers = [struct.pack("!3HIH4s", 0xC00C, A, IN, TTL, 4, socket.inet_aton(address)) for address in found]
        flags = UNKNOWN if known is None else ANSWERED
        return HEADER.pack(number, flags, 1, len(answers), 0, 0) + question + b"".join(answers)

    def close(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._answering.join()
        self._socket.close()


@contextlib.contextmanager
def name_server() -> Iterator[NameServer]:
    """A NameServer until the block ends."""
    server = NameServer()
    try:
        yield server
    finally:
        server.close()
