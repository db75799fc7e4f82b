"""The store in a file of SQLite.

Imports: dispatcher.core, dispatcher.store.followers, dispatcher.store.ports.
Libraries: msgspec, structlog.
"""
