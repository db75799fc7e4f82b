"""What both programs need: records and their form on the wire, the conversation's table, settings, logs, what both
ends of a connection agree on. It knows neither side.

Imports: none.
Libraries: annotated_types, cryptography, google, grpc, httpx2, msgspec, opentelemetry, prometheus_client, pydantic,
pydantic_core, pydantic_settings, structlog.
"""
