"""`dispatcher chat`: a user's terminal client over HTTP."""

import argparse
import secrets
import sys
from typing import Any

from dispatcher.core.log import FINAL
from dispatcher.verbs.client import Client, Event, add_key_file, shown_json
from dispatcher.verbs.servers import RequestFailed
from shared.terminal import printable

FAILED, STOPPED = 1, 3  # exit statuses; 3 as `commander run` has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="one question; without it: a conversation")
    parser.add_argument("--agent", default="default", help="the agent to ask (default: %(default)s)")
    parser.add_argument("--url", help="where the server is (default: from DISPATCHER_HTTP_ADDRESS)")
    add_key_file(parser)
    parser.epilog = "Ctrl-C stops the generation. You are asked about tools that wait for your approval. "
    parser.epilog += "Exit status: 0 finished, 1 failed, 3 stopped."


def run(options: argparse.Namespace) -> int:
    """Raises ConfigError."""
    try:
        with Client.of(options, "http") as client:
            chat = Chat(client, options.agent)
            if options.prompt is not None:
                return chat.ask(options.prompt)
            if sys.stdin.isatty():
                return chat.converse()
            return chat.ask(sys.stdin.read())
    except RequestFailed as error:
        print(f"dispatcher chat: {printable(str(error))}", file=sys.stderr)
        return FAILED


class Chat:
    """A conversation with one agent: each answer is a session of its own, which gets all messages before it."""

    def __init__(self, client: Client, agent: str) -> None:
        self._client, self._agent = client, agent
        self._messages: list[dict[str, str]] = []
        self._conversation_id = secrets.token_hex(8)

    def converse(self) -> int:
        """Ask what is typed, until the end of input, or Ctrl-C while nothing is generated."""
        while True:
            try:
                prompt = input("> ")
            except (EOFError, KeyboardInterrupt):
                print()
                return 0
            if prompt.strip():
                try:
                    self.ask(prompt)
                except RequestFailed as error:
                    print(f"[{printable(str(error))}]", file=sys.stderr)

    def ask(self, prompt: str) -> int:
        """One answer, printed as it comes. The exit status. Raises RequestFailed."""
        messages = [*self._messages, {"role": "user", "content": prompt}]
        body = {"agent": self._agent, "messages": messages, "conversation_id": self._conversation_id}
        created = self._client.post("/v1/sessions", body)
        answer = Transcript(self._client, created["session_id"])
        status = answer.show()
        self._messages = [*messages, {"role": "assistant", "content": answer.text}]
        return status


class Transcript:
    """One session as it is shown."""

    def __init__(self, client: Client, session_id: str) -> None:
        self._client, self._path = client, f"/v1/sessions/{session_id}"
        self._last_id = "0"
        self.text = ""

    def show(self) -> int:
        try:
            return self._follow()
        except KeyboardInterrupt:
            self._client.post(f"{self._path}/stop", {"reason": "UserCancel"})
            return self._follow()  # to the end: what was said before the stop, and the stop

    def _follow(self) -> int:
        for last_id, event in self._client.events(f"{self._path}/events", self._last_id):
            self._last_id = last_id
            if event.name in FINAL or (event.name == "reset" and event.data["state"] in FINAL):
                return self._end(event)
            self._print(event)
        return self._end(Event("reset", self._client.get(self._path)))

    def _print(self, event: Event) -> None:
        data = event.data
        match event.name:
            case "content":
                self.text += data["text"]
                _out(data["text"])
            case "reset":
                self.text = data["text"]
                _out(f"\n{data['text']}")
            case "approval":
                self._approve(data)
            case "tool_call":
                _note(f"[{data['tool_name']} …]")
            case "tool_result" if data["status"] != "OK":
                _note(f"[{data['tool_name']}: {data['status']}]")

    def _approve(self, data: dict[str, Any]) -> None:
        """Ask on the terminal for what the user has to approve. Without one, or at its end, nothing is decided."""
        call = data["tool_name"]
        if "arguments" in data:
            call += f" {shown_json(data['arguments'])}"
        if "arguments" not in data or not sys.stdin.isatty():
            _note(f"[{call} waits for an approval]")
            return
        print(printable(f"\n[{call}: approve? y/N] "), end="", file=sys.stderr, flush=True)
        try:
            decision = "approve" if input().strip().lower() in ("y", "yes") else "deny"
            body = {"decision": decision, "arguments_sha256": data["arguments_sha256"]}
            self._client.post(f"{self._path}/calls/{data['call_id']}/decision", body)
        except EOFError:
            print(file=sys.stderr)
        except RequestFailed as error:
            _note(f"[{error}]")

    def _end(self, event: Event) -> int:
        """`event`: the last one, or `reset` with the session's state in it."""
        name, data = event.name, event.data
        if name == "reset":
            name = data["state"]
            if "text" in data:
                self._print(event)
            if name != "finished":
                data = self._client.get(self._path)
        _out("\n")
        return _report(name, data)


def _report(name: str, data: dict[str, Any]) -> int:
    match name:
        case "stopped":
            _note(f"stopped: {data['reason']}")
            return STOPPED
        case "failed":
            _note(f"failed: {data['code']}: {data['message']}")
            return FAILED
    return 0


def _out(text: str) -> None:
    print(printable(text) if sys.stdout.isatty() else text, end="", flush=True)


def _note(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
