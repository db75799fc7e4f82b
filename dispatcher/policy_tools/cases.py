"""`[[case]]` entries: a text, and what the rules shall make of it. They may stand in the rules' own file.

[[case]]
content = "It is Project Nightingale."
stopped = "project names"       # by that policy; true: by any
released = "It is "
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from dispatcher.files.document import Fault, FileError, Where, entries, quoted
from dispatcher.policies.matches import CHANNELS, Channel

EXPECTATIONS = ("stopped", "denied", "released")
STREAMED: tuple[Channel, ...] = ("content", "thoughts")  # they come in packets; the others are read whole


class Case(msgspec.Struct, frozen=True):
    """text: what comes in that channel; of arguments and results, JSON.

    stopped, denied   the policy's name; True: some policy's; False: by none
    released          what users get; None: not looked at
    tool              whose arguments these are
    """

    where: Where
    channel: Channel
    text: str
    stopped: str | bool = False
    denied: str | bool = False
    released: str | None = None
    tool: str = "tool"


def load(paths: Iterable[Path]) -> list[Case]:
    """The cases of these files, or of the *.toml files of these folders. Raises FileError with all that is wrong."""
    faults: list[Fault] = []
    read = [(where, entry) for path in paths for where, entry in entries(path, faults, "case")]
    cases = [_case(where, entry, faults) for where, entry in read]
    if faults:
        raise FileError(faults)
    return [case for case in cases if case]


def _case(where: Where, entry: dict[str, Any], faults: list[Fault]) -> Case | None:
    wrong = [Fault(where, reason, key) for key, reason in _wrong(entry)]
    faults += wrong
    if wrong:
        return None
    channel = next(channel for channel in CHANNELS if channel in entry)
    text = entry[channel]
    stopped, denied = entry.get("stopped", False), entry.get("denied", False)
    released = entry.get("released")
    if channel == "content" and released is None and not stopped:
        released = text  # what no rule touches arrives unchanged
    if not isinstance(text, str):
        text = json.dumps(text, ensure_ascii=False, default=str)  # TOML's dates
    return Case(where, channel, text, stopped, denied, released, entry.get("tool", "tool"))


def _wrong(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, reason)"""
    for key in entry:
        if key not in ("name", "tool", *CHANNELS, *EXPECTATIONS):
            yield key, f"unknown key {quoted(key)}"
    given = [channel for channel in CHANNELS if channel in entry]
    if len(given) != 1:
        yield "", f"needs exactly one of {', '.join(map(quoted, CHANNELS))}"
        return
    (channel,) = given
    text = entry[channel]
    structured = channel in ("arguments", "results")
    if not isinstance(text, str) and not (structured and isinstance(text, dict | list)):
        yield channel, f"`{channel}` has to be a text" + (", or a table as its JSON" if structured else "")
    for key in ("stopped", "denied"):
        if not isinstance(entry.get(key, False), str | bool):
            yield key, f"`{key}` has to be a policy's name, true or false"
    if "denied" in entry and channel in STREAMED:
        yield "denied", f"`denied` is for {', '.join(quoted(other) for other in CHANNELS if other not in STREAMED)}"
    if "released" in entry and (channel != "content" or not isinstance(entry["released"], str)):
        yield "released", "`released` has to be a text, and is for content"
    if "tool" in entry and (channel != "arguments" or not isinstance(entry["tool"], str)):
        yield "tool", "`tool` has to be a name, and is for arguments"
