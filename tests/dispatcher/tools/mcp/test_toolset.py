"""Toolsets of kind `mcp`, before there is a server."""

import sys
import threading
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

from tests.dispatcher.tools.mcp.running import running

CONNECTION = "dispatcher.tools.mcp.connection"  # what needs the SDK


class Absent(MetaPathFinder):
    """The SDK is not there; `by` is who looked for it."""

    by: threading.Thread | None = None

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname != CONNECTION:
            return
        self.by = threading.current_thread()
        raise ImportError(fullname)


async def test_the_loop_goes_on_while_the_sdk_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Absent()
    monkeypatch.delitem(sys.modules, CONNECTION, raising=False)
    monkeypatch.setattr(sys, "meta_path", [absent, *sys.meta_path])
    async with running(tmp_path, 'command = ["server"]') as toolset:
        with pytest.raises(ImportError, match=CONNECTION):
            await toolset.task
    assert absent.by not in (None, threading.main_thread())
