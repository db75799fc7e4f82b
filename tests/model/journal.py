"""One session's log in the searched worlds: changed by the real `dispatcher.core.log.apply` alone, each change judged.

What it judges by, it does not take from the log's own numbers but from what has really happened:

tag      which Commander numbered a packet: 1, 2 … in the order of the assignments. Packets carry it as `timestamp`
given    the how many-th time it was that somebody was given the session: assigned, opened, taken back. Whoever acts on
         it names the time that it goes by, its `basis`

The script is what every Commander says, each from where its history ends: letters, `!` (a letter that a policy stops),
`T` or `P` (a tool call), `Q` (one that has to be approved) and `.` (the finish).
"""

from collections.abc import Hashable

import msgspec
from msgspec.structs import replace

from dispatcher.core import log, tokens
from dispatcher.core.entries import Approval, Call, Decision, Entry, Failed, Finished, Started, StopEntry
from dispatcher.core.history import HistoryReader
from dispatcher.policies.ahead import at_once
from shared.records import Content, Error, Message, Said, Stopped, ToolCall, ToolResult
from tests.model.search import Broken

NOW = 1.0
LATER = 2.0  # when nobody can approve any more what is asked about now
ASKED = "of these arguments"  # the digest
REQUEST = log.Request("default", (Message("user", "hi"),), NOW, assignment_key=b"key")


def token_of(generation: int, commander_id: str) -> bytes:
    """What that assignment brings."""
    return tokens.assignment_token(REQUEST.assignment_key, "s", generation, commander_id)


