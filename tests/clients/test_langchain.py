"""LangChain's own suite for chat models, over both routes."""

import os
import re
import subprocess

import pytest

from tests.clients.clients import HERE
from tests.clients.conftest import Pair
from tests.shared.documents import ROOT

pytestmark = [pytest.mark.clients, pytest.mark.slow]

SUITE = ROOT / "tests/clients/drivers/langchain_standard.py"
OPTIONS = ("asyncio_mode=auto", "asyncio_default_test_loop_scope=session", "xfail_strict=true")


def test_its_suite_passes(pair: Pair) -> None:
    """Under a configuration of its own: its environment has none of our plugins."""
    options = [part for option in OPTIONS for part in ("-o", option)]
    command = [str(HERE / "official/bin/python"), "-m", "pytest", "-q", "-rf", "--color=no", *options]
    command += ["-c", os.devnull, "--noconftest", "--rootdir", str(SUITE.parent), "-p", "no:cacheprovider", str(SUITE)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        env=environ | {"CLIENTS_URL": pair.url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) > 80, done.stdout
