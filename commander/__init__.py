"""The Commander: runs an agent, sends what it says to a Dispatcher, and stops it where it stands (`README.md`).

Imports: commander.backends.settings, commander.check.command, shared.
Libraries: grpc, prometheus_client, pydantic, pydantic_settings, structlog, uvloop.
"""
