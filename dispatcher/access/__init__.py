"""Who may do what: the certificates that the edges show, read again when they change.

Imports: dispatcher.metrics, dispatcher.settings, dispatcher.watch, shared.
Libraries: grpc, structlog.
"""
