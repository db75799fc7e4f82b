"""Where the entries of a TOML file stand, whatever they hold."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policy_tools.lines import places

DOCUMENT = '''
title = "[[policy]]"  # [[policy]]
[[policy]]
name = """
[[policy]]
""" # two lines
phrases = ["a", # [[policy]]
  'b # "', "c",

  """
d""", ['e',
  'f'], { g = 1, h = [2,
  3] }, "i"]
[policy.table]
name = "not ours"

  [[ "policy" ]]
"name" = "\\"]["
empty = [ ]
[other]
[[case]]
[[policy]]'''


def test_lines_of_entries_keys_and_items() -> None:
    tomllib.loads(DOCUMENT.replace("[policy.table]", "[elsewhere]"))  # it is TOML
    first, second, third = places(DOCUMENT, "policy")
    assert (first.line, first.keys) == (3, {"name": 4, "phrases": 7})
    assert first.items["phrases"] == [7, 8, 8, 10, 11, 12, 13]
    assert first.items["name"] == []
    assert (second.line, second.keys, second.items["empty"]) == (17, {"name": 18, "empty": 19}, [])
    assert (third.line, third.keys) == (22, {})
    assert [place.line for place in places(DOCUMENT, "case")] == [21]


# Texts in TOML's four forms, with all that could be taken for something else.
INSIDE = st.text(alphabet="ab [](){}#=,.\\\"'\n", max_size=12)


def written(text: str, form: int) -> str:
    basic = text.replace("\\", "\\\\").replace('"', '\\"')
    if form == 0:
        return f'"{basic}"'.replace("\n", "\\n")
    if form == 1:
        return f'"""{basic}"""'
    if form == 2 and not set(text) & set("'\n"):
        return f"'{text}'"
    if "'''" not in text and not text.endswith("'"):
        return f"'''{text}'''"
    return f'"{basic}"'.replace("\n", "\\n")


VALUES = st.builds(written, INSIDE, st.integers(0, 3))
GAPS = st.sampled_from(["", " ", "\n", "\n\n", " # [[policy]]\n"])
ENTRIES = st.lists(st.tuples(VALUES, st.lists(st.tuples(GAPS, VALUES), max_size=4)), min_size=1, max_size=4)


@given(entries=ENTRIES)
def test_every_entry_and_item_is_found_on_its_line(entries: list[tuple[str, list[tuple[str, str]]]]) -> None:
    text = ""
    expected = []
    for name, items in entries:
        text += "\n"
        heading = text.count("\n") + 1
        text += f"[[policy]]\nname = {name}\nphrases = ["
        lines = []
        for gap, value in items:
            text += gap
            lines.append(text.count("\n") + 1)
            text += value + ","
        text += "]\n"
        expected.append((heading, heading + 1, lines))
    assert len(tomllib.loads(text)["policy"]) == len(entries)
    found = [(place.line, place.keys["name"], place.items["phrases"]) for place in places(text, "policy")]
    assert found == expected
