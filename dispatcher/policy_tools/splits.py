"""The ways in which a text is split over packets, to try rules with. Pure."""

import random
from collections.abc import Iterator
from itertools import chain, combinations, pairwise

ALL_UP_TO = 12  # code points: 2,048 splits; one more doubles them
AT_RANDOM = 200  # of a longer text, besides the systematic ones

Cuts = tuple[int, ...]


def splits(length: int) -> Iterator[Cuts]:
    """Where to cut a text of so many code points: in all ways, or for a long one not at all, at each place alone, at
    every place at once, and AT_RANDOM times by chance (the same each time).
    """
    places = range(1, length)
    if length <= ALL_UP_TO:
        yield from chain.from_iterable(combinations(places, count) for count in range(max(1, length)))
        return
    yield ()
    yield from ((place,) for place in places)
    yield tuple(places)
    chance = random.Random(length)  # noqa: S311 # to be repeated
    for _ in range(AT_RANDOM):
        yield tuple(sorted(chance.sample(places, chance.randint(2, length - 2))))


def pieces(text: str, cuts: Cuts) -> list[str]:
    edges = (0, *cuts, len(text))
    return [text[start:end] for start, end in pairwise(edges)]
