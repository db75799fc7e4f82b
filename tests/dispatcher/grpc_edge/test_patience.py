"""How long a peer is waited for, on a loop whose time a test makes pass."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.grpc_edge.patience import TICKS, Patience


class Loop:
    """`call_later`, and what is due."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        timer = (delay, callback)
        self.timers.append(timer)

        class Handle:
            def cancel(_) -> None:  # noqa: N805
                self.timers.remove(timer)

        return Handle()

    def tick(self, times: int = 1) -> None:
        """The timer comes, however late."""
        for _ in range(times):
            assert [delay for delay, _ in self.timers] == [1.0]
            self.timers.pop()[1]()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_its_time_is_counted_in_ticks_however_late_they_come(loop: Loop) -> None:
    over: list[str] = []
    patience = Patience(TICKS, lambda: over.append("over"))
    patience.begin()
    loop.tick(TICKS - 1)
    assert not over
    loop.tick()
    assert over == ["over"]
    assert not loop.timers


def test_who_speaks_has_all_of_it_again(loop: Loop) -> None:
    over: list[str] = []
    patience = Patience(TICKS, lambda: over.append("over"))
    patience.begin()
    loop.tick(TICKS - 1)
    patience.begin()  # in the midst of a tick, which is not counted
    loop.tick(TICKS)
    assert not over
    loop.tick()
    assert over == ["over"]


def test_who_is_not_waited_for_has_no_timer_for_long(loop: Loop) -> None:
    patience = Patience(TICKS, lambda: pytest.fail("it is not waited for"))
    patience.begin()
    patience.rest()
    loop.tick()
    assert not loop.timers
    patience.begin()
    patience.close()
    assert not loop.timers
