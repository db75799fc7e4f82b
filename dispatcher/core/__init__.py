"""The session core: what a session's log takes, and what follows from each entry. Its rules stand in `README.md`.

Pure: no I/O, no clock, no loop, no chance; `now` and ids come in as arguments.
Imports: dispatcher.policies, shared.
Libraries: msgspec.
"""
