"""One pair for all clients."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests import programs


class Pair(NamedTuple):
    """url: for clients, with `/v1`; operator: where the console is."""

    url: str
    operator: str


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    policies = folder / "policies.toml"
    policies.write_text('[[policy]]\nname = "project"\nkind = "phrases"\nphrases = ["Project Nightingale"]\n')
    with (
        programs.dispatcher(folder / "dispatcher.log", policies=str(policies)) as server,
        programs.commander(server.grpc, folder / "commander.log", "tests.clients.agents:agent", capacity="16"),
    ):
        server.program.wait_for(lambda event: event.get("event") == "commander_joined")
        yield Pair(f"http://{server.http}/v1", f"http://{server.operator}")
