"""What stands behind `dispatcher policy`: rules checked, tested and replayed before they count (`README.md`).

Imports: dispatcher.core, dispatcher.files, dispatcher.metrics, dispatcher.policies, dispatcher.policing, shared.
Libraries: msgspec, prometheus_client.
"""
