"""HTTP: one module a protocol, each a function of a session's log. `ports` says what it needs of the sessions.

Imports: dispatcher.access, dispatcher.core, dispatcher.live.fleet, dispatcher.live.pool, dispatcher.live.ports,
dispatcher.metrics, dispatcher.policing.prompts, dispatcher.settings, dispatcher.store.ports, dispatcher.tools.registry,
shared.
Libraries: cryptography, httptools, msgspec, prometheus_client, starlette, structlog, wsproto.
"""