class Journal(msgspec.Struct, frozen=True, gc=False):
    """
    owners      by sequence: the tag of who numbered it
    said        how much of the script the log holds; shown: how many of its letters users have got
    full        has as many bytes as it may from its first entry on
    given       the last time; `times`: how often there was one, also if the log has lost it
    parked      what `given` was when the session was put among the waiting
    taken       how often an instance took it over from another
    assigned    the newest tag
    lost        how often it was put among the waiting because a Commander was lost; `takeovers`: how often it may be
    ran         the places in the script of the calls that were run
    results     (call_id, status); the status is empty where there is no result yet
    given_back  the Commander that was given it last has handed it over
    lost_track  nobody was given it since it was rolled back
    past        as it was before each change, where the log may be rolled back
    """

    script: str
    takeovers: int = 1
    remembers: bool = False
    full: bool = False
    head: log.Head = log.Head(since=NOW)
    entries: tuple[Entry, ...] = ()
    owners: tuple[int, ...] = ()
    said: int = 0
    shown: int = 0
    given: int = 0
    times: int = 0
    parked: int = 0
    taken: int = 0
    assigned: int = 0
    lost: int = 0
    ran: tuple[int, ...] = ()
    results: tuple[tuple[str, str], ...] = ()
    stops: int = 0
    given_back: bool = False
    rolled_back: bool = False
    lost_track: bool = False
    past: tuple["Journal", ...] = ()

    # ---- what a store does

    def submit(
        self, change: log.Change, basis: int = -1, tag: int = 0, taken: int = 0
    ) -> "tuple[Journal, log.Outcome]":
        """Carry out one atomic step. basis, tag, taken: what whoever asks for it goes by. Raises Broken."""
        outcome = log.apply(log.Record("s", REQUEST, self.head), change)
        if isinstance(outcome, log.Refused):
            if isinstance(change, log.Append) and not self.rolled_back:
                self._refused_truly(change, outcome.code, basis)
            return self, outcome
        if outcome.head == self.head and not outcome.entries:
            return self, outcome
        after = self._changed(change, outcome, basis, tag, taken)
        if self.remembers:
            after = replace(after, past=(*self.past, replace(self, past=())))
        return after, outcome

    def repeated(self, change: log.Change) -> None:
        """The answer was lost: the same change again, at once, does no harm and is told of the same success."""
        if isinstance(change, log.Append) and not any(entry.sequence for entry in change.entries):
            return  # what was concluded is dropped, as the session is over
        outcome = log.apply(log.Record("s", REQUEST, self.head), change)
        if isinstance(outcome, log.Refused):
            raise Broken(f"{type(change).__name__} is applied, and refused when repeated: {outcome.code}")
        if outcome.entries or outcome.head != self.head:
            raise Broken(f"{type(change).__name__} is applied twice")

    def roll_back(self, number: int) -> "Journal":
        """The store loses what it did since."""
        return replace(
            self.past[number],
            times=self.times,
            ran=self.ran,
            remembers=False,
            rolled_back=True,
            lost_track=True,
        )

    # ---- judgement

    def _refused_truly(self, change: log.Append, code: str, basis: int) -> None:
        numbered = [entry for entry in change.entries if entry.sequence]
        if numbered and code == "superseded" and basis == self.given and not self.head.over:
            raise Broken("an append is refused, though nobody was given the session since")
        if numbered and code != "superseded" and all(self.holds(e.sequence, e.timestamp) for e in numbered):
            raise Broken("an append is refused, though the log holds all of it")

    def holds(self, sequence: int, tag: int) -> bool:
        """The packet of that number is the one of that Commander."""
        return sequence <= len(self.owners) and self.owners[sequence - 1] == tag

    def _changed(self, change: log.Change, outcome: log.Applied, basis: int, tag: int, taken: int) -> "Journal":
        was, now = self.head, outcome.head
        after = self._grown(outcome, basis) if outcome.entries else replace(self, head=now)
        if was.final and (now.state, now.reason, now.code) != (was.state, was.reason, was.code):
            raise Broken(f"the final state was {was.state} {was.reason}{was.code}, now it is {now.state}")
        match change:
            case log.Assign():
                self._may_be_assigned()
                return replace(after._given(), assigned=tag, given_back=False)
            case log.Acquire():
                if tag < self.assigned:
                    raise Broken(
                        "an earlier Commander is given the session after a later one, or after it was given up"
                    )
                return after._given()
            case log.TakeBack():
                self._nobody_since(basis, "taken back")
                return after._given()
            case log.TakeOver():
                self._nobody_since(basis, "taken over")
                if was.state == "waiting":
                    raise Broken("taken over, though it waits and is nobody's")
                if taken != self.taken and not self.rolled_back:
                    raise Broken("taken over, though another took it over since")
                return replace(after, taken=self.taken + 1)
            case log.Requeue(handed_over=handed_over):
                self._nobody_since(basis, "put among the waiting")
                if handed_over != self.given_back:
                    raise Broken("a hand-over is counted as a loss, or a loss is not counted")
                lost = self.lost + (not handed_over)
                if lost > self.takeovers:
                    raise Broken("it is given to another Commander once too often")
                if now.takeovers != lost:
                    raise Broken(f"{lost} Commanders were lost, and {now.takeovers} are counted")
                return replace(after, parked=self.given, lost=lost)
            case log.Fence():
                self._nobody_since(basis, "fenced off")
                return replace(after, assigned=self.assigned + 1)
            case log.Append(entries=(*_, Entry(body=Failed(code="commander_lost" | "no_commander" as code)))):
                self._nobody_since(basis, "failed")
                if (was.state == "waiting") != (code == "no_commander"):
                    raise Broken(f"{code} ends a session that is {was.state}")
        return after

    def _given(self) -> "Journal":
        return replace(self, given=self.times + 1, times=self.times + 1, lost_track=False)

    def _may_be_assigned(self) -> None:
        head = self.head
        if head.final:
            raise Broken("a session that is over is assigned")
        if head.calls:
            raise Broken("assigned while a call has no result")
        if self.given != self.parked:
            raise Broken("assigned, though somebody was given it since it was put among the waiting")

    def _nobody_since(self, basis: int, done: str) -> None:
        if basis != self.given and not self.rolled_back:  # a lost epoch is given out again: see the search's docstring
            raise Broken(f"{done}, though somebody was given the session since")

    def _grown(self, outcome: log.Applied, basis: int) -> "Journal":
        live = not self.head.final
        owners, said, shown, results, stops = self.owners, self.said, self.shown, self.results, self.stops
        given_back = self.given_back
        for offset, entry in enumerate(outcome.entries, self.head.offset + 1):
            body = entry.body
            if entry.offset != offset:
                raise Broken(f"entry {offset} is numbered {entry.offset}")
            if entry.released and not live:
                raise Broken("something is released after the end")
            shown = self._shows(shown, entry, live)
            live = live and not is_final(entry)
            if entry.sequence:
                self._nobody_since(basis, "appended")
                owners = self._owned(owners, entry)
                given_back = isinstance(body, Error) and body.retryable
            match body:
                case Content(text=text):
                    said = self._follows(said, text)
                    if self.full:
                        raise Broken("a log grows that is full")
                case Call(call_id=call_id, approval=approval):
                    said = self._follows(said, "Q" if approval else self._call(said))
                    results = (*results, (call_id, ""))
                    if len(outcome.head.calls) > 1:
                        raise Broken("more calls are open than may be")
                case Finished():
                    said = self._follows(said, ".")
                case Decision() as decision:
                    self._decided_well(decision, entry.at)
                case Started() if not live:
                    raise Broken("a call is started after the end")
                case ToolResult(call_id=call_id, status=status):
                    if (call_id, "") not in results:
                        raise Broken("a call has two results, or a result no call")
                    results = tuple((key, status if key == call_id else got) for key, got in results)
                case StopEntry():
                    stops += 1
                    if stops > 1:
                        raise Broken("two stops stand in the log")
                case Failed(code="protocol_error"):
                    raise Broken("a Commander that keeps to the contract is said to have broken it")
                case Error(code="data_loss") if not self.rolled_back:
                    raise Broken("a Commander misses what was never lost")
        return replace(
            self,
            head=outcome.head,
            entries=self.entries + outcome.entries,
            owners=owners,
            said=said,
            shown=shown,
            results=results,
            stops=stops,
            given_back=given_back,
        )

    def _call(self, said: int) -> str:
        return "P" if self.script[said : said + 1] == "P" else "T"

    def _decided_well(self, decision: Decision, at: float) -> None:
        if self._decision_on(decision.call_id):
            raise Broken("two decisions on one call stand in the log")
        if decision.decision == "approve" and decision.arguments_sha256 != ASKED:
            raise Broken("a call is approved under other arguments")
        if decision.decision == "approve" and at >= LATER:
            raise Broken("a call is approved after its time")

    def _decision_on(self, call_id: str) -> str:
        bodies = [entry.body for entry in self.entries]
        return next((each.decision for each in bodies if isinstance(each, Decision) and each.call_id == call_id), "")

    def _owned(self, owners: tuple[int, ...], entry: Entry) -> tuple[int, ...]:
        """With the owner of that entry's packet."""
        sequence, tag = entry.sequence, entry.timestamp
        if self.head.over:
            raise Broken("a packet is appended after the Commander's end")
        if self.head.sequence < sequence == len(owners) and owners[-1] == tag:
            return owners  # the second entry of one packet
        if sequence <= len(owners):
            raise Broken(f"packet {sequence} is appended twice")
        if sequence > len(owners) + 1:
            raise Broken(f"packet {sequence} follows packet {len(owners)}")
        if owners and tag < owners[-1]:
            raise Broken("an earlier Commander's packet follows a later one's")
        return (*owners, tag)

    def _follows(self, said: int, text: str) -> int:
        if not self.script.startswith(text, said):
            raise Broken(f"the log says {text!r} after {self.script[:said]!r}")
        return said + len(text)

    def _shows(self, shown: int, entry: Entry, live: bool) -> int:
        """How many letters users have got with that entry."""
        letters = "".join(item for item in self.script if item not in "TPQ.!")
        if not letters.startswith(entry.released, shown):
            raise Broken(f"users get {entry.released!r} after {letters[:shown]!r}")
        shown += len(entry.released)
        if live and isinstance(entry.body, Finished) and shown != len(letters):
            raise Broken(f"it finishes, and users have got {letters[:shown]!r}")
        return shown

    # ---- what the world does with it

    def acked(self, sequence: int, start: int, tag: int) -> None:
        """A Commander whose packets begin after `start` hears of an Ack. Raises Broken."""
        if not all(self.holds(number, tag) for number in range(start + 1, sequence + 1)):
            raise Broken(f"packet {sequence} is acked, and not in the log")

    def run(self, call_id: str) -> "Journal":
        """Somebody runs that call. Raises Broken."""
        place = int(call_id.split("-", maxsplit=1)[0])
        if place in self.ran:
            raise Broken("a tool runs twice")
        if not any(key == call_id for key, _ in self.results):
            raise Broken("a tool runs that is not in the log")
        if self.script[place] == "Q" and self._decision_on(call_id) != "approve":
            raise Broken("a tool runs that nobody approved")
        return replace(self, ran=(*self.ran, place))

    def result_of(self, call_id: str) -> str:
        """The status of its result; empty: none."""
        return dict(self.results).get(call_id, "")

    def age(self, epoch: int, basis: int) -> tuple[int, int]:
        """How old they are, as far as any rule can tell: of this moment, the one before, or older. Not negative, for
        Python's hashes of -1 and -2 are the same.
        """
        return min(self.head.epoch - epoch, 2) + 20, min(self.given - basis, 2) + 20

    @property
    def key(self) -> Hashable:
        """Without what nothing depends on: how often it was given away, times, what else stands in the log."""
        head = self.head
        calls = tuple((call_id, call.instance, call.asked > 0, call.approved) for call_id, call in head.calls.items())
        past = tuple((each.key, self.age(each.head.epoch, each.given)) for each in self.past)
        return (
            head.state, head.over, head.generation, head.commander_id, head.instance, head.opened, head.continues,
            head.takeovers, calls, self.owners, self.said, self.shown, self.given == self.parked, self.assigned,
            self.lost, self.ran, self.results, self.stops, self.given_back, self.rolled_back, self.lost_track,
            self.remembers, past,
        )  # fmt: skip


def is_final(entry: Entry) -> bool:
    body = entry.body
    return isinstance(body, Finished | Failed | Stopped | StopEntry) or (isinstance(body, Error) and not body.retryable)


def asks(call_id: str) -> Entry:
    """That call waits for a decision from here on."""
    return Entry(Approval(call_id, "q", "user", "{}", ASKED, LATER), NOW)


def told(entries: tuple[Entry, ...]) -> int:
    """How much of the script the history of these entries tells a Commander that takes the session over."""
    reader = HistoryReader()
    at_once(reader.take(list(entries)))
    history = reader.history(1)
    place = 0
    for item in history.entries if history else ():
        match item:
            case Said(text):
                place += len(text)
            case ToolCall():
                place += 1
    return place
