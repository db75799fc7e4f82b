"""Who did what: one line of JSON each, in a log of its own (`DISPATCHER_AUDIT_LOG`), without text, keys or tokens.

Nothing waits for it: a line that cannot be written is counted and told in the log, and what it is of goes on.
"""

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import msgspec
import structlog

from dispatcher.access.rules import Caller
from dispatcher.metrics import Metrics
from shared.errors import ConfigError
from shared.logs import LineWriter, Ration

logger = structlog.get_logger()

STANDARD_OUTPUT = "-"  # as a setting
REFUSED = "access_refused"  # anybody can cause it, so it is rationed; what callers do is told whole


class AuditLog:
    """setting: a file to which lines are appended, made readable by its owner alone; or `-`; None: nothing is kept.
    Raises ConfigError where it cannot be written.
    """

    def __init__(self, setting: str | None, metrics: Metrics) -> None:
        self._path = Path(setting) if setting not in (None, STANDARD_OUTPUT) else None
        self._metrics, self._ration = metrics, Ration()
        self._file: TextIO | None = None
        self._lines = LineWriter(sys.stdout) if setting == STANDARD_OUTPUT else None
        if self._path:
            try:
                self._open(self._path)
            except OSError as error:
                raise ConfigError(f"{self._path}: {error.strerror}") from None

    def close(self) -> None:
        """Write no more."""
        if self._file:
            self._file.close()
        self._file = self._lines = None
        self._path = None

    def write(self, event: str, caller: Caller | None = None, **fields: object) -> None:
        """caller: None where nobody is known. fields: names, numbers and codes. Raises nothing."""
        if not (self._path or self._lines):
            return
        left_out = self._ration.take(event) if event == REFUSED else 0
        if left_out is None:
            return
        who = {"role": caller.role, "subject": caller.subject, "tenant": caller.tenant} if caller else {}
        more = {"left_out": left_out} if left_out else {}
        at = datetime.fromtimestamp(time.time(), UTC).isoformat()
        line = msgspec.json.encode({"at": at, "event": event, **who, **fields, **more}).decode()
        if not self._written(line + "\n"):
            self._metrics.audit_lines_lost.inc()
            logger.error("audit_line_lost", audited=event)

    def _written(self, line: str) -> bool:
        try:
            if self._path and self._moved(self._path):
                self._open(self._path)
        except OSError:
            return False
        if self._lines is None:
            return False
        before = self._lines.lost
        self._lines.write(line)
        return self._lines.lost == before

    def _moved(self, path: Path) -> bool:
        """Whether somebody has put another file in its place, or none, as those do that keep logs short."""
        if self._file is None:
            return True
        try:
            return not os.path.samestat(path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return True

    def _open(self, path: Path) -> None:
        """Raises OSError."""
        if self._file:
            self._file.close()
        self._file = self._lines = None
        self._file = open(path, "a", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
        self._lines = LineWriter(self._file)
