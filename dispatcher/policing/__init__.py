"""Where rules meet files, clocks and servers: they are loaded, watched, timed, and asked of others.

Imports: dispatcher.core, dispatcher.files, dispatcher.metrics, dispatcher.policies, shared.
Libraries: httpx2, msgspec, structlog.
"""
