"""ChatStream: Commanders' packets to the sessions, signals back to them, and each stream's status.

Imports: dispatcher.access, dispatcher.live.desk, dispatcher.live.ids, dispatcher.live.pool, dispatcher.live.ports,
dispatcher.live.tasks, shared.
Libraries: grpc, grpc_health, structlog.
"""
