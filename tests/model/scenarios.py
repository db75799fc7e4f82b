"""What may go wrong in the worlds that are searched: each is searched whole, and mutants are looked for in some.

a b c h  letters (an h is held where policies are stricter)    !  a letter that a policy stops
T        a tool call, and P one that waits for none before it  .  the finish
Q        one that has to be approved
"""

from typing import NamedTuple

from tests.model import careless, whole
from tests.model.careless import Careless
from tests.model.search import along
from tests.model.whole import Whole

ONE = {"assignments": 1, "takeovers": 0}  # one Commander alone


class Scenario(NamedTuple):
    """faults: of `tests.model.sides.Faults`. first: moves that were made already. continues: what its agent declares.
    slow: searched whole by `make test-faults` only.
    """

    script: str
    faults: dict[str, int]
    first: tuple[str, ...] = ()
    continues: bool = True
    slow: bool = False

    def careless(self) -> Careless:
        return along(careless.start(self.script, **self.faults), *self.first)

    def whole(self) -> Whole:
        """Call and search it within `tests.model.commanders.scripted`."""
        return along(whole.start(self.script, self.continues, **self.faults), *self.first)


AGAIN = {"power_cuts": 1, "cuts": 1, "returns": 1, "assignments": 3, "takeovers": 2}
# Two instances share the log's lost end, and what they were about to do.
ROLLED_BACK = (
    "A assigns it to c1",
    "A concludes from silence",
    "B assigns it to c2",
    "A sends the assignment",
    "B sends the assignment",
    "power fails, and all is lost after change 0",
)

OPENED = (
    "A assigns it to c1",
    "A sends the assignment",
    "Commander 1 opens it on stream 1 to A",
    "stream 1 delivers open",
)
CALLED = (*OPENED, "Commander 1 says T", "stream 1 delivers packet 1")
STOPPED = (*CALLED, "a user stops it", "A hears", "A appends 1 (unanswered)")
WANTED = (*OPENED, "Commander 1 says Q", "stream 1 delivers packet 1", "A appends 1")
LEFT = (
    *WANTED,
    "A settles Approval",
    "A is killed",
    "a user decides: approve 0-1",
    "B finds it left by A",
    "B takes over from A",
)
WANTED_STOPPED = (*WANTED[:-1], "a user stops it", "A hears", "A appends 1 (unanswered)")
LOST = (*OPENED, "Commander 1 says a", "stream 1 delivers packet 1", "A appends 1", "Commander 1 is killed")
UNLOGGED = (*OPENED, "Commander 1 says a", "stream 1 delivers packet 1", "Commander 1 is killed")
LOST_PACKET = (*OPENED, "Commander 1 says a", "Commander 1 says b", "stream 1 loses packet 1")
HELD = (*OPENED, "Commander 1 says h", "stream 1 delivers packet 1", "A appends 1", "stream 1 breaks")
TAKEN_OVER = (
    *LOST,
    "stream 1 is over",
    "A wakes: grace",
    "A concludes: requeue",
    "A assigns it to c2",
    "A sends the assignment",
)

OUTAGE = {"outages": 1, "late": 1, **ONE}
KILLED_IN_OUTAGE = (
    *OPENED,
    "Commander 1 says a",
    "stream 1 delivers packet 1",
    "the store goes away",
    "Commander 1 is killed",
)

