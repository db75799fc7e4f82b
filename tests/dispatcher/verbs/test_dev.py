"""What `dispatcher dev` does without a pair."""

import errno
import io
import sys

import pytest

from dispatcher.verbs import dev


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_it_serves_also_where_nobody_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    dev._say("where to look")
