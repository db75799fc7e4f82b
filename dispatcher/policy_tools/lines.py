"""On which lines the entries of a TOML file stand, and their keys and values; `tomllib` does not tell. Pure.

Only for documents that `tomllib` reads.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_TOKEN = re.compile(
    r'''
    (?P<text> """(?:\\.|[^\\])*?""""{0,2} | \'\'\'.*?\'\'\'\'{0,2} | "(?:\\.|[^"\\])*" | '[^']*' )
  | (?P<comment> \#[^\n]* )
  | (?P<newline> \n )
  | (?P<sign> [\[\]{},=] )
  | (?P<bare> [^\s\[\]{},="'\#]+ )
    ''',
    re.DOTALL | re.VERBOSE,
)


@dataclass
class EntryLines:
    """line: of the entry's heading. keys: of each key that stands in it; items: of the items of its list, by key."""

    line: int
    keys: dict[str, int] = field(default_factory=dict)
    items: dict[str, list[int]] = field(default_factory=dict)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def places(document: str, kind: str) -> list[EntryLines]:
    """Of each `[[kind]]`, in order. What stands in tables of their own beneath it is not looked into."""
    found: list[EntryLines] = []
    inside: EntryLines | None = None
    for statement in _statements(document):
        if statement[0].text == "[":
            doubled = len(statement) > 1 and statement[1].text == "["
            name = "".join(_name(token) for token in statement if token.text not in ("[", "]"))
            inside = None
            if doubled and name == kind:
                inside = EntryLines(statement[0].line)
                found.append(inside)
        elif inside:
            key = _name(statement[0])
            inside.keys[key] = statement[0].line
            inside.items[key] = list(_items(statement))
    return found


def _statements(document: str) -> Iterator[list[_Token]]:
    """Headings and assignments, each as its tokens, comments left out."""
    statement: list[_Token] = []
    depth = 0
    for token in _tokens(document):
        if token.kind == "newline":
            if statement and not depth:
                yield statement
                statement = []
        elif token.kind != "comment":
            depth += (token.text in ("[", "{")) - (token.text in ("]", "}"))
            statement.append(token)
    if statement:
        yield statement


def _tokens(document: str) -> Iterator[_Token]:
    line, counted = 1, 0
    for match in _TOKEN.finditer(document):
        line += document.count("\n", counted, match.start())
        counted = match.start()
        yield _Token(match.lastgroup or "", match[0], line)


def _name(token: _Token) -> str:
    return token.text[1:-1] if token.kind == "text" else token.text


def _items(statement: list[_Token]) -> Iterator[int]:
    """The line of each item, where the value is a list."""
    tokens = iter(statement)
    for token in tokens:
        if token.text == "=":
            break
    depth, begins = 0, False
    for token in tokens:
        opens, closes = token.text in ("[", "{"), token.text in ("]", "}")
        if depth == 0 and token.text != "[":
            return
        if depth == 1 and begins and not closes:
            yield token.line
            begins = False
        begins = begins or depth == 0 or (depth == 1 and token.text == ",")
        depth += opens - closes
