"""Connections to services, on the event loop that the programs have."""

import asyncio

import httpcore2
import pytest
import uvloop

from dispatcher.tools.http.network import CheckedNetwork, WatchedStream
from tests.dispatcher.tools.http.service import Service, Talk


def test_a_connection_that_is_over_before_anything_was_sent_is_none() -> None:
    """uvloop has no socket of it any more, which anyio does not expect."""

    async def meet() -> None:
        async def says(talk: Talk) -> None:
            raise AssertionError("nothing was asked")

        service = Service(says)
        async with service.at():
            host, port = service.url.removeprefix("http://").split(":")
            network = CheckedNetwork(private=True)
            stream = await network.connect_tcp(host, int(port))
            assert isinstance(stream, WatchedStream)
            await stream.aclose()
            with pytest.raises(httpcore2.NetworkError):
                stream.get_extra_info("ssl_object")
            assert not stream.sent

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(meet())
