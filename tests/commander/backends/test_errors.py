"""What is quoted of others: no secret in it, one line, and not long."""

import base64
import html
import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

from hypothesis import given
from hypothesis import strategies as st

from commander.backends.errors import Quoting, message

SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=40)
ENCODINGS: list[Callable[[str], str]] = [
    str,
    str.swapcase,
    quote,
    quote_plus,
    html.escape,
    lambda secret: json.dumps(secret)[1:-1],
    lambda secret: json.dumps(json.dumps(secret)[1:-1]).replace("/", "\\/")[1:-1],
    lambda secret: "".join(f"\\u{ord(sign):04X}" for sign in secret),
    lambda secret: "".join(f"&#x{ord(sign):X};" for sign in secret),
    lambda secret: secret.encode().hex(),
    lambda secret: base64.b64encode(secret.encode()).decode(),
    lambda secret: base64.urlsafe_b64encode(f"me:{secret}".encode()).decode(),
]


@given(SECRETS, st.sampled_from(ENCODINGS), st.text(), st.text())
def test_no_secret_is_quoted(secret: str, encoded: Callable[[str], str], before: str, after: str) -> None:
    written = encoded(secret)
    quoted = Quoting(secret)(f"{before} {written} {after}")
    assert written[4:-6] not in quoted or written[4:-6] in f"{before} [key] {after}"
    assert len(quoted) <= 300
    assert "\n" not in quoted


@given(st.text(max_size=100))
def test_without_secrets_the_text_stays(text: str) -> None:
    assert Quoting("", "")(text) == " ".join(text.split())


def test_the_message_and_what_else_an_error_says() -> None:
    assert message({"error": {"message": "no", "code": None}}) == "no"
    assert message([{"error": {"message": "no", "code": 7}}]) == 'no {"code":7}'
    assert message({"detail": ["no"]}) == '{"detail":["no"]}'
    assert message("no") == "no"
    assert message(None) == "null"
