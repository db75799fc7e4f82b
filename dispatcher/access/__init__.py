"""Who may do what: access rules and their file, new keys, issuers' tokens, and the certificates that the edges show.

Imports: dispatcher.core, dispatcher.files, dispatcher.metrics, dispatcher.settings, shared.
Libraries: grpc, httpx2, jwt, msgspec, structlog.
"""
