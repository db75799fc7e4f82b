"""`python -m tests.faults.probe dispatcher serve`: that program, which on SIGUSR2 says in a line of JSON what it holds.
With PROBE_DESCRIPTORS a Dispatcher may have that many and no more.

So that leaks can be seen from outside: tasks by their coroutine, and the objects that live as long as a session, a
stream or a reader.
"""

import asyncio
import gc
import importlib
import json
import os
import resource
import signal
import sys
from collections import Counter
from types import FrameType

# Of each there is none once nothing goes on.
SHORT_LIVED = {
    ("dispatcher.live.runner", "Runner"),
    ("dispatcher.core.session", "Session"),
    ("dispatcher.live.tool_runs", "ToolRuns"),
    ("dispatcher.store.followers", "_Topic"),
    ("dispatcher.store.followers", "LogFollower"),
    ("dispatcher.gateway.sse", "LogReader"),
    ("commander.session", "Session"),
    ("commander.driver", "Driver"),
    ("commander.outbox", "Outbox"),
}


def census(number: int, frame: FrameType | None) -> None:
    """Print `{"event": "census", "tasks": {name: count}, "objects": {class: count}}`."""
    gc.collect()
    found = Counter(
        f"{type(each).__module__}.{type(each).__qualname__}"
        for each in gc.get_objects()
        if (type(each).__module__, type(each).__qualname__) in SHORT_LIVED
    )
    tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    print(json.dumps({"event": "census", "tasks": tasks, "objects": found}), flush=True)


if __name__ == "__main__":
    room = sys.argv.pop(1)
    signal.signal(signal.SIGUSR2, census)
    if room == "dispatcher" and (most := os.environ.get("PROBE_DESCRIPTORS")):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(most), int(most)))
    importlib.import_module(f"{room}.__main__").main()
