"""`commander check`: does an agent stop in mid-sentence, how many tokens late, and does it honour what it declares.

Imports: commander, shared.
Libraries: httptools, msgspec, prometheus_client, uvloop.
"""
