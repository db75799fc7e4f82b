"""Codex, as a program runs it (`codex exec`), with its defaults."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.clients.drivers.driver import BANNED, FAILS, IMAGE, SAID, image_bytes, say, try_cases

PACKAGES = Path(__file__).resolve().parents[3] / "build/clients/node_modules"
WAIT = "Within 20000 ms"  # how long the shell may take: the agent takes the first number for each
LIVE = ("-c", 'web_search="live"')  # the agent has no such search
CONFIG = """
model = "default"
model_provider = "pair"

[model_providers.pair]
name = "pair"
base_url = "{url}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""
FORM = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


class Codex:
    def __init__(self, url: str, name: str, folder: Path) -> None:
        (self.program,) = PACKAGES.glob("@openai/codex-*/vendor/*/bin/codex")
        self.name, self.folder = name, folder
        self.environ = os.environ | {"CODEX_HOME": str(folder), "HOME": str(folder)}
        (folder / "config.toml").write_text(CONFIG.format(url=url))

    def command(self, *arguments: str, more: tuple[str, ...] = ()) -> list[str]:
        return [str(self.program), "exec", "--skip-git-repo-check", "--json", *more, *arguments]

    def ask(self, *arguments: str, more: tuple[str, ...] = ()) -> list[Any]:
        """Its events."""
        done = subprocess.run(
            self.command(*arguments, more=more),
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def answer(self, *arguments: str) -> str:
        events = self.ask(*arguments)
        assert events[-1]["type"] == "turn.completed", events
        texts = [event["item"]["text"] for event in events if event.get("item", {}).get("type") == "agent_message"]
        return str(texts[-1])

    def failure(self, *arguments: str, more: tuple[str, ...] = ()) -> str:
        events = self.ask(*arguments, more=more)
        assert events[-1]["type"] == "turn.failed", events
        return str(events[-1]["error"]["message"])

    def stream(self) -> None:
        assert self.answer(f"Say: {SAID}") == f"Say: {SAID}"

    def auto(self) -> None:
        assert "sea-42" in self.answer(f"{WAIT}, call exec_command with 'echo sea-$((40+2))'.")

    def rounds(self) -> None:
        """In the conversation of before."""
        question = f"{WAIT}, call exec_command with 'echo river-$((40+2))'."
        assert "river-42" in self.answer("resume", "--last", question)

    def structured(self) -> None:
        (self.folder / "form.json").write_text(json.dumps(FORM))
        answer = self.answer("--output-schema", "form.json", "Call exec_command with 'true'.")
        assert json.loads(answer).keys() == {"city"}

    def image(self) -> None:
        (self.folder / "a.png").write_bytes(image_bytes(IMAGE))
        assert self.answer("--image", "a.png", "--", "What is it?") == "I see image_url"

    def error(self) -> None:
        assert "The agent failed" in self.failure(FAILS)

    def refused(self) -> str:
        return str(json.loads(self.failure(SAID, more=LIVE))["error"]["message"])

    def filtered(self) -> None:
        assert "content_filter" in self.failure(f"Say: {BANNED}")


if __name__ == "__main__":
    url, _, name = sys.argv[1:]
    say({"version": json.loads((PACKAGES / "@openai/codex/package.json").read_text())["version"]})
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(try_cases(Codex(url, name, Path(folder))))
