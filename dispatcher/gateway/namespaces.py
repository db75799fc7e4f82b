"""A client's tools on Responses, some in namespaces: an agent knows such a one as `namespace__tool`, for the models'
servers have no namespaces on Chat Completions; the client knows it by both names.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

BETWEEN = "__"  # namespace and tool: what models' servers take in a name


def full_name(namespace: str | None, name: str) -> str:
    """As agents know it."""
    return f"{namespace}{BETWEEN}{name}" if namespace else name


def apart(name: str, namespaces: Collection[str]) -> dict[str, str]:
    """As the client knows it."""
    for namespace in namespaces:
        if name.startswith(namespace + BETWEEN):
            return {"namespace": namespace, "name": name.removeprefix(namespace + BETWEEN)}
    return {"name": name}


def spellings(names: Iterable[str], namespaces: Collection[str]) -> dict[str, str]:
    """What a client may choose them by → what agents know them by: `namespace.tool`, as OpenAI has it, where a tool's
    own name is refused too, for several may have it; and what agents know."""
    names = list(names)
    return {".".join(apart(name, namespaces).values()): name for name in names} | {name: name for name in names}


def grouped(tools: Sequence[Mapping[str, Any]], namespaces: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the client offered, of the functions that agents were shown."""
    found: list[dict[str, Any]] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for tool in tools:
        names = apart(tool["name"], namespaces)
        namespace = names.pop("namespace", None)
        if namespace is None:
            found.append(dict(tool))
            continue
        about = namespaces[namespace]
        if namespace not in groups:
            group = groups[namespace] = []
            found.append({"type": "namespace", "name": namespace, "description": about, "tools": group})
        said = (tool["description"] or "").removeprefix(about).removeprefix("\n\n" if about else "")
        groups[namespace].append({**tool, **names, "description": said or None})
    return found