# Over Dispatchers that check nothing: the rules of the log.
LOG = {
    "nothing": Scenario("aT.", {}),
    "a Commander killed": Scenario("a.", {"commanders": 1}),
    "a Commander killed in a call": Scenario("T.", {"commanders": 1}),
    "an impostor": Scenario("a.", {"impostors": 1, "commanders": 1}),
    "an impostor and a power cut": Scenario("a.", {"impostors": 1, "power_cuts": 1}, slow=True),
    "three Commanders": Scenario("a.", {"assignments": 3, "takeovers": 2}, slow=True),
    "three, where two are enough": Scenario("a.", {"assignments": 3}),
    "a stop": Scenario("a.", {"stops": 1}),
    "a stop beside a policy's": Scenario("!.", {"stops": 1, **ONE}),
    "two stops": Scenario("a.", {"stops": 2, **ONE}),
    "an unanswered step": Scenario("a.", {"unanswered": 1}),
    "a packet lost": Scenario("ab.", {"drops": 1, **ONE}),
    "a move": Scenario("a.", {"moves": 1}, slow=True),
    "a hand-over": Scenario("a.", {"hand_overs": 1}),
    "a cut": Scenario("a.", {"cuts": 1, **ONE}),
    "a cut and a takeover": Scenario("a.", {"cuts": 1}, slow=True),
    "a cut in a call": Scenario("aT.", {"cuts": 1}, slow=True),
    "a lease and a takeover": Scenario("a.", {"leases": 1}, slow=True),
    "a lease in a call": Scenario("T.", {"leases": 1}, slow=True),
    "a lease unanswered": Scenario("a.", {"leases": 1, "unanswered": 1, **ONE}, slow=True),
    "a lease and a death": Scenario("a.", {"leases": 1, "dispatchers": 1, **ONE}, slow=True),
    "two leases": Scenario("a.", {"leases": 2, **ONE}, slow=True),
    "a cut after an unanswered step": Scenario("a.", {"cuts": 1, "unanswered": 1, **ONE}, slow=True),
    "a cut after a loss": Scenario("ab.", {"cuts": 1, "drops": 1, **ONE}, slow=True),
    "a lease and a stop": Scenario("a.", {"leases": 1, "stops": 1, **ONE}, slow=True),
    "a lease and a hand-over": Scenario("a.", {"leases": 1, "hand_overs": 1, **ONE}, slow=True),
    "a Dispatcher killed": Scenario("aT.", {"dispatchers": 1}, slow=True),
    "both killed": Scenario(".", {"commanders": 1, "dispatchers": 1}, slow=True),
    "a power cut": Scenario("a.", {"power_cuts": 1}, slow=True),
    "a power cut and a cut": Scenario(".", AGAIN, ROLLED_BACK),
    "a failover": Scenario("a.", {"failovers": 1}, slow=True),
    "a failover and a cut": Scenario("a.", {"failovers": 1, "cuts": 1, **ONE}, slow=True),
    "an approval": Scenario("Q.", {"decisions": 2, **ONE}),
    "an approval and a stop": Scenario("Q.", {"decisions": 1, "stops": 1, **ONE}),
    "an approval and a takeover": Scenario("Q.", {"decisions": 1, "commanders": 1}, slow=True),
    "an approval and a Dispatcher killed": Scenario("Q.", {"decisions": 1, "dispatchers": 1, **ONE}, slow=True),
    "an approval and a lease": Scenario("Q.", {"decisions": 1, "leases": 1, **ONE}, slow=True),
}

