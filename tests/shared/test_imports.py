"""The import rules of the house, held over the syntax trees; and no tracked file names a package registry.

what a room imports, of the house and of libraries, is what its `__init__.py` says, no more and no less
no circle between modules, and nobody uses another module's underscored names
shared ← dispatcher, shared ← commander; neither side imports the other
pure modules import no I/O: only pure modules, msgspec and what of the standard library only computes
the generated messages only in `shared.wire`, the generated stubs only in the two gRPC edges
adapters only in `dispatcher.app`; `dispatcher.app` only in `dispatcher.verbs.main` and its verbs
a client library only in the adapter that is for it
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("shared", "dispatcher", "commander")

COMPUTES = {
    "__future__", "abc", "array", "bisect", "collections", "copy", "dataclasses", "enum", "functools", "hashlib",
    "heapq", "hmac", "itertools", "json", "math", "msgspec", "operator", "re", "string", "types", "typing",
    "difflib", "unicodedata", "warnings",
}  # fmt: skip
PURE = (  # besides the rooms that say so
    "shared.conversation",
    "shared.envelope",
    "shared.records",
    "shared.sizes",
    "shared.spans",
    "shared.wire",
    "dispatcher.gateway.namespaces",
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
    "openai": ("commander.backends.client",),
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


@cache
def everything() -> list[Import]:
    """Every import of the house."""
    return [
        found
        for name, path in PATHS.items()
        if not under(name, "shared.pb")
        for found in imports(path.read_text(), name, str(path.relative_to(ROOT)))
    ]


# ---- what each room says of itself


class Room(NamedTuple):
    """imports: rooms (without the rooms in them) and modules of the house. libraries: top-level names."""

    name: str
    pure: bool
    imports: frozenset[str]
    libraries: frozenset[str]


def room_of(module: str) -> str:
    """The nearest package that it lies in."""
    return module if module in rooms() else room_of(module.rpartition(".")[0])


def stated(name: str, docstring: str) -> Room:
    """Raises AssertionError where the docstring does not say it."""
    lists = []
    for key in ("Imports", "Libraries"):
        found = re.search(rf"^{key}: ([\w.,\s]+?)\.$", docstring, re.MULTILINE)
        assert found, f"{name} does not say: {key}: …"
        lists.append(frozenset(re.split(r",\s+", found[1])) - {"none"})
    return Room(name, "\nPure: " in docstring, *lists)


@cache
def rooms() -> dict[str, Room]:
    return {
        name: stated(name, ast.get_docstring(ast.parse(path.read_text())) or "")
        for name, path in PATHS.items()
        if path.name == "__init__.py" and not under(name, "shared.pb")
    }


def entry_for(found: Import) -> str | None:
    """What its room's `__init__.py` has to say for this import; None: nothing. A room's name stands for all in it."""
    own, top = room_of(found.importer), found.imported.split(".")[0]
    if top not in ROOMS:
        return None if top in sys.stdlib_module_names else top
    if under(found.imported, "shared.pb"):
        return None  # whose they are is a rule of its own
    if room_of(found.imported) == own:
        return None
    said = rooms()[own].imports
    return room_of(found.imported) if room_of(found.imported) in said else found.imported


def unstated(found: Import) -> str | None:
    entry = entry_for(found)
    room = rooms()[room_of(found.importer)]
    if entry is None or entry in room.imports | room.libraries:
        return None
    return f"{room.name.replace('.', '/')}/__init__.py does not say so"


def pure(module: str) -> bool:
    return under(module, *PURE, *(room.name for room in rooms().values() if room.pure))


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


RULES: tuple[Callable[[Import], str | None], ...] = (
    unstated,
    other_side,
    impure,
    generated,
    adapter,
    composition,
    library,
)


def faults(rule: Callable[[Import], str | None], found: list[Import]) -> list[str]:
    return [f"{each.place} imports {each.imported}: {fault}" for each in found if (fault := rule(each))]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_imports_keep_to_their_rooms(rule: Callable[[Import], str | None]) -> None:
    assert not faults(rule, everything()), "\n".join(faults(rule, everything()))


@pytest.mark.parametrize(
    ("rule", "importer", "line"),
    [
        (unstated, "dispatcher.live.runner", "import grpc"),
        (unstated, "dispatcher.live.runner", "from starlette.requests import Request"),
        (unstated, "dispatcher.live.runner", "from dispatcher.store.memory import MemoryStore"),
        (unstated, "dispatcher.grpc_edge.stream", "from dispatcher.live.appends import Appends"),
        (unstated, "dispatcher.core.session", "from dispatcher.policing.load import load"),
        (unstated, "dispatcher.store.sqlite.store", "from dispatcher.store.redis.keys import session_keys"),
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


def test_rooms_say_no_more_than_they_import() -> None:
    entries = {(room_of(found.importer), entry_for(found)) for found in everything()}
    idle = [
        f"{room.name.replace('.', '/')}/__init__.py: {entry}"
        for room in rooms().values()
        for entry in sorted(room.imports | room.libraries)
        if (room.name, entry) not in entries
    ]
    assert not idle, f"nothing imports what these say: {idle}"


# ---- circles


def circles(found: Iterable[Import]) -> list[list[str]]:
    """The modules that can reach themselves, in groups that reach each other. Imports for types alone count."""
    reached: dict[str, set[str]] = {}
    for each in found:
        if each.imported in PATHS and each.imported != each.importer:
            reached.setdefault(each.importer, set()).add(each.imported)
    for middle in PATHS:
        for targets in reached.values():
            if middle in targets:
                targets.update(reached.get(middle, ()))
    turning = sorted(name for name, targets in reached.items() if name in targets)
    groups = {
        tuple(other for other in turning if other in reached[name] and name in reached[other]) for name in turning
    }
    return [list(group) for group in sorted(groups)]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not circles(everything())


def test_a_circle_is_found() -> None:
    names = ["shared.records", "shared.wire", "shared.logs"]
    ring = [Import(importer, imported, "") for importer, imported in zip(names, [*names[1:], names[0]], strict=True)]
    assert circles([*ring, Import("shared.errors", "shared.logs", "")]) == [sorted(names)]
    assert circles(ring[1:]) == []


# ---- underscores


def underscored(source: str, place: str) -> Iterator[str]:
    """Uses of another module's own names: imported by name, or reached through the module."""
    modules: set[str] = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if alias.name in PATHS}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
            modules |= {alias.asname or alias.name for alias in node.names if f"{node.module}.{alias.name}" in PATHS}
            yield from (f"{place}:{node.lineno}: {alias.name}" for alias in node.names if own(alias.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and own(node.attr) and ast.unparse(node.value) in modules:
            yield f"{place}:{node.lineno}: {ast.unparse(node)}"


def own(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_nobody_uses_another_module_s_own_names() -> None:
    used = [
        use
        for name, path in PATHS.items()
        if not under(name, "shared.pb")
        for use in underscored(path.read_text(), str(path.relative_to(ROOT)))
    ]
    assert not used, "\n".join(used)


@pytest.mark.parametrize(
    "source",
    [
        "from shared.config import _parts",
        "from shared import config as c\nc._parts",
        "import shared.config\nshared.config._parts(1)",
    ],
)
def test_an_own_name_is_found(source: str) -> None:
    assert list(underscored(source, "example.py"))


def test_the_rules_name_modules_that_exist() -> None:
    """A rename must not make a rule blind: a list that names nothing holds nothing."""
    named = {
        *PURE,
        *COMPOSITION,
        *VERBS,
        *ADAPTERS,
        *STUBS,
        *(home for homes in LIBRARIES.values() for home in homes),
        *(entry for room in rooms().values() for entry in room.imports),
    }
    assert not named - PATHS.keys()
    assert not LIBRARIES.keys() - {found.imported.split(".")[0] for found in everything()}


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
