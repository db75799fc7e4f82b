"""A toolset's tools as somebody approved them: names, descriptions and schemas, in a file beside the operators' own.

A server may change what its tools say of themselves at any time, and agents act on what they say.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dispatcher.tools import strict_json
from dispatcher.tools.entry import MAX_FILE_BYTES, ToolEntry
from dispatcher.tools.ports import Spec

Pin = Mapping[str, Any]  # by the name that agents see: {"description", "schema"}


def pinned(specs: Iterable[Spec]) -> str:
    """The file's text."""
    tools = {spec.name: _approved(spec) for spec in sorted(specs, key=lambda spec: spec.name)}
    return json.dumps({"tools": tools}, ensure_ascii=False, indent=2) + "\n"


def read_pin(entry: ToolEntry) -> Pin | None:
    """None: something is wrong with it."""
    content = entry.content("pin")
    if content is None:
        return None
    try:
        document = strict_json.parse(content.decode(), MAX_FILE_BYTES)
    except ValueError as error:
        entry.wrong(f"`pin`: {'not UTF-8' if isinstance(error, UnicodeDecodeError) else error}", "pin")
        return None
    tools = document.get("tools") if isinstance(document, dict) else None
    if not isinstance(tools, dict):
        entry.wrong('`pin`: has to be {"tools": …}, as `dispatcher tools pin` writes it', "pin")
        return None
    return tools


def differs(pin: Pin, spec: Spec) -> str:
    """Why the tool is not the one that was approved; empty: it is."""
    if spec.name not in pin:
        return "is not pinned"
    return "" if pin[spec.name] == _approved(spec) else "differs from its pin"


def _approved(spec: Spec) -> dict[str, Any]:
    return {"description": spec.description, "schema": spec.schema}
