"""Reads the documents: their prose, tables, links and fenced blocks."""

import pkgutil
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files(pattern: str) -> list[Path]:
    """Each one that git knows of or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", pattern]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({path for name in listed.split("\0") if name and (path := ROOT / name).is_file()})


README, CONTRIBUTING, INDEX = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs/README.md"
LIMITS = ROOT / "docs/limits.md"
CLIENTS, GLOSSARY = ROOT / "docs/clients.md", ROOT / "docs/glossary.md"
PACKET, STOP = ROOT / "docs/packet.md", ROOT / "docs/stop.md"
HTTP, COMMANDS = ROOT / "docs/reference/http.md", ROOT / "docs/reference/commands.md"
SETTINGS, METRICS = ROOT / "docs/reference/settings.md", ROOT / "docs/reference/metrics.md"
OPERATING, WRITING, CONTRACT = ROOT / "deploy/README.md", ROOT / "commander/README.md", ROOT / "protos/README.md"
RULES, TRYING = ROOT / "dispatcher/policies/README.md", ROOT / "dispatcher/policy_tools/README.md"
TOOLS = ROOT / "dispatcher/tools/README.md"
SERVICES = ROOT / "docs/tools.md"
DOCUMENTS = files("*.md")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document. `name`: of the file that its first line says it is, if any."""

    document: str
    language: str
    text: str

    @property
    def name(self) -> str:
        found = re.match(r"# (\w+\.py)\n", self.text)
        return found[1] if found else ""


def blocks(document: Path, language: str) -> list[str]:
    return [block.text for block in BLOCKS if block.document == str(document) and block.language == language]


def fenced(document: Path) -> Iterator[Block]:
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL):
        yield Block(str(document), language, text)


BLOCKS = [block for document in DOCUMENTS for block in fenced(document)]
EXAMPLES = {block.name: block.text for block in BLOCKS if block.name}


def prose(document: Path) -> str:
    """The document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def table(document: Path, heading: str) -> list[list[str]]:
    """The rows of the table whose first heading that is, each a list of cells."""
    lines = prose(document).splitlines()
    return [cells for at, line in enumerate(lines) if line.startswith(f"| {heading} |") for cells in _rows(lines[at:])]


def _rows(lines: Sequence[str]) -> Iterator[list[str]]:
    for line in lines[2:]:  # after the headings and their rule
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def code(cell: str) -> str:
    """What stands in backticks at the cell's beginning."""
    found = re.match(r"`([^`]+)`", cell)
    assert found, f"not code: {cell!r}"
    return found[1]


def links(document: Path) -> Iterator[tuple[str, Path, str]]:
    """Those to files of the house and places in them: as written, the file, the anchor or ""."""
    for target in re.findall(r"\]\(([^)]+)\)", prose(document)):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            yield target, (document.parent / name).resolve() if name else document, anchor


def missing(text: str) -> Iterator[str]:
    """Paths and dotted names of the house that stand in the text, in backticks, and are there no more."""
    for path in re.findall(r"`((?:dispatcher|commander|shared|tests|protos|deploy|docs)/[\w./-]*)`", text):
        if not (ROOT / path).exists():
            yield path
    for name in re.findall(r"`((?:dispatcher|commander|shared|tests)(?:\.\w+)+)\b", text):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            yield name


def anchors(document: Path) -> Iterable[str]:
    """Of its headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
