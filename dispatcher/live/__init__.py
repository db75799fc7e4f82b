"""The sessions that this instance has, on the event loop: made, assigned, run, stopped, found again. It never
imports an adapter, gRPC or Starlette.

Imports: dispatcher.core, dispatcher.metrics, dispatcher.policies, dispatcher.policing, dispatcher.settings,
dispatcher.store.asking, dispatcher.store.ports, dispatcher.store.turns, dispatcher.tools.context,
dispatcher.tools.registry, shared.
Libraries: msgspec, structlog.
"""
