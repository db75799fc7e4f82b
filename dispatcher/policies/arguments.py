"""The strings in a tool call's arguments, as a rule has to see them: decoded, so that `\\u004e` is an N."""

import json


def strings(arguments_json: str) -> list[str]:
    """Keys and values, nested ones too, numbers as they are written, and all of what a repeated key says.
    What is not strictly JSON, or nested too deeply to be parsed, is one string as it stands (no tool will run on it).
    """
    try:
        parsed = json.loads(
            arguments_json,
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse,
            object_pairs_hook=lambda pairs: [part for pair in pairs for part in pair],
        )
    except (ValueError, RecursionError):
        return [arguments_json]
    found: list[str] = []
    waiting = [parsed]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            waiting += reversed(value)
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
