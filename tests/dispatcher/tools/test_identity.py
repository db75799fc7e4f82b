import re

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.tools.context import Context
from dispatcher.tools.identity import identity

TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
texts = st.text(st.characters(exclude_categories=()), max_size=20)  # halves of surrogate pairs too


def test_it_is_the_same_at_every_try_and_never_the_sessions_id() -> None:
    call = Context("sess_secret", "call-1", "agent", "conversation")
    assert identity(call) == identity(Context("sess_secret", "call-1"))
    assert re.fullmatch(r"[0-9a-f]{64}", identity(call).key)
    assert "secret" not in "".join(identity(call))
    assert "tracestate" not in identity(call).trace


@given(texts, texts, texts, texts)
def test_no_two_calls_have_one_key(session: str, call: str, other_session: str, other_call: str) -> None:
    same = (session, call) == (other_session, other_call)
    assert (identity(Context(session, call)).key == identity(Context(other_session, other_call)).key) is same


def test_it_is_in_the_trace_of_whoever_asked() -> None:
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    told = identity(Context("s", "c", traceparent=f"00-{trace}-{span}-00", tracestate="a=1")).trace
    assert re.fullmatch(rf"00-{trace}-[0-9a-f]{{16}}-00", told["traceparent"])
    assert span not in told["traceparent"]
    assert told["tracestate"] == "a=1"


@given(texts | st.sampled_from(["00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-" + "a" * 32 + "-" + "0" * 16 + "-01"]))
def test_without_one_the_calls_of_a_session_share_a_trace_of_their_own(given: str) -> None:
    one, two = (identity(Context("s", call, traceparent=given)).traceparent for call in ("1", "2"))
    assert TRACEPARENT.fullmatch(one)
    assert one.split("-")[1] == two.split("-")[1]
    assert one != two
