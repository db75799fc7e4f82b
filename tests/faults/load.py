"""Users: sessions are created, read and now and then stopped at whatever replica answers, while things break."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2

from tests.faults.agents import Script
from tests.faults.cluster import Cluster
from tests.faults.decisions import Answer, Asked, asked, decide
from tests.faults.oracle import Evidence
from tests.faults.reader import Event, EventParser, Reader
from tests.faults.schedule import TopologyName
from tests.faults.served import world
from tests.faults.services import Seen, runs

PARALLEL: dict[TopologyName, int] = {"sqlite": 12, "redis": 12, "outages": 24}  # sessions at once
READERS = 2  # of each
# How many words an agent has, and seconds between two. Sparse ones: what a store that is away cannot take comes at
# another moment in each session, and so does what is tried again when it is back.
DENSE = (20, 90), (0.02, 0.06)
SPARSE = (6, 24), (0.3, 1.2)
ANSWER_SECONDS = 5.0
AGAIN_SECONDS = 0.2
FETCH_SECONDS = 10.0  # for one log, on a busy machine
COMPLETE_SECONDS = 30.0  # after all readers' last events, for everybody else's part of every session
STOPPED = 0.15  # of all sessions, in mid-sentence
STOPPED_IN_CALL = 0.15  # of all others, while a service acts
MakeReader = Callable[[str, Sequence[Any], random.Random], Reader]


@dataclass
class Session:
    """What one user wants. stop_at: a stop after so many characters; stop_in: in the call of that number, which acts
    for long; None: not.
    """

    number: int
    agent: str
    script: Script
    stop_at: int | None
    stop_in: int | None
    chance: random.Random
    session_id: str = ""
    readers: list[Reader] = field(default_factory=list)
    stop_asked: bool = False
    asked: list[Asked] = field(default_factory=list)

    @property
    def stops(self) -> bool:
        return self.stop_at is not None or self.stop_in is not None

    @property
    def stop_due(self) -> bool:
        reader = self.readers[0]
        if self.stop_in is not None:
            return len({call_id for _, call_id, _ in reader.calls}) > self.stop_in
        return len(reader.text) >= (self.stop_at or 0)


def plan(seed: int, number: int, file: Path, sparse: bool = False) -> Session:
    """The same for the same seed and number."""
    words, seconds = SPARSE if sparse else DENSE
    chance = random.Random(f"session {seed} {number}")
    agent = chance.choice(("continuing", "continuing", "naive"))
    script = Script(
        f"s{number}", chance.randint(*words), chance.randint(4, 15), chance.uniform(*seconds), str(file), seed
    )
    stop_at = chance.randrange(len(script.text)) if chance.random() < STOPPED else None
    stop_in = None
    if stop_at is None and chance.random() < STOPPED_IN_CALL:
        stop_in = chance.randrange(script.calls)
        script = replace(script, waits=stop_in)
    return Session(number, agent, script, stop_at, stop_in, chance)


class Users:
    """run: from now until `enough` is set and every session has ended."""

    def __init__(self, cluster: Cluster, seed: int, effects: Path, make_reader: MakeReader = Reader) -> None:
        self.sessions: list[Session] = []
        self.enough = asyncio.Event()
        self._cluster, self._seed, self._effects, self._make_reader = cluster, seed, effects, make_reader
        self._http = httpx2.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False)

    async def run(self) -> None:
        async with self._http, asyncio.TaskGroup() as users:
            for _ in range(PARALLEL[self._cluster.topology]):
                users.create_task(self._user())

    async def run_once(self, sessions: Sequence[Session]) -> None:
        """Only these."""
        self.sessions += sessions
        async with self._http, asyncio.TaskGroup() as users:
            for session in sessions:
                users.create_task(self.serve(session))

    @property
    def unended(self) -> list[Session]:
        return [each for each in self.sessions if not each.readers or any(not r.final for r in each.readers)]

    @property
    def heard(self) -> int:
        """Events that readers got, of all sessions: it grows while anything goes on."""
        return sum(int(reader.last_id) for each in self.sessions for reader in each.readers)

    async def _user(self) -> None:
        sparse = self._cluster.topology == "outages"
        while not self.enough.is_set():
            session = plan(self._seed, len(self.sessions), self._effects, sparse)
            self.sessions.append(session)
            self._cluster.note(f"session {session.number} is asked for")
            await self.serve(session)
            self._cluster.note(f"session {session.number} {session.session_id} has ended")

    async def serve(self, session: Session) -> None:
        """One session from its creation to its last event, at all its readers."""
        body = {"agent": session.agent, "prompt": "go", "parameters": session.script.parameters}
        key = {"Idempotency-Key": f"rig-{self._seed}-{session.number:08}-{session.script.key}"}
        created = await self._until_answered(session, "/v1/sessions", 201, json=body, headers=key)
        session.session_id = created["session_id"]
        for number in range(READERS):
            chance = random.Random(f"{session.chance.random()} {number}")
            session.readers.append(self._make_reader(session.session_id, self._cluster.readers, chance))
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(reader.run()) for reader in session.readers]
            tasks.create_task(self._follow(session, reading[0], tasks))

    async def _follow(self, session: Session, reading: asyncio.Task[None], tasks: asyncio.TaskGroup) -> None:
        """Decide on what has to be approved, and stop when that is due, or when all is read."""
        reader = session.readers[0]
        reading.add_done_callback(lambda _: reader.news.set())
        while True:
            reader.news.clear()
            for event in reader.approvals[len(session.asked) :]:
                session.asked.append(one := asked(event, session.chance))
                tasks.create_task(decide(session.session_id, one, session.chance, self._post))
            if session.stops and not session.stop_asked and (session.stop_due or reading.done()):
                session.stop_asked = True
                tasks.create_task(self._until_answered(session, f"/v1/sessions/{session.session_id}/stop", 202))
            if reading.done():
                return
            await reader.news.wait()

    async def _post(self, who: str, path: str, body: dict[str, Any]) -> Answer:
        """A decision, at one replica after the other until one answers."""
        while True:
            number = random.randrange(len(self._cluster.dispatchers))
            try:
                url = self._users_url(number) if who == "user" else f"{self._cluster.operator(number)}/operator"
                answer = await self._http.post(f"{url}{path}", json=body)
            except (httpx2.TransportError, KeyError):  # that replica is down
                pass
            else:
                if answer.status_code < 500:
                    return answer.status_code, answer.json().get("error", {}).get("code", "")
            await asyncio.sleep(AGAIN_SECONDS)

    def _users_url(self, number: int) -> str:
        return f"http://127.0.0.1:{self._cluster.readers[number].port}/v1"

    async def _until_answered(self, session: Session, path: str, wanted: int, **how: Any) -> dict[str, Any]:
        """Asked again at another replica until one answers so."""
        while True:
            port = session.chance.choice(self._cluster.readers).port
            try:
                answer = await self._http.post(f"http://127.0.0.1:{port}{path}", **how)
            except httpx2.TransportError:
                pass
            else:
                if answer.status_code == wanted:
                    return dict(answer.json())
                if answer.status_code < 500 and answer.status_code != httpx2.codes.TOO_MANY_REQUESTS:
                    raise AssertionError(f"POST {path} is answered {answer.status_code} {answer.text}")
            await asyncio.sleep(AGAIN_SECONDS)


async def evidence(
    cluster: Cluster, sessions: Sequence[Session], lines: Counter[str], seen: Sequence[Seen] = ()
) -> list[Evidence]:
    """What every replica says of these sessions, now that nothing breaks any more. lines: that the tool `note` wrote;
    seen: what the services did.
    """
    around = world(cluster.happened, seen, runs)
    by_session: dict[str, list[Seen]] = {}
    for each in seen:
        by_session.setdefault(each.line.partition(" ")[0], []).append(each)
    gathered = []
    until = asyncio.get_running_loop().time() + COMPLETE_SECONDS
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        for session in sessions:
            logs, states, complete = [], [], True
            for number in range(len(cluster.dispatchers)):
                log: list[Event] = []
                path = f"{cluster.operator(number)}/operator/sessions/{session.session_id}/events"
                complete &= await _read(http, path, log, until)
                logs.append(log)
                state = await http.get(f"{cluster.users(number)}/v1/sessions/{session.session_id}")
                states.append(state.json())
            gathered.append(
                Evidence(
                    session.session_id,
                    session.agent,
                    session.script,
                    session.stop_asked,
                    session.readers,
                    logs,
                    states,
                    lines,
                    complete,
                    by_session.get(session.session_id, []),
                    session.asked,
                    around,
                )
            )
    return gathered


async def _read(http: httpx2.AsyncClient, path: str, log: list[Event], until: float) -> bool:
    """Fill the log. False: it has no end by then, and within FETCH_SECONDS."""
    parser, until = EventParser(), max(until, asyncio.get_running_loop().time() + FETCH_SECONDS)
    try:
        async with (
            asyncio.timeout_at(until),
            http.stream("GET", path) as got,
        ):
            async for data in got.aiter_bytes():
                log += parser.feed(data)
    except TimeoutError:
        return False
    return True


async def replayed(cluster: Cluster, evidence: Evidence, chance: random.Random) -> list[str]:
    """The stream cut after every entry of the log: what a reader that comes back there gets is what follows it."""
    found = []
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        for offset in range(len(evidence.log) + 1):
            replica = cluster.users(chance.randrange(len(cluster.dispatchers)))
            path = f"{replica}/v1/sessions/{evidence.session_id}/events"
            answer = await http.get(path, headers={"Last-Event-ID": str(offset)})
            events: list[Event] = EventParser().feed(answer.content)
            text = "".join(event.data["text"] for event in events if event.name == "content")
            follows = "".join(event.data["released"] for event in evidence.log[offset:])
            if text != follows or any(int(event.id) <= offset for event in events):
                found.append(
                    f"session {evidence.session_id}: after id {offset} a reader gets {text!r}, not {follows!r}"
                )
    return found


async def live(cluster: Cluster) -> dict[str, Any]:
    """What operators see of the sessions that have not ended, by id."""
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        answer = await http.get(f"{cluster.operator(0)}/operator/sessions", params={"limit": 1000})
    return {each["session_id"]: each for each in answer.json()["sessions"]}


async def known(cluster: Cluster) -> set[str]:
    """The ids of all sessions that the store has."""
    states = ("waiting", "running", "finished", "stopped", "failed")
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        answers = [
            await http.get(f"{cluster.operator(0)}/operator/sessions", params={"state": state, "limit": 1000})
            for state in states
        ]
    return {each["session_id"] for answer in answers for each in answer.json()["sessions"]}
