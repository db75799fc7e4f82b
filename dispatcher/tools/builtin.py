"""The harmless tools that are there where no tool file is given."""

import datetime
import zoneinfo
from typing import Annotated

from pydantic import Field

from dispatcher.tools.calculator import evaluate
from dispatcher.tools.errors import ToolError


def current_time(
    timezone: Annotated[str, Field(description="IANA time zone, as in Europe/Berlin", max_length=64)] = "UTC",
) -> dict[str, str]:
    """The current date, time and weekday in a time zone."""
    try:
        zone = zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a region without a city is a folder
        raise ToolError("unknown time zone: an IANA name is needed, as in Europe/Berlin") from None
    now = datetime.datetime.now(zone)
    return {"time": now.isoformat(timespec="seconds"), "weekday": f"{now:%A}", "timezone": timezone}


def calculate(
    expression: Annotated[str, Field(description="Arithmetic, as in (2 + 3) * sqrt(16) / 7")],
) -> int | float:
    """Calculate an arithmetic expression: + - * / // % **, parentheses, pi, e, functions like sqrt, log, round."""
    return evaluate(expression)