# Over the real cores at both ends.
WHOLE = {
    "nothing": Scenario("T.", {}),
    "one Commander": Scenario("abc.", ONE),
    "a policy's stop": Scenario("!.", ONE),
    "a stop": Scenario("a.", {"stops": 1, **ONE}),
    "a stop in a call": Scenario("T.", {"stops": 1, **ONE}),
    "a stop and an unanswered step": Scenario("T.", {"stops": 1, "unanswered": 1, **ONE}, slow=True),
    "a stop before an unanswered call": Scenario("T.", {"stops": 1, "unanswered": 1, **ONE}, STOPPED),
    "a packet lost": Scenario("ab.", {"drops": 1, **ONE}),
    "a packet doubled": Scenario("ab.", {"doubles": 1, "cuts": 1, **ONE}, slow=True),
    "an unanswered step": Scenario("T.", {"unanswered": 1, **ONE}),
    "a cut": Scenario(".", {"cuts": 1, **ONE}),
    "a cut in a call": Scenario("T.", {"cuts": 1, **ONE}, slow=True),
    "a cut in held text": Scenario("hb.", {"cuts": 1, **ONE}, slow=True),
    "a cut in a move": Scenario(".", {"cuts": 1, "moves": 1, **ONE}, slow=True),
    "two calls at once": Scenario("PP.", ONE),
    "two calls at once and a stop": Scenario("PP.", {"stops": 1, **ONE}, slow=True),
    "two calls at once and a cut": Scenario("PP.", {"cuts": 1, **ONE}, slow=True),
    "two calls at once and a death": Scenario("PP.", {"commanders": 1}, slow=True),
    "a cut after an unanswered call": Scenario(
        "T.", {"unanswered": 1, "cuts": 1, **ONE}, (*CALLED, "A appends 1 (unanswered)")
    ),
    "a call after a cut": Scenario("T.", {"cuts": 1, **ONE}, (*CALLED, "A appends 1", "stream 1 breaks")),
    "held text after a cut": Scenario("hb.", {"cuts": 1, **ONE}, HELD),
    "a lease": Scenario("T.", {"leases": 1, **ONE}),
    "a lease and a stop": Scenario(".", {"leases": 1, "stops": 1, **ONE}, slow=True),
    "an outage": Scenario("T.", {"outages": 1, **ONE}),
    "an outage and a late answer": Scenario("a.", OUTAGE),
    "an outage, a late answer and an unanswered step": Scenario("a.", {**OUTAGE, "unanswered": 1}, slow=True),
    "an outage and a late answer in a call": Scenario("T.", OUTAGE, slow=True),
    "a Commander killed in an outage": Scenario("a.", {**OUTAGE, "commanders": 1}, KILLED_IN_OUTAGE),
    "a Dispatcher killed": Scenario("T.", {"dispatchers": 1, **ONE}, slow=True),
    "a power cut": Scenario("a.", {"power_cuts": 1, **ONE}),
    "a power cut that takes a history": Scenario("a.", {"commanders": 1, "power_cuts": 1}, TAKEN_OVER, slow=True),
    "a power cut in a sentence": Scenario("ab.", {"power_cuts": 1, **ONE}, slow=True),
    "a failover": Scenario("a.", {"failovers": 1, **ONE}),
    "a Commander killed before a failover": Scenario("a.", {"failovers": 1, "commanders": 1, **ONE}, UNLOGGED),
    "a Commander killed and a failover": Scenario("a.", {"failovers": 1, "commanders": 1, **ONE}, slow=True),
    "three Commanders": Scenario(".", {"assignments": 3}),
    "a takeover": Scenario("a.", {"commanders": 1}, TAKEN_OVER),
    "a loss of an agent that cannot continue": Scenario("a.", {"commanders": 1}, LOST, continues=False),
    "one Commander killed": Scenario(".", {"commanders": 1, **ONE}),
    "one Commander killed in a stop": Scenario(".", {"stops": 1, "commanders": 1, **ONE}),
    "one Commander killed after a gap": Scenario("ab.", {"drops": 1, "commanders": 1, **ONE}, LOST_PACKET),
    "a full log": Scenario("ab.", {"full": 1, **ONE}),
    "a Commander killed": Scenario("a.", {"commanders": 1}, slow=True),
    "a Commander killed whose agent cannot continue": Scenario("a.", {"commanders": 1}, continues=False, slow=True),
    "a Commander killed and a gap": Scenario("ab.", {"drops": 1, "commanders": 1, **ONE}, slow=True),
    "a hand-over": Scenario("a.", {"hand_overs": 1}, slow=True),
    "a hand-over and a lease": Scenario(".", {"hand_overs": 1, "leases": 1, **ONE}, slow=True),
    "a cut and a takeover": Scenario(".", {"cuts": 1}, slow=True),
    "a Dispatcher killed and a takeover": Scenario(".", {"dispatchers": 1}, slow=True),
    "an approval": Scenario("Q.", {"decisions": 2, **ONE}),
    "nobody decides": Scenario("Q.", ONE),
    "an approval and a stop": Scenario("Q.", {"decisions": 1, "stops": 1, **ONE}, WANTED),
    "an approval after a death": Scenario("Q.", {"decisions": 1, "dispatchers": 1, **ONE}, LEFT),
    "an approval and a Dispatcher killed": Scenario("Q.", {"decisions": 1, "dispatchers": 1, **ONE}, slow=True),
    "an approval and a lease": Scenario("Q.", {"decisions": 1, "leases": 1, **ONE}, slow=True),
    "an approval and an unanswered step": Scenario("Q.", {"decisions": 1, "unanswered": 1, **ONE}, slow=True),
    "a stop before an unanswered call to approve": Scenario("Q.", {"stops": 1, "unanswered": 1, **ONE}, WANTED_STOPPED),
    "an approval and a Commander killed": Scenario("Q.", {"decisions": 1, "commanders": 1}, WANTED, slow=True),
}
