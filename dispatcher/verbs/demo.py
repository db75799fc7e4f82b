"""`make demo`: the pair at work on the bundled model. What it shows is measured while it runs, nothing is staged."""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from dispatcher.app import Dispatcher
from dispatcher.core.log import FINAL
from dispatcher.settings import DispatcherSettings
from dispatcher.verbs.client import Client, Event
from dispatcher.verbs.dev import leaving, pair, until_agents, where_to_look
from shared import logs
from shared.config import load
from shared.errors import ConfigError
from shared.terminal import columns, fitted

STORY_SECONDS = 2.0  # the story is cut in its third second
LOAD_SECONDS = 120.0
INDENT = " " * 12  # below the words, beside the time
INTERRUPTED = 130  # exit status, as shells have it

POLICIES = """[[policy]]
name = "no dragons"
kind = "phrases"
phrases = ["dragon"]
reads = ["content"]
"""


def add_arguments(_: argparse.ArgumentParser) -> None:
    """None but the settings."""


def run(_: argparse.Namespace) -> int:
    logs.configure(level="ERROR")
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_demo(Path(folder)))


async def _demo(folder: Path) -> int:
    leave = leaving()
    settings = _settings(folder)
    print(fitted("Starting a Dispatcher and a Commander with the bundled model …"), flush=True)
    commander_log = folder / "commander.log"
    with commander_log.open("wb") as output:
        try:
            async with pair(settings, output) as (dispatcher, commander):
                return await _run(dispatcher, commander, leave)
        except ConfigError:
            print(commander_log.read_text(), file=sys.stderr)
            raise


async def _run(dispatcher: Dispatcher, commander: asyncio.subprocess.Process, leave: asyncio.Event) -> int:
    left = asyncio.create_task(leave.wait())
    show = asyncio.create_task(_show(dispatcher, commander))
    await asyncio.wait({show, left}, return_when=asyncio.FIRST_COMPLETED)
    if left.done():
        show.cancel()
        return INTERRUPTED
    show.result()
    if sys.stdout.isatty():
        print(fitted(where_to_look(dispatcher)), flush=True)
        await left
    left.cancel()
    return 0


def _settings(folder: Path) -> DispatcherSettings:
    """The defaults, but a log and rules of the demo's own; other ports where the usual ones are taken."""
    (folder / "policies.toml").write_text(POLICIES)
    own = {
        "DISPATCHER_STORE": f"sqlite:////{folder.as_posix().lstrip('/')}/sessions.db",
        "DISPATCHER_POLICIES": str(folder / "policies.toml"),
    }
    if not sys.stdout.isatty():
        own |= {f"DISPATCHER_{name}_ADDRESS": "127.0.0.1:0" for name in ("GRPC", "HTTP", "OPERATOR")}
    for name, value in own.items():
        os.environ.setdefault(name, value)
    return load(DispatcherSettings)


async def _show(dispatcher: Dispatcher, commander: asyncio.subprocess.Process) -> None:
    started = time.perf_counter()
    async with asyncio.timeout(LOAD_SECONDS):
        await until_agents(dispatcher, commander)
    ready = f"Ready after {time.perf_counter() - started:.1f} s."
    print(fitted(f"{ready} The model is tiny (it comes in a package): mind the plumbing, not the wit."))
    print(fitted("One line brings a real one:\n  COMMANDER_BACKEND=openai COMMANDER_OPENAI__BASE_URL=… make demo"))
    await asyncio.to_thread(_scenes, dispatcher.http_port, dispatcher.operator_port)


def _scenes(users_port: int, operator_port: int) -> None:
    with Client(f"http://127.0.0.1:{users_port}") as users, Client(f"http://127.0.0.1:{operator_port}") as operators:
        demo = _Demo(users, operators)
        demo.question("1. A question that needs a tool", "What is 17 * 23?")
        demo.stopped("2. A story, stopped by its reader in mid-sentence", "Tell me a long story about the sea.")
        demo.banned('3. A rule: the word "dragon" must not get out', "Tell me a story about a dragon.")


