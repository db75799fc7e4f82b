"""Who may do what: access rules and their file, new keys, and the certificates that the edges show.

Imports: dispatcher.files, dispatcher.metrics, dispatcher.settings, shared.
Libraries: grpc, msgspec, structlog.
"""
