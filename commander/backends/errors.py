"""What went wrong at a provider, told to operators: its own words, without keys and not too many of them."""

import base64
import html
import json
import re

from shared.wire import well_formed

MAX_QUOTED_CHARACTERS = 300
MASK = "[key]"
SHORT = 6  # characters: the other encodings of a secret that short are found in any text


class ProviderError(Exception):
    """The server refused, broke off or made no sense. For operators: the text holds the status, and never the key."""


def message(error: object) -> str:
    """The text of an error of any shape, and what else it says."""
    if isinstance(error, list) and len(error) == 1:
        (error,) = error  # Gemini's
    if isinstance(error, dict) and len(error) == 1 and "error" in error:
        return message(error["error"])
    if isinstance(error, dict) and isinstance(text := error.get("message"), str) and text:
        others = {name: value for name, value in error.items() if value and name != "message"}
        return f"{text} {_compact(others)}" if others else text
    return error if isinstance(error, str) else _compact(error)


def _compact(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return type(value).__name__


class Quoting:
    """Text of others, fit for a log: one line, no secret in any of the usual encodings, no more than a few words."""

    def __init__(self, *secrets: str) -> None:
        written = [spelling for secret in secrets if secret for spelling in _spellings(secret)]
        self._written = re.compile("|".join(written), re.IGNORECASE) if written else None

    def __call__(self, text: str) -> str:
        if self._written:
            text = self._written.sub(MASK, text)
        return well_formed(" ".join(text.split())[:MAX_QUOTED_CHARACTERS])


def _spellings(secret: str) -> list[str]:
    """Patterns: its characters, each as it is or as URLs, JSON and HTML have it; and all of it in other alphabets."""
    patterns = ["".join(map(_character, secret))]
    if len(secret) >= SHORT:
        patterns += [
            secret.encode().hex(),
            *(re.escape(text) for n in range(3) for text in _base64(secret.encode(), n)),
        ]
    return patterns


def _character(sign: str) -> str:
    code = ord(sign)
    url = "".join(f"%{byte:02x}" for byte in sign.encode())
    # a sign that JSON escapes may be escaped again, in JSON within JSON
    escaped = rf"\\*{re.escape(sign)}" if sign in '"/' else r"\\{1,4}" if sign == "\\" else re.escape(sign)
    return f"(?:{escaped}|{url}|\\\\u{code:04x}|&#0*{code};|&#x0*{code:x};|{re.escape(html.escape(sign))})"


def _base64(secret: bytes, before: int) -> set[str]:
    """What of the secret is written whole where so many bytes come before it, as in `Basic` credentials."""
    written = base64.b64encode(bytes(before) + secret).decode().rstrip("=")
    sure = written[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
    return {sure, sure.replace("+", "-").replace("/", "_")}
