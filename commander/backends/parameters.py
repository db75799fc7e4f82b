"""What of a session's parameters goes to a model."""

from collections.abc import Mapping
from typing import Any

# OpenAI's names. Others (tools, n, stream …) are ours to set, or unknown to most servers.
SAMPLING = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")
LIMITS = ("max_tokens", "max_completion_tokens")


def sampling(parameters: Mapping[str, Any], *, limit_name: str | None = None) -> dict[str, Any]:
    """The sampling parameters and limits that are given. `limit_name`: what to call a limit; None: as it was given."""
    given = {name: parameters[name] for name in (*LIMITS, *SAMPLING) if parameters.get(name) is not None}
    return {limit_name if limit_name and name in LIMITS else name: value for name, value in given.items()}
