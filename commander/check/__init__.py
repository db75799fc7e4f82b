"""`commander check`: does an agent stop in mid-sentence, and how many tokens late.

Imports: commander, shared.
Libraries: httptools, msgspec, prometheus_client, uvloop.
"""
