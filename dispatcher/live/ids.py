"""Ids that are made here."""

import secrets


def session_id() -> str:
    """Unguessable: whoever holds it may read and stop the session. 192 random bits, of those that begin with no `-`:
    a command line would take that for an option.
    """
    while (made := secrets.token_urlsafe(24)).startswith("-"):
        pass
    return made


def commander_id() -> str:
    """Of a peer that brings none."""
    return secrets.token_hex(8)


def stop_id() -> str:
    return f"stop-{secrets.token_hex(8)}"


def hold_id() -> str:
    return f"hold-{secrets.token_hex(8)}"


def instance() -> str:
    """Of this process where the store gives none."""
    return secrets.token_hex(8)
