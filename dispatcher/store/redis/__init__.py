"""The store in a Redis, which many Dispatchers share.

Imports: dispatcher.core, dispatcher.store.blobs, dispatcher.store.followers, dispatcher.store.ports.
Libraries: hiredis, msgspec, redis, structlog.
"""
