"""Where rules meet files, clocks and servers: they are loaded, watched, timed, and asked of others.

Imports: dispatcher.core, dispatcher.entry, dispatcher.files, dispatcher.metrics, dispatcher.policies,
dispatcher.watch, shared.
Libraries: httpx2, msgspec, structlog.
"""
