"""The Dispatcher. Here stand its composition, `app`, and what its rooms need: settings, metrics, the operators' files.

Imports: dispatcher.gateway, dispatcher.grpc_edge, dispatcher.live, dispatcher.policing, dispatcher.store,
dispatcher.tools, dispatcher.verbs, shared.
Libraries: grpc, grpc_health, grpc_reflection, prometheus_client, pydantic, pydantic_settings, structlog.
"""
