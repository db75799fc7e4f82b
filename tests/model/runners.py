"""A Dispatcher's side of a session, with the real core: what `dispatcher.live.runner`, `dispatcher.live.appends` and
`dispatcher.live.sessions` do, one step at a time. The search decides when a step that waits for the store is carried
out, whether it is answered, and when a deadline comes.
"""

from typing import Any, NamedTuple

from msgspec.structs import replace

from dispatcher.core import effects, log
from dispatcher.core.entries import Entry
from dispatcher.core.limits import Limits
from dispatcher.core.session import Session
from dispatcher.policies import gate
from dispatcher.policies.matches import Channel
from dispatcher.policies.outcomes import Reading, Release, Violation
from dispatcher.policies.questions import AskedPolicy, Question, Verdict
from tests.model.copies import Keyed
from tests.model.journal import REQUEST, Journal
from tests.model.sides import NONE, Orphan

LIMITS = Limits(max_unacked_packets=2, max_unacked_bytes=1 << 16)
PROCEED = Reading()


def asked(tool: str) -> str:
    """Who has to approve its calls."""
    return "user" if tool == "q" else ""


class Gate(gate.Gate):
    """Policies: `!` stops the session. Where they are stricter, an `h` is held until it is known what follows it."""

    deadline = None

    def __init__(self, stricter: bool) -> None:
        self.stricter = stricter
        self.text = ""
        self.decided = 0
        self.violation: Violation | None = None

    @property
    def held(self) -> int:
        return 0 if self.violation else len(self.text) - self.decided

    def content(self, text: str, at: float) -> Release:
        if not self.violation:
            self.text += text
            if "!" in self.text:
                self.violation = Violation("names", "PolicyViolation")
        certain = self.text.find("!") if self.violation else len(self.text)
        if self.stricter and self.text.endswith("h"):
            certain -= 1
        return self._certain(certain)

    def end(self, at: float) -> Release:
        return self._certain(self.decided if self.violation else len(self.text))

    def _certain(self, certain: int) -> Release:
        text, self.decided = self.text[self.decided : certain], max(certain, self.decided)
        return Release(text, self.decided, self.violation)

    def resume(self, decided: int) -> None:
        self.decided = decided

    def thought(self, step_name: str, delta: str, at: float) -> Reading:
        return PROCEED

    def arguments(self, tool_name: str, arguments_json: str, at: float) -> Reading:
        return PROCEED

    def result(self, result_json: str, at: float) -> Reading:
        return PROCEED

    def overdue(self, at: float) -> Violation | None:
        return self.violation

    # ---- none of its policies is asked

    waiting = False

    def asked(self, channel: Channel) -> list[AskedPolicy]:
        return []

    def questions(self) -> list[Question]:
        return []

    def answered(self, question: Question, verdict: Verdict, at: float) -> Release:
        raise AssertionError("nothing is asked")


class Conclusion(NamedTuple):
    """What silence led to, on its way to the store. kind: `requeue`, `hand over`, `fence`."""

    kind: str
    epoch: int
    basis: int

    def again(self, before: int, epoch: int, basis: int) -> "Conclusion":
        """The session was taken back meanwhile: the runner concludes under the next epoch then."""
        return Conclusion(self.kind, epoch, basis) if self.epoch == before else self


class Post(Keyed):
    """An instance. `basis`, `asks`, `gives`, `away`, `takes_back`, `orphan` as in `tests.model.sides`.

    taken    what came of taking it back, while its answer is on its way; taken_basis: the basis since
    flying   the append that was not answered; pending: what comes after it
    wakes    the deadlines that may come
    begun    calls; running: those without a result
    settles  results and stops on their way to the store, and what becomes of calls that have to be approved
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.session: Any = None  # a dispatcher.core.session.Session, if it has to do with it
        self.basis = 0
        self.stream = NONE
        self.pending: list[Entry] = []
        self.flying: tuple[Entry, ...] = ()
        self.wakes: set[str] = set()
        self.begun: set[str] = set()
        self.running: set[str] = set()
        self.settles: list[Entry] = []
        self.concludes: list[Conclusion] = []
        self.asks = False
        self.gives = NONE
        self.away = False
        self.takes_back = False
        self.taken: log.Outcome | None = None
        self.taken_basis = 0
        self.orphan: Orphan | None = None

    @property
    def idle(self) -> bool:
        """Nothing is on its way to the log, no tool runs, and no stream has it."""
        return not (self.pending or self.flying or self.running or self.stream != NONE)

    def may_append(self) -> bool:
        """While it is taken back nothing is submitted, nor repeated."""
        return bool(self.flying or self.pending) and not self.takes_back

    def says_nothing(self, refusal: log.Refused) -> bool:
        """It came under the epoch that is being left behind: that is nobody else's."""
        return refusal.code == "superseded" and self.takes_back

    @property
    def unattended(self) -> bool:
        """Nothing here leads to its end."""
        waits = self.takes_back or self.concludes or self.wakes & {"grace", "stop", "approval"}
        return bool(self.session) and self.idle and not waits

    def core(self, journal: Journal) -> Session:
        """A new one, from the log. The rules of the two instances differ, as while they are being changed."""
        record, limits = log.Record("s", REQUEST, journal.head), replace(LIMITS, takeovers=journal.takeovers)
        limits = replace(limits, max_log_bytes=1) if journal.full else limits
        gate = Gate(self.name.startswith("B"))
        return Session(record, journal.entries, gate, limits, self.name, asked)

    def settle(self, entry: Entry) -> None:
        if entry not in self.settles:
            self.settles.append(entry)

    def conclude(self, effect: effects.GiveBack | effects.GiveUp) -> None:
        kind = "fence" if isinstance(effect, effects.GiveUp) else "hand over" if effect.handed_over else "requeue"
        self.concludes.append(Conclusion(kind, self.session.epoch, self.basis))
