"""The commands. Only `main`, `dev` and `demo` import the server.

Imports: dispatcher.access, dispatcher.app, dispatcher.core, dispatcher.files, dispatcher.live.ids,
dispatcher.metrics, dispatcher.policies, dispatcher.policing, dispatcher.policy_tools, dispatcher.settings,
dispatcher.tools, shared.
Libraries: cryptography, httpx2, msgspec, prometheus_client, structlog, uvloop.
"""
