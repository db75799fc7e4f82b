"""Tokens of issuers as users showed them, for tools that may forward theirs: nowhere but in this process's memory.

An instance that takes a session over has none, nor has this one after a restart: such a call is not made.
"""

MAX_BYTES = 16 * 1024 * 1024  # of all; beyond that the oldest go


class ShownTokens:
    """By session, until it is complete here."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._bytes = 0

    def keep(self, session_id: str, token: str) -> None:
        self.drop(session_id)
        self._tokens[session_id] = token
        self._bytes += len(token)
        while self._bytes > MAX_BYTES:
            self.drop(next(iter(self._tokens)))

    def of(self, session_id: str) -> str:
        """Empty: there is none."""
        return self._tokens.get(session_id, "")

    def drop(self, session_id: str) -> None:
        self._bytes -= len(self._tokens.pop(session_id, ""))
