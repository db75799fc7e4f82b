"""aider, as a program runs it (`aider --message`)."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.clients.drivers.driver import BANNED, FAILS, FAILS_LATE, IMAGE, LET_OUT, SAID, endless, image_bytes, run

SECONDS = 200  # that one question may take: only what hangs takes that long
CONFIG = """
model: openai/default
yes-always: true
git: false
pretty: false
analytics: false
check-update: false
show-release-notes: false
"""
KNOWN = {"litellm_provider": "openai", "mode": "chat", "supports_vision": True}  # otherwise it asks the internet
NOT_HONOURED = """
- name: openai/default
  extra_params: {n: 2}
"""
WHOLE = "sea.txt\n```\ncalm\nand deep\n```"
DIFF = "sea.txt\n```\n<<<<<<< SEARCH\ncalm\n=======\nrough\n>>>>>>> REPLACE\n```"


class Aider:
    def __init__(self, url: str, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.environ = os.environ | {
            "HOME": str(folder),
            "OPENAI_API_BASE": url,
            "OPENAI_API_KEY": "none",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "BROWSER": "true",  # a program that opens nothing
            "COLUMNS": "1000",  # it breaks its own lines, not the agent's
        }
        (folder / ".aider.conf.yml").write_text(CONFIG)
        (folder / ".aider.model.metadata.json").write_text(json.dumps({"openai/default": KNOWN}))
        (folder / "refused.yml").write_text(NOT_HONOURED)
        (folder / "a.png").write_bytes(image_bytes(IMAGE))
        self.file = folder / "sea.txt"
        self.file.write_text("rough\n")

    def ask(self, question: str, *arguments: str, until: str = "") -> str:
        """What it prints. until: with Ctrl-C once that is there."""
        command = [sys.executable, "-m", "aider", *arguments, "--message", question]
        printed = ""
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as program:
            assert program.stdout
            limit = threading.Timer(SECONDS, program.kill)
            limit.start()
            try:
                while until not in printed:
                    more = program.stdout.read(1)
                    assert more, printed
                    printed += more
                if until:
                    program.send_signal(signal.SIGINT)
                printed += program.stdout.read()
            finally:
                limit.cancel()
        assert until or program.returncode == 0, printed
        return printed

    def lines(self, question: str, *arguments: str) -> list[str]:
        return self.ask(question, *arguments).splitlines()

    def plain(self) -> None:
        """And writes the file anew that the answer has, as it wants edits by default."""
        lines = self.lines(f"Say: {SAID}\n{WHOLE}", "--no-stream", "sea.txt")
        assert f"Say: {SAID}" in lines, lines
        assert any(re.fullmatch(r"Tokens: [\d.k]+ sent, \d+ received\.", line) for line in lines), lines
        assert self.file.read_text() == "calm\nand deep\n"

    def stream(self) -> None:
        """And edits it by what to search for."""
        lines = self.lines(f"Say: {SAID}\n{DIFF}", "--edit-format", "diff", "sea.txt")
        assert f"Say: {SAID}" in lines, lines
        assert self.file.read_text() == "rough\nand deep\n"

    def history(self) -> None:
        """In the conversation of before."""
        lines = self.lines(f"Who said '{SAID}'?", "--restore-chat-history")
        assert "user and assistant and user and assistant" in lines, lines

    def image(self) -> None:
        lines = self.lines("What is it?", "a.png")
        assert "I see image_url" in lines, lines

    def abort(self) -> None:
        printed = self.ask(endless(self.name), until=" 3 ")
        assert "^C again to exit" in printed, printed

    def error(self) -> None:
        """It asks again for a minute, where its user has the patience."""
        printed = self.ask(FAILS, until="Retrying in")
        assert "The agent failed." in printed, printed
        printed = self.ask(FAILS_LATE, until="Retrying in")
        assert re.search("^So far .*The agent failed.", printed, re.MULTILINE), printed

    def refused(self) -> str:
        lines = self.lines(SAID, "--model-settings-file", "refused.yml")
        (why,) = (line for line in lines if "BadRequestError" in line)
        return why.partition("OpenAIException - ")[2]

    def filtered(self) -> None:
        lines = self.lines(f"Say: {BANNED}")
        assert f"Say: {LET_OUT}" in lines, lines


if __name__ == "__main__":
    # A job in a shell's background ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as home:
        run("aider-chat", {"Chat": lambda url, name: Aider(url, name, Path(home))})
