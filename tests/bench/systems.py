"""The systems that are measured: real processes, all up during the whole run, so that measures can be interleaved."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests import programs
from tests.bench.services import write_tools
from tests.redis_servers import redis_server

SYSTEMS = ("floor", "starlette", "memory", "sqlite", "redis")
PHRASE = "do not distribute"  # stops the sessions that say it

# As an operator would have them: every character is searched for these, and none of the benchmark's texts has them.
POLICIES = f"""
[[policy]]
name = "project names"
kind = "phrases"
phrases = ["Project Nightingale", "夜莺计划", "internal use only", "{PHRASE}"]
action = "stop"

[[policy]]
name = "limits"
kind = "budget"
max_seconds = 600
max_characters = 1000000000
"""
CAPACITY = 1024  # sessions that a Commander runs at once: more than are measured


@dataclass(frozen=True)
class System:
    """`processes`: role → pid; `speaker` is where the generators run. `direct`: the prompt's answer is the stream.

    Of the pair: `operator`, its address for operators, and `store`, another of the same kind in the same place.
    """

    name: str
    address: str
    processes: dict[str, int]
    direct: bool = False
    operator: str = ""
    store: str = ""

    def cpu_seconds(self) -> dict[str, float]:
        """What each process has used so far: all threads, user and system, in steps of 10 ms."""
        tick = os.sysconf("SC_CLK_TCK")
        found = {}
        for role, pid in self.processes.items():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            found[role] = (int(fields[11]) + int(fields[12])) / tick
        return found

    def resident_bytes(self) -> dict[str, int]:
        page = os.sysconf("SC_PAGE_SIZE")
        return {
            role: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for role, pid in self.processes.items()
        }


def _plain(name: str, run: Callable[..., programs.Program], connections: int) -> System:
    """A system without the pair; each of its programs prints where it listens."""
    if name == "floor":
        gateway = run("-m", "tests.bench.floor", "dispatcher")
        listening = gateway.wait_for(lambda event: "http" in event)
        speaker = run("-m", "tests.bench.floor", "commander", listening["grpc"], str(connections))
    else:
        speaker = run("-m", "tests.bench.starlette_gateway", "tokens")
        tokens = speaker.wait_for(lambda event: "http" in event)
        gateway = run("-m", "tests.bench.starlette_gateway", "gateway", tokens["http"])
        listening = gateway.wait_for(lambda event: "http" in event)
    processes = {"gateway": gateway.pid, "speaker": speaker.pid}
    return System(name, listening["http"], processes, direct=name == "starlette")


@contextlib.contextmanager
def started(name: str, folder: Path, connections: int = 1) -> Iterator[System]:
    """One of SYSTEMS, ready. What it prints and keeps goes into `folder`. connections: of the floor's two sides."""
    log = folder / f"{name}.log"
    with ExitStack() as stack:

        def run(*arguments: str, **extra: str) -> programs.Program:
            return stack.enter_context(programs.running(*arguments, settings=extra, log=log))

        if name in ("floor", "starlette"):
            yield _plain(name, run, connections)
            return

        policies = folder / "policies.toml"
        policies.write_text(POLICIES)
        services = run("-m", "tests.bench.services").wait_for(lambda event: "grpc" in event)
        write_tools(tools := folder / f"{name}.tools.toml", services)
        store, other = _stores(name, folder, stack)
        ready = stack.enter_context(programs.dispatcher(log, store, policies=str(policies), tools=str(tools)))
        speaker = run(
            *("-m", "commander", "serve"),
            COMMANDER_DISPATCHER=ready.grpc,
            COMMANDER_BACKEND="tests.bench.agents:agent",
            COMMANDER_CAPACITY=str(CAPACITY),
            COMMANDER_METRICS_ADDRESS=f"127.0.0.1:{programs.free_port()}",
        )
        processes = {"gateway": ready.program.pid, "speaker": speaker.pid}
        yield System(name, ready.http, processes, operator=ready.operator, store=other)


def _stores(name: str, folder: Path, stack: ExitStack) -> tuple[str, str]:
    """What the system stores its sessions in, and another one like it."""
    if name == "memory":
        return "memory://", "memory://"
    if name == "sqlite":
        return f"sqlite:///{folder}/sessions.db", f"sqlite:///{folder}/other.db"
    server = stack.enter_context(redis_server(folder / "redis"))
    return f"redis://{server.address}/0", f"redis://{server.address}/1"
