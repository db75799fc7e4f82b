"""Tools of the abuse runs."""

import time


class Own(BaseException):
    """No `Exception`."""


async def echo(number: int) -> int:
    """The number."""
    return number


async def large() -> str:
    """Nearly as much as a result may have."""
    return "x" * 250_000


async def huge() -> list[int]:
    """Far more than a result may have."""
    return [0] * 40_000_000


def hang() -> None:
    """A minute of a thread."""
    time.sleep(60)


async def own_exception() -> None:
    """Fails with what nobody catches."""
    raise Own
