"""`deploy/pin-images.sh`: every image of the compose file that is not built here, by digest."""

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.compose.stack import ROOT, eventually, run
from tests.programs import free_port

FAKE = """#!/bin/bash
[ "$1" = pull ] && [ "$2" != "$ABSENT" ] || { echo "no such image" >&2; exit 1; }
echo "Pulling from ${2%%:*}"
[ "$2" = "$MUTE" ] || echo "Digest: sha256:$(echo "$2" | sha256sum | cut -c1-64)"
"""
PINNED = re.compile(r"([\w./:-]+):([\w.-]+)@sha256:[0-9a-f]{64}")


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """A docker client that knows every image but `$ABSENT`, and says no digest of `$MUTE`."""
    made = tmp_path / "docker"
    made.write_text(FAKE)
    made.chmod(0o755)
    return made


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / "pinned.env"


def pin(client: Path | str, env_file: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    named = {name: value for name, value in os.environ.items() if name != "BASE" and not name.endswith("_IMAGE")}
    command = ["bash", str(ROOT / "deploy/pin-images.sh")]
    environment = named | {"DOCKER": str(client), "ENV_FILE": str(env_file)} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def told(done: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def from_elsewhere() -> set[str]:
    """The variables that the compose file has for such images, but for one that is empty."""
    compose = (ROOT / "docker-compose.yml").read_text()
    return {"BASE", *re.findall(r"^    image: \$\{(\w+):-", compose, re.MULTILINE)}


def test_each_image_that_comes_from_elsewhere_is_pinned(client: Path, env_file: Path) -> None:
    lines = told(pin(client, env_file, HAPROXY_BASE="haproxy:3.2"))
    assert set(lines) == from_elsewhere() | {"HAPROXY_BASE"}
    assert all(PINNED.fullmatch(image) for image in lines.values()), lines
    assert lines["HAPROXY_BASE"].startswith("haproxy:3.2@")


def test_what_env_names_is_pinned_in_its_place_and_anew(client: Path, env_file: Path) -> None:
    env_file.write_text(
        'BASE=other:1\nBASE="mirror.example:5000/python:3.11"\nREDIS_IMAGE=redis:7\n#GRAFANA_IMAGE=no:1\n'
    )
    lines = told(pin(client, env_file, REDIS_IMAGE="redis:8"))
    assert lines["BASE"].startswith("mirror.example:5000/python:3.11@")
    assert lines["REDIS_IMAGE"].startswith("redis:8@")
    assert lines["GRAFANA_IMAGE"].startswith("grafana/grafana:")
    env_file.write_text(f"BASE=mirror.example:5000/python:3.11@sha256:{'0' * 64}\n")
    assert told(pin(client, env_file))["BASE"] == lines["BASE"]


@pytest.mark.parametrize(("how", "why"), [("ABSENT", "no such image"), ("MUTE", "does not say the digest of other:1")])
def test_one_that_cannot_be_had_fails(client: Path, env_file: Path, how: str, why: str) -> None:
    done = pin(client, env_file, BASE="other:1", **{how: "other:1"})
    assert done.returncode != 0
    assert why in done.stderr
    assert "BASE=" not in done.stdout


# ---- with a registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Debian's, on loopback, which Docker speaks to in the clear. `host:port`."""
    if not shutil.which("docker-registry"):
        pytest.skip("Debian's docker-registry is missing")
    address = f"127.0.0.1:{free_port()}"
    file, log = tmp_path / "registry.yml", tmp_path / "registry.log"
    file.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/images}}}}\nhttp: {{addr: {address}}}\n"
    )
    with log.open("wb") as output:
        process = subprocess.Popen(["docker-registry", "serve", str(file)], stdout=output, stderr=output)

    def answers() -> bool:
        try:
            return httpx2.get(f"http://{address}/v2/", timeout=10).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        eventually(answers, bool, 30)
        yield address
    finally:
        process.terminate()
        process.wait(20)


class Images:
    """What is in them is one file, whose text is all that they differ by."""

    def __init__(self, docker: str, folder: Path) -> None:
        self._docker, self._folder = docker, folder
        self._named: set[str] = set()

    def push(self, text: str, *names: str) -> None:
        """Under each of these names, whatever had them before; and none of it is left here."""
        archive = self._folder / "image.tar"
        with tarfile.open(archive, "w") as packed:
            content = tarfile.TarInfo("content")
            content.size = len(text)
            packed.addfile(content, io.BytesIO(text.encode()))
        for name in names:
            run(self._docker, "import", str(archive), name)
            run(self._docker, "push", "--quiet", name)
        self._named |= set(names)

    def text(self, image: str) -> str:
        """Of one that is started by that name, and had from the registry if it is not here."""
        container = run(self._docker, "create", "--pull", "always", image, "/content").strip()
        try:
            copied = self._folder / "copied"
            run(self._docker, "cp", f"{container}:/content", str(copied))
            return copied.read_text()
        finally:
            run(self._docker, "rm", container)
            self._named.add(image)

    def built_on(self, base: str) -> str:
        """The text of what is built as the Dockerfile is, on that base."""
        folder = self._folder / "built"
        folder.mkdir(exist_ok=True)
        (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY Dockerfile /\n")
        options = ("--quiet", "--network", "host", "--build-arg", f"BASE={base}", "--output", str(folder / "out"))
        run(self._docker, "build", *options, str(folder), variables={"DOCKER_BUILDKIT": "1"})
        return (folder / "out" / "content").read_text()

    def remove(self) -> None:
        for name in self._named:
            subprocess.run([self._docker, "image", "rm", "--force", name], capture_output=True, check=False)


@pytest.fixture
def images(engine: str, tmp_path: Path) -> Iterator[Images]:
    made = Images(engine, tmp_path)
    yield made
    made.remove()


@pytest.mark.compose
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_pin_holds_when_its_tag_moves(engine: str, registry: str, images: Images, env_file: Path) -> None:
    """What is built and started by it; and one that is pinned anew is pinned by what the tag has now."""
    ours, theirs = f"{registry}/ours/redis:7", f"{registry}/mirror/redis:7"
    images.push("first", ours, theirs)
    env_file.write_text("".join(f"{name}={ours}\n" for name in from_elsewhere()))
    with env_file.open("a") as file:
        file.write(pin(engine, env_file, GRAFANA_IMAGE=theirs).stdout)
    lines = [line.split("=", 1) for line in env_file.read_text().splitlines()]
    pinned = dict(lines)
    assert {name: PINNED.fullmatch(image)[1] for name, image in pinned.items()} == {  # type: ignore[index]
        name: f"{registry}/{'mirror' if name == 'GRAFANA_IMAGE' else 'ours'}/redis" for name in from_elsewhere()
    }
    images.push("second", ours)
    assert images.text(ours) == "second"
    assert images.text(pinned["REDIS_IMAGE"]) == images.built_on(pinned["BASE"]) == "first"
    assert images.built_on(told(pin(engine, env_file))["BASE"]) == "second"
