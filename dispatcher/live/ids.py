"""Ids that are made here."""

import secrets


def session_id() -> str:
    """Unguessable: whoever holds it may read and stop the session. 192 random bits."""
    return secrets.token_urlsafe(24)


def commander_id() -> str:
    """Of a peer that brings none."""
    return secrets.token_hex(8)


def stop_id() -> str:
    return f"stop-{secrets.token_hex(8)}"


def instance() -> str:
    """Of this process where the store gives none."""
    return secrets.token_hex(8)
