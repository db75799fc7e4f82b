"""The store in a file of SQLite.

Imports: dispatcher.core, dispatcher.store.blobs, dispatcher.store.followers, dispatcher.store.ports,
dispatcher.store.turns, shared.
Libraries: msgspec, structlog.
"""
