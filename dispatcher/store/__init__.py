"""What keeps the logs: the ports, what the stores share, the store in memory, and `factory`, from a setting to a store.

Imports: dispatcher.core, dispatcher.store.redis, dispatcher.store.sqlite.
Libraries: msgspec.
"""
