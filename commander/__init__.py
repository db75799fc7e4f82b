"""The Commander: runs an agent, sends what it says to a Dispatcher, and stops it where it stands (`README.md`).

Imports: commander.backends.obedient, commander.backends.settings, commander.check.command, shared.
Libraries: grpc, prometheus_client, pydantic, pydantic_settings, structlog, uvloop.
"""

import sys
from pathlib import Path

# What stands beside this is our `shared`, whatever else of that name is on the path, as a folder of the user's own.
sys.path.insert(0, str(Path(__file__).parents[1]))
import shared  # noqa: F401

del sys.path[0]
