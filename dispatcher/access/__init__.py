"""Who may do what: access rules and their file, new keys, and the certificates that the edges show.

Imports: dispatcher.entry, dispatcher.files, dispatcher.metrics, dispatcher.settings, dispatcher.watch, shared.
Libraries: grpc, msgspec, structlog.
"""
