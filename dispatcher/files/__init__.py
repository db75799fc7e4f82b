"""The operators' files: TOML that is checked whole, each fault with where it stands, and seen to change.

Imports: shared.
Libraries: none.
"""
