"""A real Chromium; tests that import this are skipped where there is none."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None and "CI" not in os.environ:
    pytest.skip("Chromium is not installed (Debian's package `chromium`)", allow_module_level=True)

# As root, on a machine without a screen, and without asking for anything outside it
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",  # keeps it open until it is ended
)


async def open_page(url: str, profile: Path, *flags: str) -> asyncio.subprocess.Process:
    assert CHROMIUM, "Chromium is not installed, and this is CI"
    log = (profile / "chromium.log").open("wb")
    try:
        return await asyncio.create_subprocess_exec(
            CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", url, stdout=log, stderr=log, start_new_session=True
        )
    finally:
        log.close()


async def end(browser: asyncio.subprocess.Process) -> None:
    os.killpg(browser.pid, signal.SIGKILL)  # it has children; the group is its own
    await browser.wait()
