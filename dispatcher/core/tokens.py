"""What a Commander shows to open a session (rule 2): its id and a number are not enough, for logs and operators have
them. And what a page shows that reads one's events.

Pure: the key is made with the session and stays in its log, so that a token counts also after the log was rolled back
to before the assignment that it came with.
"""

import hashlib
import hmac
from typing import Literal

import msgspec

KEY_BYTES = 32  # random, one for each session: as many as of the hash
encode = msgspec.json.Encoder().encode


def assignment_token(key: bytes, session_id: str, generation: int, commander_id: str) -> bytes:
    """Of one assignment: HMAC-SHA-256, 32 bytes. It says nothing of the tokens of other assignments."""
    return hmac.digest(key, encode((session_id, generation, commander_id)), "sha256")


def reading_token(key: bytes, session_id: str, purpose: Literal["connect", "resume"]) -> str:
    """By which a page reads the session's events: 64 hex digits. Neither says anything of the other."""
    return hmac.digest(key, encode((session_id, purpose)), "sha256").hex()


def digest(token: bytes) -> bytes:
    """What the log keeps of the token under which a Commander brought a session. Empty: it brought none."""
    return hashlib.sha256(token).digest() if token else b""


def same(shown: bytes, wanted: bytes) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(shown, wanted)
