from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policies.matches import Match, Rule
from dispatcher.policies.redactions import Redactions

RULES = [Rule("one", "redact", ""), Rule("two", "redact", "", replacement="…")]

matches = st.builds(
    lambda start, size, rule: Match(start, start + size, rule),
    st.integers(0, 20),
    st.integers(1, 6),
    st.sampled_from(RULES),
)


@given(st.lists(st.lists(matches, max_size=5), max_size=4))
def test_what_is_joined_piece_by_piece_is_what_each_match_makes(pieces: list[list[Match]]) -> None:
    each, joined = Redactions(), Redactions()
    for piece in pieces:
        of_piece = Redactions()
        for match in piece:
            each.add(match)
            of_piece.add(match)
        joined.join(of_piece)
    assert joined.runs == each.runs


@given(st.lists(matches, max_size=6), st.sets(st.integers(1, 29)))
def test_each_run_shows_one_replacement_however_it_is_let_out(found: list[Match], cuts: set[int]) -> None:
    text, redactions = "abcdefghijklmnopqrstuvwxyzABCD", Redactions()
    for match in found:
        redactions.add(match)
    shown = [*text]
    for run in redactions.runs:
        shown[run.start : run.end] = [run.rule.replacement, *[""] * (run.end - run.start - 1)]
    pieces = pairwise([0, *sorted(cuts), len(text)])
    assert "".join(redactions.apply(text[start:end], start) for start, end in pieces) == "".join(shown)
    assert not redactions.runs
