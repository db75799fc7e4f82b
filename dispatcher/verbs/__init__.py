"""The commands. Only `main`, `dev` and `demo` import the server.

Imports: dispatcher.app, dispatcher.core, dispatcher.files, dispatcher.policies, dispatcher.policing,
dispatcher.policy_tools, dispatcher.settings, shared.
Libraries: httpx2, msgspec, structlog, uvloop.
"""
