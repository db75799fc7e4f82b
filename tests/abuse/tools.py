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


async def huge() -> list[str]:
    """300 MB as JSON, of little memory."""
    return ["x" * 1_000_000] * 300


async def many() -> list[list[int]]:
    """12 MB as JSON, of little memory: values that are slow to write."""
    return [list(range(1000))] * 3000


def hang() -> None:
    """A minute of a thread."""
    time.sleep(60)


async def own_exception() -> None:
    """Fails with what nobody catches."""
    raise Own
