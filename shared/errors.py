"""Errors that both programs know, and what errors of others say."""


class ConfigError(Exception):
    """A setting, or a file that a setting names, is wrong. The programs print its text, one line, and exit 2."""


def text_of(error: BaseException) -> str:
    """What it says; its type's name where its own `__str__` fails."""
    try:
        return str(error)
    except Exception:
        return type(error).__name__
