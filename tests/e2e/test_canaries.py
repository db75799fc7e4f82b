"""What a Commander thinks, asks tools and fails with is searched for in every byte that users can get."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.e2e.reading import Reader, ask
from tests.programs import Dispatcher, commander, dispatcher

CANARY = "zx9canary7"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dispatcher]:
    """With a Commander whose agent is `teller`."""
    folder = tmp_path_factory.mktemp("canaries")
    with (
        dispatcher(folder / "d.log") as server,
        commander(server.grpc, folder / "c.log", "tests.e2e.agents:telling", agent="teller"),
    ):
        server.program.wait_for(lambda event: event.get("event") == "commander_joined")
        yield server


@pytest.mark.parametrize("fail", [False, True])
def test_no_canary_reaches_a_user(server, fail):
    url = f"http://{server.http}"
    created = httpx2.post(
        f"{url}/v1/sessions",
        json={"agent": "teller", "prompt": "go", "parameters": {"canary": CANARY, "fail": fail}},
        timeout=30,
    )
    session = created.json()["session_id"]
    reader = Reader(url, session).ended(60)
    assert reader.text == "Nothing to see."
    assert reader.final[0] == ("failed" if fail else "finished")
    paths = [f"/v1/sessions/{session}", f"/v1/sessions/{session}/events", "/v1/models", "/v1/models/teller"]
    paths += [f"/v1/sessions/{session}/events?after={offset}" for offset in range(1, 8)]
    seen = [httpx2.get(url + path).text for path in paths]
    for path in ("/metrics", "/operator/sessions", f"/operator/sessions/{session}/events"):
        assert httpx2.get(url + path).status_code == 404, "operators' routes are apart from what users reach"
    assert not [body for body in seen if CANARY in body or str(int(CANARY, 36)) in body]
    operator = httpx2.get(f"http://{server.operator}/operator/sessions/{session}/events").text
    assert f"thinking of {CANARY}" in operator


def test_a_session_id_of_another_is_not_found(server):
    url = f"http://{server.http}"
    assert httpx2.get(f"{url}/v1/sessions/nobody").status_code == 404
    assert httpx2.get(f"{url}/v1/sessions/nobody/events").status_code == 404
    assert ask(url)
