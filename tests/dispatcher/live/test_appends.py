"""One step of a session is under way at a time, whatever follows from its answer."""

import asyncio
from types import SimpleNamespace
from typing import cast

from dispatcher.core.entries import Entry
from dispatcher.core.log import Append, Applied, Head, Outcome
from dispatcher.core.session import Session
from dispatcher.live.appends import Appends
from dispatcher.live.ports import Batch, Owner
from shared.records import Content


class Fake:
    """A session's runner, and the store, which answers when it is told to. follow: added when a step is answered."""

    session_id, owned = "s", True

    def __init__(self) -> None:
        head = Head(commander_id="c")
        self.session = SimpleNamespace(epoch=1, record=SimpleNamespace(head=head))
        metrics = SimpleNamespace(backlog_packets=SimpleNamespace(inc=lambda packets: None))
        self.host = SimpleNamespace(store=self, metrics=metrics)
        self.steps: list[tuple[asyncio.Future[Outcome], Append]] = []
        self.answers = 0
        self.follow: list[Entry] = []
        self.settled_while_busy = False
        self.appends = Appends(cast("Owner", self))

    def submit(self, session_id: str, change: Append) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.steps.append((future, change))
        return future

    def answered(self, outcome: Outcome | BaseException, session: Session, batch: Batch) -> None:
        self.answers += 1
        if self.follow:
            self.appends.add([self.follow.pop()])

    def maybe_settled(self) -> None:
        self.settled_while_busy |= self.appends.busy

    async def answer(self, step: int) -> None:
        self.steps[step][0].set_result(Applied(Head()))
        await asyncio.sleep(0)


def said(number: int) -> Entry:
    return Entry(Content("a"), 0.0, sequence=number)


async def test_what_an_answer_leads_to_is_the_one_step_under_way() -> None:
    fake = Fake()
    fake.follow = [said(2)]
    fake.appends.add([said(1)])
    await fake.answer(0)
    assert (len(fake.steps), fake.appends.busy) == (2, True)
    fake.appends.add([said(3)])
    assert len(fake.steps) == 2, "the second has no answer yet"
    await fake.answer(1)
    assert [change.entries for _, change in fake.steps] == [(said(1),), (said(2),), (said(3),)]
    await fake.answer(2)
    assert (fake.answers, fake.appends.backlog, fake.appends.busy) == (3, 0, False)
    assert not fake.settled_while_busy
    await fake.appends.drained()
