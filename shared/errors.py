"""Errors that both programs know."""


class ConfigError(Exception):
    """A setting, or a file that a setting names, is wrong. The programs print its text, one line, and exit 2."""
