"""`deploy/pin-images.sh`: every image of the compose file that is not built here, by digest."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.compose.stack import ROOT

FAKE = """#!/bin/bash
case "$1 $2" in
  "pull --quiet") [ "$3" != "$ABSENT" ] && echo "$3" || { echo "no such image" >&2; exit 1; } ;;
  "image inspect") echo "${5%%:*}@sha256:$(echo "$5" | sha256sum | cut -c1-64)" ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A docker client that knows every image but `$ABSENT`."""
    made = tmp_path / "docker"
    made.write_text(FAKE)
    made.chmod(0o755)
    return made


def pinned(engine: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    named = {name: value for name, value in os.environ.items() if name != "BASE" and not name.endswith("_IMAGE")}
    command = ["bash", str(ROOT / "deploy/pin-images.sh")]
    environment = named | {"DOCKER": str(engine)} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_each_image_that_comes_from_elsewhere_is_pinned(engine: Path) -> None:
    done = pinned(engine, HAPROXY_BASE="haproxy:3.2")
    lines = dict(line.split("=", 1) for line in done.stdout.splitlines())
    compose = (ROOT / "docker-compose.yml").read_text()
    named = re.findall(r"^    image: \$\{(\w+):-", compose, re.MULTILINE)
    assert set(lines) == {"BASE", "HAPROXY_BASE", *named}
    assert all(re.fullmatch(r"[\w./-]+@sha256:[0-9a-f]{64}", image) for image in lines.values()), lines
    assert lines["HAPROXY_BASE"].startswith("haproxy@")


def test_one_that_cannot_be_had_fails(engine: Path) -> None:
    done = pinned(engine, ABSENT="other:1", BASE="other:1")
    assert done.returncode != 0
    assert "no such image" in done.stderr
    assert "BASE=" not in done.stdout
