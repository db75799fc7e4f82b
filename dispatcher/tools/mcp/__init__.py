"""Toolsets of kind `mcp`: a server of the Model Context Protocol, over streamable HTTP or a process's stdio.

`entry` reads the keys, `servers` is what they say, `toolset` offers and calls. What needs the SDK stands behind
`connection`, which is imported when a server is connected to: `web` and `process` carry its messages, `incoming` bounds
what the server says unasked, `results` makes results of its answers, `attempt` is what is known of a call on its way.

Imports: dispatcher.files, dispatcher.tools, dispatcher.tools.http, shared.
Libraries: anyio, httpcore2, httpx2, mcp, mcp_types, pydantic, structlog.
"""
