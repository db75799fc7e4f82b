"""Calls that have to be approved, over real processes: `kill -9` of the Dispatcher at which they wait, and OpenAI."""

import concurrent.futures
import signal
import time

import httpx2
import pytest

from tests.e2e.reading import Reader, ask
from tests.programs import commander, dispatcher
from tests.replicas import eventually, figure, replicas

TOOL = '[[tool]]\nname = "note"\nkind = "local"\nuse = "tests.e2e.agents:note"\napproval = "{approval}"\n'


@pytest.fixture
def tools(tmp_path, request):
    file = tmp_path / "tools.toml"
    file.write_text(TOOL.format(approval=getattr(request, "param", "user")))
    return str(file)


def waiting(operator, seconds=60):
    """What waits, once something does."""
    deadline = time.monotonic() + seconds
    while not (calls := httpx2.get(f"http://{operator}/operator/approvals").json()["approvals"]):
        assert time.monotonic() < deadline, "nothing waits"
        time.sleep(0.02)
    (call,) = calls
    return call


def decide(url, call, decision="approve"):
    of = f"{call['session_id']}/calls/{call['call_id']}/decision"
    body = {"decision": decision, "arguments_sha256": call["arguments_sha256"]}
    return httpx2.post(f"{url}/sessions/{of}", json=body)


def first_events(url, session):
    """The bytes of the session's stream up to the approval."""
    seen = b""
    with httpx2.stream("GET", f"{url}/v1/sessions/{session}/events") as answer:
        for piece in answer.iter_raw():
            seen += piece
            if b"event: approval" in seen and seen.endswith(b"\n\n"):
                return seen
    raise AssertionError("it ended")


@pytest.mark.parametrize(("by", "how"), [("user", "kill"), ("operator", "kill"), ("user", "leave")])
def test_a_call_that_waits_outlives_its_dispatcher_and_runs_once(tmp_path, tools, by, how):
    """`kill -9`: it is decided on at another replica before that has taken the session over. One that leaves does not
    wait for the decision.
    """
    effects = tmp_path / "effects"
    with replicas(tmp_path) as rig:
        owner = rig.dispatcher(tools=tools)
        rig.commander("tests.e2e.agents:noting")
        eventually(lambda: figure(owner.operator, "dispatcher_commanders") == 1, "the Commander joins")
        other = rig.dispatcher(tools=tools)
        url = f"http://{other.http}"
        session = ask(f"http://{owner.http}", file=str(effects), calls=1)
        call = waiting(other.operator)
        assert (call["session_id"], call["tool_name"], call["arguments"]["line"]) == (session, "note", f"{session} 0")
        assert figure(owner.operator, "dispatcher_approvals_waiting") == 1
        assert first_events(url, session) == first_events(f"http://{owner.http}", session)
        reader = Reader(url, session)
        if how == "kill":
            owner.program.kill()
        else:
            owner.program.send_signal(signal.SIGTERM)
            assert owner.program.exit_status(15) == 0
        answer = decide(f"{url}/v1" if by == "user" else f"http://{other.operator}/operator", call)
        assert answer.status_code == 202
        assert (reader.ended(60).final[0], reader.text) == ("finished", "0:noted ")
        assert effects.read_text() == f"{session} 0\n"
        assert decide(f"{url}/v1", call).status_code == 202
        assert decide(f"{url}/v1", call, "deny").status_code == 409
        whole = httpx2.get(f"{url}/v1/sessions/{session}/events").content
        for event in whole.split(b"\n\n")[1:-2]:
            last_id = event.split(b"\n")[0].removeprefix(b"id: ").decode()
            resumed = httpx2.get(f"{url}/v1/sessions/{session}/events", headers={"Last-Event-ID": last_id}).content
            assert whole.endswith(resumed.removeprefix(b"retry: 1000\n\n"))
            assert event not in resumed


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_kill_soon_after_the_decision_runs_it_at_most_once(tmp_path, tools):
    """Whether it ran is then known, or said to be unknown; it never runs twice."""
    with replicas(tmp_path) as rig:
        owner = rig.dispatcher(tools=tools)
        rig.commander("tests.e2e.agents:noting", capacity="8")
        eventually(lambda: figure(owner.operator, "dispatcher_commanders") == 1, "the Commander joins")
        for n in range(8):
            effects = tmp_path / f"effects-{n}"
            other = rig.dispatcher(tools=tools)
            session = ask(f"http://{other.http}", file=str(effects), calls=1)
            call = waiting(other.operator)
            assert decide(f"http://{other.http}/v1", call).status_code == 202
            time.sleep(n * 0.002)  # kill at one moment after the other: not to wait for something
            owner.program.kill()
            rig.leave(owner)
            reader = Reader(f"http://{other.http}", session).ended(60)
            lines = effects.read_text().splitlines() if effects.exists() else []
            if reader.final[0] == "finished":
                assert lines == [f"{session} 0"]
            else:
                assert len(lines) <= 1
                assert (
                    b'"status":"UNKNOWN_OUTCOME"' in httpx2.get(reader.url + f"/v1/sessions/{session}/events").content
                )
            owner = other


@pytest.mark.parametrize("tools", ["operator"], indirect=True)
def test_on_openais_route_it_just_takes_its_time(tmp_path, tools):
    with (
        dispatcher(tmp_path / "d.log", tools=tools) as server,
        commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:noting_once"),
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        eventually(lambda: figure(server.operator, "dispatcher_commanders") == 1, "the Commander joins")
        effects = tmp_path / "effects"
        body = {"model": "default", "messages": [{"role": "user", "content": str(effects)}]}
        asking = pool.submit(httpx2.post, f"http://{server.http}/v1/chat/completions", json=body, timeout=60)
        call = waiting(server.operator)
        assert decide(f"http://{server.http}/v1", call).status_code == 409
        assert not asking.done()
        assert decide(f"http://{server.operator}/operator", call).status_code == 202
        answer = asking.result(30).json()
        assert answer["choices"][0]["message"]["content"] == "noted"
        assert effects.read_text() == "called\n"
