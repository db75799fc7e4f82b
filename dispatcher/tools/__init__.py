"""What agents may call: the registry, and the kinds of tools behind it (`README.md`).

Imports: dispatcher.files, dispatcher.metrics, dispatcher.tools.http, dispatcher.tools.mcp, dispatcher.tools.openapi,
dispatcher.tools.rpc, shared.
Libraries: jsonschema_rs, pydantic, pydantic_core, rfc8785, structlog, typing_extensions.
"""
