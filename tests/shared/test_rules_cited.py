"""The session rules stand in `dispatcher/core/README.md`: what cites a rule or a document cites one that is there, and
what that page names as holding a rule is there too.
"""

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.model import test_core_mutants, test_log_mutants, test_runner_mutants

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "dispatcher/core/README.md"
MUTANTS = (*test_log_mutants.RULES, *test_core_mutants.RULES, *test_runner_mutants.RULES)

_GAP = r"(?:[\s_#]|//)+"  # a citation may go on in the next line of a comment, or stand in a test's name
_NUMBERS = rf"\d+(?:(?:,|{_GAP}(?:and|to|or))?{_GAP}\d+)*"
CITATION = re.compile(rf"(?<![a-z])rules?{_GAP}({_NUMBERS})", re.IGNORECASE)
BY_SECTION = re.compile(rf"session{_GAP}rules,{_GAP}[A-Z]\w+")  # numbers are how they are cited
DOCUMENT = re.compile(r"`([\w./-]*\w\.md)`")


def tracked() -> dict[str, str]:
    """The texts of all tracked files but this one, by path from the root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [path for path in listed.split("\0") if path and (ROOT / path).is_file()]
    return {path: (ROOT / path).read_text(errors="replace") for path in paths if ROOT / path != Path(__file__)}


def numbers(citation: str) -> Iterator[int]:
    """Each rule that is cited: `1 to 4 and 8` cites five."""
    for first, last in re.findall(rf"(\d+)(?:{_GAP}to{_GAP}(\d+))?", citation):
        yield from range(int(first), int(last or first) + 1)


def citations_of_nothing(texts: Mapping[str, str], rules: Iterable[int]) -> list[str]:
    """A line for each citation of a rule that is not among `rules`, of a section, or of a document that is missing."""
    faults = []
    for path, text in texts.items():
        for found in CITATION.finditer(text):
            faults += [f"{_place(path, found)}: no rule {n}" for n in numbers(found[1]) if n not in rules]
        faults += [f"{_place(path, found)}: cites no number: {found[0]!r}" for found in BY_SECTION.finditer(text)]
        for found in DOCUMENT.finditer(text):
            if not any((folder / found[1]).is_file() for folder in (ROOT, (ROOT / path).parent)):
                faults.append(f"{_place(path, found)}: no document {found[1]}")
    return faults


def _place(path: str, found: re.Match[str]) -> str:
    return f"{path}:{found.string.count(chr(10), 0, found.start()) + 1}"


# ---- the page


def sections(page: str) -> list[tuple[int, str]]:
    """Each rule's number, and what stands under its heading."""
    parts = re.split(r"^### (\d+)\. .*$", page, flags=re.MULTILINE)[1:]
    return [
        (int(number), re.split(r"^## ", text, flags=re.MULTILINE)[0])
        for number, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def holders(section: str) -> tuple[list[str], list[tuple[str, str]]]:
    """What the list under a rule names: mutants (in italics), and tests, each with its file."""
    mutants: list[str] = []
    tests: list[tuple[str, str]] = []
    for item in re.findall(r"^- (.*(?:\n  .*)*)", section, re.MULTILINE):
        mutants += [" ".join(name.split()) for name in re.findall(r"\*([^*]+)\*", item)]
        file, *names = re.findall(r"`([^`]+)`", item) or [""]
        tests += [(file, name) for name in names]
    return mutants, tests


@cache
def defined(file: str) -> frozenset[str]:
    """What a test file defines at its top; nothing if it is not there."""
    if not (ROOT / file).is_file():
        return frozenset()
    names: set[str] = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):  # `TestSessions = Sessions.TestCase`
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


def page_faults(page: str) -> list[str]:
    """A line for each: a number out of its order, a rule that nothing holds, a test or mutant that is not there, and a
    mutant that stands under no rule or under two.
    """
    found = sections(page)
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        return [f"rules are not numbered 1, 2, 3 …: {[number for number, _ in found]}"]
    faults = []
    named: Counter[str] = Counter()
    for number, section in found:
        mutants, tests = holders(section)
        named.update(mutants)
        if not tests:
            faults.append(f"rule {number}: no test holds it")
        faults += [f"rule {number}: no mutant {name!r}" for name in mutants if name not in MUTANTS]
        faults += [f"rule {number}: no test {file}::{name}" for file, name in tests if name not in defined(file)]
    return faults + [f"under {named[name]} rules: the mutant {name!r}" for name in MUTANTS if named[name] != 1]


# ---- the tests


def test_what_is_cited_is_there() -> None:
    texts = tracked()
    faults = citations_of_nothing(texts, {number for number, _ in sections(PAGE.read_text())})
    assert not faults, "\n".join(faults)
    assert sum(len(CITATION.findall(text)) for text in texts.values()) > 30  # they are still found


def test_each_rule_is_held_by_what_is_there() -> None:
    faults = page_faults(PAGE.read_text())
    assert not faults, "\n".join(faults)


RULE = "### 1. Assignments\n\nText.\n\n- *only what waits is\n  assigned*\n- `tests/shared/test_docs.py`: `{test}`\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("# as rule 99 says", "no rule 99"),
        ("(rules 1,\n    # 2 and 98)", "no rule 98"),
        ("Rules 1 to 3", "no rule 3"),
        ("def test_rule_97_holds() -> None:", "no rule 97"),
        ("(session rules, Tools)", "cites no number"),
        ("see `gone/README.md`", "no document gone/README.md"),
    ],
)
def test_a_citation_of_nothing_is_found(text: str, fault: str) -> None:
    (found,) = citations_of_nothing({"dispatcher/example.py": f"\n{text}\n"}, {1, 2})
    assert found.startswith("dispatcher/example.py:2: ")
    assert fault in found


def test_citations_of_what_is_there_are_no_faults() -> None:
    text = "rule 1, rules 1 and 2; 3 rules, 3 of them new; `README.md`, `policies/README.md`"
    assert not citations_of_nothing({"dispatcher/example.py": text}, {1, 2})


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        (RULE.format(test="test_links_and_paths_exist").replace("# 1.", "# 2."), "not numbered"),
        (RULE.format(test="test_gone"), "no test tests/shared/test_docs.py::test_gone"),
        (RULE.format(test="test_gone").replace("test_docs", "gone"), "no test tests/shared/gone.py::test_gone"),
        (RULE.partition("- ")[0], "rule 1: no test holds it"),
        (RULE.format(test="test_links_and_paths_exist").replace("only what", "whatever"), "no mutant 'whatever"),
        (RULE.format(test="test_links_and_paths_exist"), "under 0 rules: the mutant 'an assignment raises"),
        (RULE.replace("assigned*", "assigned*, *only what waits is assigned*"), "under 2 rules: the mutant"),
    ],
)
def test_a_broken_page_is_found(page: str, fault: str) -> None:
    assert any(fault in found for found in page_faults(page)), page_faults(page)
