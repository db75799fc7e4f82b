"""An explicit-state search: every state that the moves of a world lead to, breadth first, so that findings are short.

A world is immutable. It lists its moves, each of which makes the world after it, or raises Broken where a promise does
not hold. Worlds that are equal by `key` are visited once. Kept of a visited world is a 64-bit hash of its key and the
move that led there; the trace of a finding is made by walking those moves again.
"""

import gc
from array import array
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

Label: TypeAlias = tuple[object, ...]


class Broken(Exception):
    """A promise of the session rules does not hold."""


class Move(NamedTuple):
    """helps: it is part of the world's ordinary course; not a fault, nor what only a user may wish."""

    label: Label
    helps: bool
    act: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class World(Protocol):
    @property
    def key(self) -> Hashable: ...
    @property
    def done(self) -> bool:
        """The session has an end, and whoever took part knows."""

    def moves(self) -> Iterator[Move]: ...


WorldT = TypeVar("WorldT", bound=World)


@dataclass
class Found:
    """states, steps: how many were explored. broken: the promise, and the trace that breaks it; empty: none."""

    states: int
    steps: int
    broken: str = ""
    trace: Sequence[Label] = ()

    def __str__(self) -> str:
        if not self.broken:
            return f"{self.states:,} states, {self.steps:,} steps: no promise broken"
        numbered = "".join(f"\n{number:4}  {shown(label)}" for number, label in enumerate(self.trace, 1))
        return f"{self.broken} ({self.states:,} states):{numbered}"


def search(start: World, *, ends: bool = True, limit: int = 10_000_000) -> Found:
    """Explore all of it, or up to the first broken promise. ends: from everywhere an end must be reachable. Raises
    OverflowError beyond `limit` states.
    """
    gc.disable()  # it would look for cycles in all that waits to be explored, where there are none
    try:
        return _search(start, ends, limit)
    finally:
        gc.enable()


def _search(start: World, ends: bool, limit: int) -> Found:
    seen = {hash(start.key): 0}
    parents, choices = array("I", [0]), array("H", [0])
    sources, targets = array("I"), array("I")  # of the moves that help
    done = bytearray([start.done])
    frontier = [(0, start)]
    steps = 0
    while frontier:
        following: list[tuple[int, World]] = []
        for number, world in frontier:
            for choice, (label, helps, act, arguments) in enumerate(world.moves()):
                steps += 1
                try:
                    after = act(*arguments)
                except Broken as broken:
                    return Found(len(parents), steps, str(broken), [*_walk(start, parents, choices, number), label])
                name = hash(after.key)
                known = seen.get(name)
                if known is None:
                    known = seen[name] = len(parents)
                    parents.append(number)
                    choices.append(choice)
                    done.append(after.done)
                    following.append((known, after))
                if helps:
                    sources.append(number)
                    targets.append(known)
            if len(parents) > limit:
                raise OverflowError(f"more than {limit:,} states")
        frontier = following
    stuck = _first_stuck(done, sources, targets) if ends else None
    if stuck is None:
        return Found(len(parents), steps)
    return Found(len(parents), steps, "no end can be reached", _walk(start, parents, choices, stuck))


def along(world: WorldT, *labels: str) -> WorldT:
    """The world after these moves, by their labels as a trace shows them."""
    for label in labels:
        moves = {shown(move.label): move for move in world.moves()}
        assert label in moves, f"{label!r} is none of {sorted(moves)}"
        world = moves[label].act(*moves[label].arguments)
    return world


def shown(label: Label) -> str:
    return " ".join(map(str, label))


def _walk(start: World, parents: Sequence[int], choices: Sequence[int], number: int) -> list[Label]:
    """The labels of the moves that led there."""
    path = []
    while number:
        path.append(choices[number])
        number = parents[number]
    labels = []
    world = start
    for choice in reversed(path):
        move = list(world.moves())[choice]
        labels.append(move.label)
        world = move.act(*move.arguments)
    return labels


def _first_stuck(done: bytearray, sources: Sequence[int], targets: Sequence[int]) -> int | None:
    """The first state from which helpful moves lead to no state that is done."""
    changed = True
    while changed:  # most moves lead to a later state, so a few rounds from the back are enough
        changed = False
        for source, target in zip(reversed(sources), reversed(targets), strict=True):
            if done[target] and not done[source]:
                done[source] = changed = True
    stuck = done.find(0)
    return None if stuck < 0 else stuck
