"""The compose file on a real engine, under a project name of its own."""

import contextlib
import functools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "tests" / "compose" / "engine.sh"
POLL_SECONDS = 0.5
# The shell's settings would win over those of .env.
INHERITED = {name: value for name, value in os.environ.items() if not name.startswith(("COMMANDER_", "DISPATCHER_"))}

LISTENS = "0A"  # the state of a socket in /proc/net/tcp
REACHED = {("dispatcher", "workers", 50051), ("commander", "workers", 9465)}  # by agents' containers, and nothing else
REACH = """import asyncio, json, sys
async def reached(address, port):
    try:
        async with asyncio.timeout(3):
            _, writer = await asyncio.open_connection(address, port)
    except OSError:  # a timeout is one
        return False
    writer.close()
    return True
async def main(places):
    answers = await asyncio.gather(*(reached(*place) for place in places))
    print(json.dumps([place for place, answer in zip(places, answers) if answer]))
asyncio.run(main(json.loads(sys.argv[1])))
"""

T = TypeVar("T")


def eventually(read: Callable[[], T], expected: Callable[[T], bool], seconds: float) -> T:
    """What `read` gives once it is as expected. The containers tell nobody when they change, so this asks again."""
    deadline = time.monotonic() + seconds
    while not expected(value := read()):
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        time.sleep(POLL_SECONDS)
    return value


def run(*command: str, seconds: float = 240, variables: Mapping[str, str] | None = None) -> str:
    """Standard output. Fails with what the command said when it fails or takes longer."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=INHERITED | dict(variables or {}),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Stack:
    """The compose file under one project name. options: of each command, before its verb."""

    def __init__(self, docker: str, variables: dict[str, str], env_file: Path, *options: str) -> None:
        self.docker, self._variables, self._env_file, self._options = docker, variables, env_file, options
        plugin = subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
        default = f"{docker} compose" if plugin else "docker-compose"
        self._compose = os.environ.get("COMPOSE", default).split()
        self._project = f"midsentence-test-{os.getpid()}"
        self._keys: dict[str, str] = {}

    def compose(self, *arguments: str, seconds: float = 240, env_file: Path | None = None) -> str:
        """What a compose command says. `env_file` stands for the user's .env, which is never read here."""
        options = ["--project-name", self._project, "--env-file", str(env_file or self._env_file), *self._options]
        return run(*self._compose, *options, *arguments, seconds=seconds, variables=self._variables)

    @contextlib.contextmanager
    def up(self, services: tuple[str, ...], count: int, *arguments: str) -> Iterator[None]:
        """Up until the block ends, all `count` containers of these services healthy; then nothing is left."""
        try:
            self.compose("up", "-d", "--no-build", *arguments)
            eventually(lambda: sorted(self.health(*services).values()), lambda found: found == ["healthy"] * count, 180)
            for name in ("user", "operator"):
                self.key(name)  # now: to read one takes as long as some sessions
            yield
        except BaseException:
            print(self.compose("logs", "--no-color", "--tail", "40"))
            raise
        finally:
            self.compose("down", "--volumes", "--timeout", "5", "--remove-orphans")

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        (found,) = json.loads(run(self.docker, "inspect", container))
        return dict(found)

    def health(self, *services: str) -> dict[str, str]:
        """Container → `starting`, `healthy`, `unhealthy`, or its state where it does not run."""
        states = {name: self.inspect(name)["State"] for service in services for name in self.containers(service)}
        return {
            name: state["Health"]["Status"] if state["Status"] == "running" else state["Status"]
            for name, state in states.items()
        }

    def url(self, service: str, port: int) -> str:
        """Of a port that is published on this machine."""
        return f"http://{self.compose('port', service, str(port)).strip()}"

    @functools.cached_property
    def users(self) -> str:
        """Where users reach the Dispatchers, as long as HAProxy's container is there. To ask takes its time."""
        return self.url("haproxy", 8080)

    def address(self, container: str, network: str = "front") -> str:
        """Inside that network of the compose file, which this machine reaches too."""
        return str(self.inspect(container)["NetworkSettings"]["Networks"][f"{self._project}_{network}"]["IPAddress"])

    def connect(self, container: str, network: str) -> None:
        """Let it into that network of the compose file."""
        run(self.docker, "network", "connect", f"{self._project}_{network}", container)

    def key(self, name: str) -> str:
        """`user` or `operator`: what the stack made for whoever runs it, read as the page on operating says."""
        if name not in self._keys:
            read = ("run", "--rm", "-T", "--entrypoint", "cat", "keys", f"/keys/yours/{name}")
            self._keys[name] = self.compose(*read).strip()
        return self._keys[name]

    def shown(self, name: str) -> dict[str, str]:
        """The header that shows that key."""
        return {"Authorization": f"Bearer {self.key(name)}"}

    def reached_by_agents(self) -> set[tuple[str, str, int]]:
        """(service, network, port): all that a Commander's container comes to, of what listens in any other container,
        and of what is published on this machine (service `host`).
        """
        own, *_ = self.containers("commander")
        places: dict[tuple[str, int], tuple[str, str, int]] = {}
        published: set[int] = set()
        networks: dict[str, str] = {}
        for container in run(
            self.docker, "ps", "-q", "--no-trunc", "--filter", f"label=com.docker.compose.project={self._project}"
        ).split():
            found = self.inspect(container)
            service = found["Config"]["Labels"]["com.docker.compose.service"]
            each = found["NetworkSettings"]
            published |= {int(at["HostPort"]) for ports in each["Ports"].values() for at in ports or ()}
            for name, network in each["Networks"].items():
                named = name.removeprefix(f"{self._project}_")
                networks[network["Gateway"]] = named
                for port in self._listening(container) if container != own else ():
                    places[network["IPAddress"], port] = service, named, port
        places |= {(at, port): ("host", named, port) for at, named in networks.items() if at for port in published}
        command = ("exec", own, "python", "-c", REACH, json.dumps(list(places)))
        return {places[address, port] for address, port in json.loads(run(self.docker, *command))}

    def _listening(self, container: str) -> set[int]:
        """The TCP ports that something in it listens at."""
        lines = run(self.docker, "exec", container, "cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
        rows = [line.split() for line in lines]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENS}

    def figure(self, query: str) -> float | None:
        """What Prometheus answers to an instant query that has one result. None: no result."""
        answer = httpx2.get(f"{self.url('prometheus', 9090)}/api/v1/query", params={"query": query}, timeout=10)
        assert answer.status_code == 200, answer.text
        results = answer.json()["data"]["result"]
        return float(results[0]["value"][1]) if results else None


def build(docker: str, target: str, base: str, tag: str) -> None:
    run(
        docker, "build", "--quiet", "--network", "host", "--build-arg", f"BASE={base}", "--file", "deploy/Dockerfile",
        "--target", target, "--tag", f"midsentence-{target}:{tag}", ".",
        seconds=600, variables={"DOCKER_BUILDKIT": "1"},
    )  # fmt: skip


def client() -> str:
    # A bare `docker` may be a client alone; Debian's stands in /usr/bin with what the engine needs.
    default = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker")
    found = os.environ.get("DOCKER") or default
    assert found, "no docker client"
    return found
