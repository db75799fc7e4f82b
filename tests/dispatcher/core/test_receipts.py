"""The form in which a receipt and a log's entries are hashed. What they say: `tests/contracts/test_receipts.py`."""

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.receipts import Account, PromptDigest, Unfinished, canonical, canonical_entry

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(0.001, 1e15) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii")), inner),
)


@given(VALUES)
def test_it_is_rfc_8785s(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**64 - 1])
def test_an_integer_that_other_readers_would_round_is_a_string(number: int) -> None:
    assert json.loads(canonical([number])) == [str(number)]


def test_a_field_that_a_later_version_adds_changes_no_entry_of_today() -> None:
    fields = {"at": 120.0, "text": "a", "released": ""}
    later = {**fields, "since_then": "", "count": 0, "flag": False, "nested": None}
    assert canonical_entry(1, "content", fields) == canonical_entry(1, "content", later)
    assert canonical_entry(1, "content", fields) == b'{"at":120,"event":"content","offset":1,"text":"a"}'


def test_a_log_without_an_end_has_no_receipt() -> None:
    account = Account("s", PromptDigest(5, ""))
    account.take(1, "assigned", {"at": 1.0, "sequence": 0, "released": ""})
    with pytest.raises(ValueError, match="unknown: colour"):
        account.take(2, "assigned", {"at": 1.0, "sequence": 0, "released": "", "colour": ""})
    with pytest.raises(Unfinished):
        account.facts()
    with pytest.raises(ValueError, match="entry 2 is missing"):
        account.take(3, "stop", {})
