"""What a pattern costs at worst, counted, so that a slow machine refuses none that a fast one takes.

A step over a character costs as much as there are places in the expression at which matches that have begun stand.
Texts are made up that make them as many as they can: the beginnings of what matches, again and again; and, character by
character, of those that the expression tells apart always one that leads to the most places, and of these one that
leads to what was not there yet.
"""

import itertools
import re
from collections import deque
from collections.abc import Iterable, Sequence

from dispatcher.policies.expressions import Accept, Boundary, Character, Look, Program, Split
from dispatcher.policies.machine import MAX_AT_ONCE, MAX_PLACES, Configuration, Machine, Pattern, TooComplexError
from dispatcher.policies.matches import Action, Rule

MAX_TEXT = 1500  # characters of such a text
MAX_BEGINNING = 12  # characters that are repeated

# Of every kind that expressions tell apart: ASCII, and letters, digits, marks, spaces, signs of other scripts.
_SAMPLES = "".join(map(chr, range(9, 127))) + "äßéñжИωאا中あ한１٣\u0301\xa0\u2028–€😀"


def places_at_once(expression: str, action: Action, whole: bool = False) -> int:
    """The most that such a text leads to; beyond MAX_AT_ONCE, the first that is. Raises UnusableExpressionError."""
    machine = Machine([Pattern(expression, Rule("", action, ""), whole=whole)])
    program = Program()
    program.add(expression)
    named = {code for one in program.sets for code in re.findall(r"\\U([0-9a-f]{8})", one.pattern)}
    samples = _SAMPLES + "".join(chr(int(code, 16)) for code in sorted(named))
    kinds = [*{machine.classes[character]: character for character in samples}.values()]
    shortest = _shortest(program, samples)
    texts: list[Iterable[Sequence[str]]] = [
        itertools.cycle(shortest[:length]) for length in range(1, min(len(shortest), MAX_BEGINNING) + 1)
    ]
    try:
        return max(_most(machine, choices) for choices in [*texts, itertools.repeat(kinds)])
    except TooComplexError:
        return MAX_PLACES


def _most(machine: Machine, text: Iterable[Sequence[str]]) -> int:
    """text: for each place the characters that may stand there."""
    at, most = machine.start, 0
    known: dict[int, Configuration] = {}
    for characters in itertools.islice(text, MAX_TEXT):
        reached = [machine.step(at, character).to for character in characters]
        at = max(reached, key=lambda to: (_places(to), id(to) not in known))
        most = max(most, _places(at))
        if most > MAX_AT_ONCE or (len(characters) > 1 and id(at) in known):
            break
        known[id(at)] = at
    return most


def _places(configuration: Configuration) -> int:
    return sum(len(nodes) for _, nodes in configuration.begun)


def _shortest(program: Program, samples: str) -> list[str]:
    """A shortest text that matches, whatever stands beside it; one character of the samples for each set."""
    paths: dict[int, tuple[int, ...]] = dict.fromkeys(program.starts, ())
    waiting = deque(program.starts)
    while waiting:
        at = waiting.popleft()
        path, following = paths[at], tuple[int, ...]()
        match program.nodes[at]:
            case Accept():
                sets = [program.sets[which] for which in path]
                return [next((each for each in samples if one.match(each)), "x") for one in sets]
            case Character(which, to):
                path, following = (*path, which), (to,)
            case Split(to=following):
                pass
            case Look(to=to) | Boundary(to=to):
                following = (to,)
        for to in following:
            if to not in paths:
                paths[to] = path
                waiting.append(to)
    return []
