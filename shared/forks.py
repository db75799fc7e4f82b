"""What the children that an agent or a tool forks must not hold: they live on after a `kill -9` of this program.

A listener that a child had too would keep its port taken, a connection would keep its peer waiting for words that
nobody sends, a lock would keep the store shut. What is started by `exec` has none of them anyway.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_ports: set[int] = set()
_descriptors: set[int] = set()


@contextmanager
def withheld(*, ports: tuple[int, ...] = (), descriptors: tuple[int, ...] = ()) -> Iterator[None]:
    """Meanwhile children get neither these descriptors nor a TCP socket that listens or was accepted on these ports."""
    _ports.update(ports)
    _descriptors.update(descriptors)
    try:
        yield
    finally:
        _ports.difference_update(ports)
        _descriptors.difference_update(descriptors)


def _let_go() -> None:
    """In the child. gRPC tells nobody which descriptors it has, so they are found by their ports."""
    for descriptor in _descriptors:
        with suppress(OSError):
            os.close(descriptor)
    for descriptor in map(int, os.listdir("/proc/self/fd") if _ports else ()):  # noqa: PTH208 - in a child: little
        with suppress(OSError):  # it is no socket
            found = socket.socket(fileno=descriptor)
            try:
                address = found.getsockname()
                if isinstance(address, tuple) and address[1] in _ports:
                    found.close()
            finally:
                found.detach()


os.register_at_fork(after_in_child=_let_go)
