"""The version of the installed package."""

from importlib import metadata


def version() -> str:
    """As in pyproject.toml; `unknown` where the source is run without being installed."""
    try:
        return metadata.version("midsentence")
    except metadata.PackageNotFoundError:
        return "unknown"
