"""The routes as they stand in the gateway's sources, so that no list of them can be left behind."""

import ast
from collections.abc import Iterator
from pathlib import Path

GATEWAY = Path(__file__).resolve().parents[1] / "dispatcher/gateway"


def routes(*without: str) -> list[tuple[str, str]]:
    """(method, path) of each `Route(path, ..., methods=[...])`. without: files of the gateway that are left out."""
    assert not set(without) - {file.name for file in GATEWAY.glob("*.py")}
    return [each for file in sorted(GATEWAY.glob("*.py")) if file.name not in without for each in _routes_of(file)]


def _routes_of(file: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Route":
            path = ast.literal_eval(node.args[0])
            (methods,) = (ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg == "methods")
            yield from ((method, path) for method in methods)