class _Demo:
    def __init__(self, users: Client, operators: Client) -> None:
        self._users, self._operators = users, operators

    def question(self, title: str, prompt: str) -> None:
        screen, session = self._begin(title, prompt)
        operator = threading.Thread(target=self._thoughts, args=(session, screen))
        operator.start()
        for event in self._answer(session):
            match event.name:
                case "content":
                    screen.words(event.data["text"])
                case "tool_call" | "tool_result":
                    screen.line(f"{event.name}  {event.data['tool_name']}  {event.data['status']}")
                case name:
                    screen.line(f"{name}  {json.dumps(event.data)}")
        operator.join()

    def stopped(self, title: str, prompt: str) -> None:
        screen, session = self._begin(title, prompt)
        asked: list[float] = []
        begun, over = threading.Event(), threading.Event()

        def stop() -> None:
            with Client(self._users.url) as another:
                another.get(f"/v1/sessions/{session}")  # connects
                begun.wait()
                if not over.wait(STORY_SECONDS):
                    asked.append(time.perf_counter())
                    another.post(f"/v1/sessions/{session}/stop", {})

        stopper = threading.Thread(target=stop)
        stopper.start()
        for event in self._answer(session):
            if event.name == "content":
                screen.words(event.data["text"])
                begun.set()
            elif event.name == "stopped" and asked:
                late = 1000 * (time.perf_counter() - asked[0])
                screen.line(
                    f"stopped  {event.data['reason']}: the last event came {late:.1f} ms after the stop was asked for"
                )
            else:
                screen.line(f"{event.name}  {json.dumps(event.data)}  (the model was done before the stop)")
        for signal in (begun, over):
            signal.set()
        stopper.join()
        self._halted(session, screen)

    def banned(self, title: str, prompt: str) -> None:
        screen, session = self._begin(title, prompt)
        text = ""
        for event in self._answer(session):
            if event.name == "content":
                text += event.data["text"]
                screen.words(event.data["text"])
            else:
                screen.line(f"{event.name}  {json.dumps(event.data)}")
        self._halted(session, screen)
        raw = "".join(event.data["text"] for event in self._log(session) if event.name == "content")
        screen.line(f"the model wrote   …{raw[-40:]!r}")
        screen.line(f"the user got      …{text[-40:]!r}")

    def _begin(self, title: str, prompt: str) -> tuple["_Screen", str]:
        print(fitted(f"\n{title}\n  > {prompt}"), flush=True)
        screen = _Screen()
        body = {"prompt": prompt, "parameters": {"temperature": 0}}  # the same story each time
        return screen, self._users.post("/v1/sessions", body)["session_id"]

    def _answer(self, session: str) -> Iterator[Event]:
        """What the user gets, up to the end."""
        for _, event in self._users.events(f"/v1/sessions/{session}/events"):
            yield event
            if event.name in FINAL:
                return

    def _log(self, session: str) -> Iterator[Event]:
        """What operators see and users do not, up to the Commander's last word."""
        for _, event in self._operators.events(f"/operator/sessions/{session}/events"):
            yield event
            if event.name in ("finished", "stopped", "failed", "agent_error"):
                return

    def _thoughts(self, session: str, screen: "_Screen") -> None:
        for event in self._log(session):
            if event.name == "thought" and event.data["delta"].strip():
                screen.line(f"thought (operators only)  {event.data['step_name']}: {event.data['delta'].strip()[:90]}")
            elif event.name == "call":
                screen.line(f"arguments (operators only)  {event.data['arguments_json']}")

    def _halted(self, session: str, screen: "_Screen") -> None:
        """What the Commander measured."""
        for event in self._log(session):
            if event.name == "stopped":
                screen.line(
                    f"the model halted {event.data['halt_micros'] / 1000:.1f} ms after the stop reached it;"
                    f" tokens after the stop: {event.data['deltas_after_stop']}"
                )


class _Screen:
    """Lines with the time since the prompt; words as they come. The user's reader and the operator's share it. On a
    terminal both are wrapped at its width.
    """

    def __init__(self) -> None:
        self._started, self._in_words = time.perf_counter(), False
        self._lock = threading.Lock()
        self._column = 0  # where the words stand

    def _time(self) -> str:
        return f"  {time.perf_counter() - self._started:6.2f} s  "

    def words(self, text: str) -> None:
        with self._lock:
            if not self._in_words:
                print(self._time(), end="")
                self._in_words, self._column = True, len(INDENT)
            print("".join(self._wrapped(text)), end="", flush=True)

    def _wrapped(self, text: str) -> Iterator[str]:
        """A word that does not fit goes to the next line; one that has begun is broken."""
        for part in re.findall(r"\n|[^\S\n]+|\S+", text):
            if part == "\n" or self._column + len(part) >= columns():
                yield f"\n{INDENT}"
                self._column = len(INDENT)
                if part.isspace():
                    continue
            yield part
            self._column += len(part)

    def line(self, text: str) -> None:
        with self._lock:
            if self._in_words:
                print("▮")
                self._in_words = False
            line = self._time() + text
            if len(line) >= (width := columns()):
                line = textwrap.fill(line, width - 1, subsequent_indent=INDENT, drop_whitespace=True)
            print(line, flush=True)
