"""A Commander's side of a session: the real `commander.session` and `commander.outbox`, with an agent that says the
script when the search tells it to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from commander import calls
from commander import session as module
from commander.agent import Finish
from dispatcher.core import calls as core_calls
from shared import records
from shared.records import ToolCall, Upstream
from tests.model.copies import Atom, Keyed
from tests.model.journal import token_of

BUDGET = 1 << 20  # bytes that the writer takes at once: whatever there is


class Carrier(Atom):
    """A stream, as its sessions see it: the search asks for what there is to send."""

    def queue(self, session: module.Session) -> None:
        pass


CARRIERS = [Carrier() for _ in range(3)]


class Agent:
    """In the place of `commander.driver.Driver`: no task, and it ends when the search says so."""

    def __init__(self, begin: object, sink: object) -> None:
        self.said = 0
        self.halted = self.ended = False
        self.deltas = self.late_deltas = self.halt_micros = 0

    def halt(self) -> None:
        self.halted = True


class Quiet(Atom):
    """Log, metrics and host: they are told, and nothing comes of it."""

    commander_id = ""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: object, **kwargs: object) -> Any:
        return self


class Clock(Atom):
    """The Commander's clock shows its tag, so that each packet carries it."""

    tag = 0

    def time(self) -> float:
        return self.tag / 1000

    def monotonic(self) -> float:
        return 0.0


class Host(Quiet):
    def __init__(self, commander_id: str) -> None:
        self.commander_id = commander_id


class Unanswered(Atom):
    """The future of a call."""

    def done(self) -> bool:
        return False

    def set_result(self, result: object) -> None:
        pass


CLOCK = Clock()
QUIET: Any = Quiet()
UNANSWERED: Any = Unanswered()
HOSTS = {name: Host(name) for name in ("c1", "c2")}


@contextmanager
def scripted() -> Iterator[None]:
    """The real session of a Commander is driven by the search meanwhile, and one call is as many as may be open."""
    with patch.multiple(module, Driver=Agent, time=CLOCK, logger=QUIET), patch.object(core_calls, "MAX_OPEN_CALLS", 1):
        yield


class Commander(Keyed):
    """Given the session once. history, begun: the sequence that its history ends with, and how much of the script that
    tells; start: what it was welcomed at first, -1 until then; acked: what it was told to be in the log.
    """

    def __init__(self, tag: int, commander_id: str, generation: int, history: int) -> None:
        self.tag, self.commander_id, self.generation, self.history = tag, commander_id, generation, history
        self.begun = self.start = -1
        self.acked = 0
        self.session: Any = None  # a module.Session, once the assignment has come
        self.over = False  # it has let go of it, or it never came, or the Commander is dead

    # ---- the assignment, streams

    def assigned(self, begun: int) -> None:
        self.begun = begun
        self.session = module.Session(
            "s",
            self.generation,
            _begin,
            HOSTS[self.commander_id],
            QUIET,
            history=self.history or None,
            token=token_of(self.generation, self.commander_id),
        )

    @property
    def homeless(self) -> bool:
        return self.session.stream is None and not self.session.being_opened

    def carried_by(self, slot: int) -> bool:
        return bool(self.session) and self.session.carried_by(CARRIERS[slot])

    def take(self, slot: int) -> list[Upstream]:
        """What its writer puts on that stream now."""
        CLOCK.tag = self.tag
        taken: list[Upstream] = self.session.take(CARRIERS[slot], BUDGET)
        self.over = self.over or self.session._over
        return taken

    def receive(self, slot: int, signal: records.DownstreamSignal) -> None:
        CLOCK.tag = self.tag
        self.session.receive(CARRIERS[slot], signal)
        self.over = self.over or self.session._over

    # ---- the agent

    @property
    def agent(self) -> Any:
        """An Agent; None: not begun."""
        return self.session._driver if self.session else None

    def may_say(self, script: str) -> str:
        """The next of the script; empty: it has to wait, or nothing is left."""
        agent = self.agent
        if agent is None or agent.ended or agent.halted or self.session.outbox.full:
            return ""
        item = script[self.begun + agent.said]
        return "" if self.session._calls.awaiting and item != "P" else item

    def say(self, item: str) -> None:
        session, agent = self.session, self.agent
        place, agent.said = self.begun + agent.said, agent.said + 1
        match item:
            case "T" | "P" | "Q":  # what `Session.call_tool` does, but for the waiting
                call = ToolCall("q" if item == "Q" else "t", "{}", f"{place}-{self.tag}")
                session.outbox.call(call)
                session._calls._waiting[call.call_id] = calls._Waiting(call.tool_name, UNANSWERED)
            case ".":
                agent.ended = True
                session.driver_ended(Finish())
            case _:
                session.accept(item)

    def end_agent(self) -> None:
        """It was halted, and now it has ended."""
        self.agent.ended = True
        self.session.driver_ended(None)


def _begin(_: object) -> Any:
    raise AssertionError("no generator runs in the search")
