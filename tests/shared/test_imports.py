"""The import rules of the house, held over the syntax trees; and no tracked file names a package registry.

shared ← dispatcher, shared ← commander; neither side imports the other
pure modules import no I/O: only pure modules, msgspec and what of the standard library only computes
the generated messages only in `shared.wire`, the generated stubs only in the two gRPC edges
adapters only in `dispatcher.app`; `dispatcher.app` only in `dispatcher.verbs.main` and its verbs
a client library only in the adapter that is for it
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("shared", "dispatcher", "commander")

COMPUTES = {
    "__future__", "abc", "array", "bisect", "collections", "copy", "dataclasses", "enum", "functools", "hashlib",
    "heapq", "itertools", "json", "math", "msgspec", "operator", "re", "string", "types", "typing", "unicodedata",
    "difflib", "warnings",
}  # fmt: skip
PURE = (
    "shared.conversation",
    "shared.records",
    "shared.wire",
    "dispatcher.core",
    "dispatcher.policies",
    "dispatcher.gateway.views",
    "dispatcher.gateway.response_events",
)

COMPOSITION = ("dispatcher.app", "dispatcher.store.factory")  # the factory: from a setting to a store
VERBS = ("dispatcher.__main__", "dispatcher.verbs.main", "dispatcher.verbs.dev", "dispatcher.verbs.demo")
ADAPTERS = (
    "dispatcher.store.memory",
    "dispatcher.store.sqlite",
    "dispatcher.store.redis",
    "dispatcher.store.factory",
    "dispatcher.grpc_edge",
    "dispatcher.gateway",
)
STUBS = ("dispatcher.grpc_edge", "commander.stream")
LIBRARIES = {
    "sqlite3": ("dispatcher.store.sqlite",),
    "redis": ("dispatcher.store.redis",),
    "starlette": ("dispatcher.gateway",),
    "httptools": ("dispatcher.gateway", "commander.check"),
    "xllamacpp": ("commander.backends.llama",),
}


class Import(NamedTuple):
    importer: str
    imported: str
    place: str


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def under(module: str, *names: str) -> bool:
    """True where the module is one of `names`, or lies in it, or was split from it (`sqlite` → `sqlite_schema`)."""
    return any(module == name or module.startswith((f"{name}.", f"{name}_")) for name in names)


PATHS = {module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def imports(source: str, importer: str, place: str) -> Iterator[Import]:
    """Each import anywhere in the source, at the top or inside a function, under `TYPE_CHECKING` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # An attribute's rule is its module's; `from package import module` names the module.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if name in PATHS or under(name, "shared.pb")]
            names = modules if len(modules) == len(inner) else [node.module or "", *modules]
        else:
            continue
        yield from (Import(importer, name, f"{place}:{node.lineno}") for name in names)


ALL = [
    found
    for name, path in PATHS.items()
    if not under(name, "shared.pb")
    for found in imports(path.read_text(), name, str(path.relative_to(ROOT)))
]


def pure(module: str) -> bool:
    return under(module, *PURE)


def other_side(found: Import) -> str | None:
    allowed = {"shared": ("shared",), "dispatcher": ("shared", "dispatcher"), "commander": ("shared", "commander")}
    room = found.importer.split(".")[0]
    if found.imported.split(".")[0] in {*ROOMS, "tests", "protos"} and not under(found.imported, *allowed[room]):
        return f"{room} may import only {' and '.join(allowed[room])}"
    return None


def impure(found: Import) -> str | None:
    if not pure(found.importer):
        return None
    if found.importer == "shared.wire" and under(found.imported, "shared.pb", "google.protobuf"):
        return None
    top = found.imported.split(".")[0]
    return None if pure(found.imported) or top in COMPUTES else f"{found.importer} is pure: no I/O, no clock, no loop"


def generated(found: Import) -> str | None:
    if under(found.imported, "shared.pb.agent_pb2_grpc"):
        return None if under(found.importer, *STUBS) else f"the stubs belong to {' and '.join(STUBS)}"
    if under(found.imported, "shared.pb"):
        return None if found.importer == "shared.wire" else "the messages belong to shared.wire"
    return None


def adapter(found: Import) -> str | None:
    own = [name for name in ADAPTERS if under(found.imported, name)]
    if own and not under(found.importer, *COMPOSITION, *own):
        return "adapters belong to dispatcher.app"
    return None


def composition(found: Import) -> str | None:
    if under(found.imported, "dispatcher.app") and not under(found.importer, *VERBS):
        return f"dispatcher.app belongs to {' and '.join(VERBS)}"
    return None


def library(found: Import) -> str | None:
    homes = LIBRARIES.get(found.imported.split(".")[0])
    return f"this library belongs to {' and '.join(homes)}" if homes and not under(found.importer, *homes) else None


RULES: tuple[Callable[[Import], str | None], ...] = (other_side, impure, generated, adapter, composition, library)


def faults(rule: Callable[[Import], str | None], found: list[Import]) -> list[str]:
    return [f"{each.place} imports {each.imported}: {fault}" for each in found if (fault := rule(each))]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_imports_keep_to_their_rooms(rule: Callable[[Import], str | None]) -> None:
    assert not faults(rule, ALL), "\n".join(faults(rule, ALL))


@pytest.mark.parametrize(
    ("rule", "importer", "line"),
    [
        (other_side, "commander.worker", "from dispatcher.core.log import Append"),
        (other_side, "shared.logs", "import commander.agent"),
        (other_side, "dispatcher.verbs.main", "def dev():\n    import commander.cli"),
        (impure, "dispatcher.core.session", "import asyncio"),
        (impure, "dispatcher.core.session", "from time import monotonic"),
        (impure, "dispatcher.policies.phrases", "from dispatcher.policing.load import load"),
        (generated, "dispatcher.live.runner", "from shared.pb import agent_pb2"),
        (generated, "commander.worker", "from shared.pb.agent_pb2_grpc import AgentInteractionStub"),
        (adapter, "dispatcher.live.runner", "import dispatcher.store.memory"),
        (composition, "dispatcher.live.runner", "from dispatcher import app\nimport dispatcher.app"),
        (library, "dispatcher.store.memory", "import sqlite3"),
    ],
)
def test_each_rule_finds_what_breaks_it(rule: Callable[[Import], str | None], importer: str, line: str) -> None:
    assert faults(rule, list(imports(line, importer, "example.py")))


def test_the_rules_name_modules_that_exist() -> None:
    """A rename must not make a rule blind: a list that names nothing holds nothing."""
    named = {
        *PURE,
        *COMPOSITION,
        *VERBS,
        *ADAPTERS,
        *STUBS,
        *(home for homes in LIBRARIES.values() for home in homes),
    }
    assert not named - PATHS.keys()


def test_no_tracked_file_names_a_package_registry() -> None:
    hosts = ["pypi." + "org", "python" + "hosted", "npm" + "js.", "crates." + "io", "anaconda." + "org", "quay." + "io"]
    pattern = re.compile(
        "|".join(map(re.escape, hosts)) + r"|://[^\s\"\\]+/simple\b|^\s*--(extra-)?index-url", re.MULTILINE
    )
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [ROOT / name for name in listed.split("\0") if name]
    named = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked
        if path.is_file() and (match := pattern.search(path.read_text(errors="replace")))
    ]
    assert not named, "\n".join(named)
