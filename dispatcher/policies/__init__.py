"""The rules' engine: text in; what is let out and what is violated out (`README.md`).

Pure: no I/O, no clock, no loop. It knows neither sessions nor files.
Imports: none.
Libraries: msgspec.
"""
