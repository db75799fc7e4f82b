"""The Dispatcher. Here stand its composition, `app`, and what its rooms need: settings and metrics.

Imports: dispatcher.access, dispatcher.core, dispatcher.gateway, dispatcher.grpc_edge, dispatcher.live,
dispatcher.policies, dispatcher.policing, dispatcher.store, dispatcher.tools, dispatcher.verbs, shared.
Libraries: grpc, grpc_health, grpc_reflection, prometheus_client, pydantic, pydantic_settings, structlog.
"""

import sys
from pathlib import Path

# What stands beside this is our `shared`, whatever else of that name is on the path, as a folder of the user's own.
sys.path.insert(0, str(Path(__file__).parents[1]))
import shared  # noqa: F401

del sys.path[0]
