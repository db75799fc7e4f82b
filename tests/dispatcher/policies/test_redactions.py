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
