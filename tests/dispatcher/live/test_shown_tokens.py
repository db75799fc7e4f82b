import pytest

from dispatcher.live import shown_tokens
from dispatcher.live.shown_tokens import ShownTokens


def test_they_are_kept_by_session_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_tokens, "MAX_BYTES", 10)
    tokens = ShownTokens()
    for session_id in ("a", "b", "c"):
        tokens.keep(session_id, session_id * 4)
    assert [tokens.of(each) for each in ("a", "b", "c")] == ["", "bbbb", "cccc"]
    tokens.drop("b")
    tokens.drop("b")
    tokens.keep("c", "c" * 10)
    assert [tokens.of(each) for each in ("a", "b", "c")] == ["", "", "c" * 10]
    tokens.keep("d", "d" * 11)
    assert [tokens.of(each) for each in ("c", "d")] == ["", ""]
