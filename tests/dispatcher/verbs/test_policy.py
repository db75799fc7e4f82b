"""`dispatcher policy check|test`, as an operator runs them."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from dispatcher.files.document import Where
from dispatcher.policies.outcomes import Release, Violation
from dispatcher.policing.load import load
from dispatcher.policy_tools import cases, trials
from dispatcher.verbs import main as cli
from dispatcher.verbs import policy as policy_cli

pytestmark = pytest.mark.usefixtures("logs_restored")  # the verb configures its logs as a program's

RULES = """
[[policy]]
name = "names"
kind = "phrases"
phrases = ["Nightingale", "夜莺计划"]
reads = ["content", "arguments", "thoughts", "prompt", "results"]

[[policy]]
name = "mail"
kind = "phrases"
phrases = ["a@b.c"]
action = "redact"
reads = ["content", "arguments", "prompt", "results"]

[[policy]]
name = "words"
kind = "phrases"
phrases = ["cat"]
action = "observe"
words = true

[[policy]]
name = "length"
kind = "budget"
max_characters = 200
"""
GOOD = """
[[case]]
name = "a name"
content = "It is NIGHTIN\\u200bGALE."
stopped = "names"
released = "It is "

[[case]]
content = "夜莺计划"
stopped = true
released = ""

[[case]]
content = "A nightingal. And a cat, whom nobody stops."

[[case]]
content = "to a@b.c, to a@b.c"
released = "to [redacted], to [redacted]"

[[case]]
content = "%s"
stopped = "length"

[[case]]
thoughts = "They ask for Nightingale."
stopped = "names"

[[case]]
thoughts = "a@b.c"

[[case]]
arguments = { to = ["a@b.c"] }
denied = "mail"

[[case]]
arguments = '{"q": "\\u004eightingale"}'
tool = "search"
stopped = "names"

[[case]]
results = [{ page = "of Nightingale" }]
stopped = true

[[case]]
results = "a@b.c"
denied = true

[[case]]
prompt = "Who is Nightingale?"
stopped = "names"

[[case]]
prompt = "Write to a@b.c"
denied = "mail"

[[case]]
prompt = "Write to a@b"
""" % ("x" * 201)


def policy(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    policy_cli.add_arguments(parser)
    return policy_cli.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


# ---- check


def test_right_rules_are_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert policy("check", file) == 0
    out, err = capsys.readouterr()
    first, *channels = out.splitlines()
    assert (first, err) == (f'{file}: right; 4 policies: "names", "mail", "words", "length"', "")
    assert channels[0].split() == ["content", "read", "by", '"names",', '"mail",', '"words"']
    assert channels[1].split() == ["thoughts", "read", "by", '"names"']
    assert len(channels) == 5


ASKED = """
[[policy]]
name = "birds"
kind = "plugin"
use = "tests.dispatcher.policing.asked_plugins:no_birds"
reads = ["content"]
[[policy]]
name = "long"
kind = "patterns"
patterns = ["a+b"]
"""


def test_what_operators_should_know_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.toml").write_text(ASKED)
    assert policy("check", tmp_path / "rules.toml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["content", "read", "by", '"long",', '"birds"']
    assert lines[-1].startswith('  note: "long": pattern 1 can match more than 1000 characters (`cap`); ')


def test_every_error_is_told_with_its_line_and_entry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text(
        '# rules\n\n[[policy]]\nname = "p"\nkind = "phrases"\nphrases = [\n  "one",\n  "",\n  """\ntwo""", 3,\n]\n'
        'reads = ["everything"]\ncolour = "red"\n\n[[policy]]\nname = "p"\nkind = "phrases"\n'
    )
    (tmp_path / "b.toml").write_text('[[policy]]\nname = "q"\nkind = \n')
    (tmp_path / "c.toml").write_text('[[tool]]\nname = "not looked at"\n[[policy]]\nname = "r"\nkind = "magic"\n')
    assert policy("check", tmp_path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    found = [line.removeprefix(f"{tmp_path}/") for line in err.splitlines()]
    assert [line[: line.index(" ")] for line in found] == [
        "a.toml:13:",
        "a.toml:8:",
        "a.toml:10:",
        "a.toml:12:",
        "a.toml:16:",
        "a.toml:15:",
        "b.toml:",
        "c.toml:5:",
    ]
    assert 'a.toml:8: policy 1 "p": phrase 2 is empty' in found
    assert "b.toml: Invalid value (at line 3, column 8)" in found


@pytest.mark.parametrize("verb", ["check", "test"])
def test_a_file_that_is_not_there(tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert policy(verb, tmp_path / "nothing.toml") == 2
    assert capsys.readouterr() == ("", f"{tmp_path}/nothing.toml: No such file or directory\n")


def test_a_file_of_rules_may_hold_cases(file: Path) -> None:
    file.write_text(RULES + GOOD)
    assert len(load(file).policies) == 4


# ---- test


@pytest.mark.parametrize("own", [True, False])
def test_cases_that_are_as_expected(file: Path, tmp_path: Path, own: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if own:
        file.write_text(RULES + GOOD)
        assert policy("test", file) == 0
    else:
        (tmp_path / "cases.toml").write_text(GOOD)
        assert policy("test", file, tmp_path / "cases.toml") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("14 cases in ")
    assert out.endswith(" splits: all as expected\n")
    assert int(out.split()[3].replace(",", "")) > 800


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ('content = "Nightingale"', 'expected: not stopped; got: stopped by "names" (phrase 1 in content)'),
        ('content = "Nightingale"\nstopped = "mail"', 'expected: stopped by "mail"; got: stopped by "names"'),
        ('content = "Nightingal"\nstopped = true', "expected: stopped; got: not stopped"),
        ('content = "a@b.c"', 'expected to be let out: "a@b.c"; got: "[redacted]"'),
        ('content = "I, Nightingale"\nstopped = true\nreleased = "I"', 'to be let out: "I"; got: "I, "'),
        ('arguments = "a@b.c"', 'expected: not denied; got: denied by "mail"'),
        ('results = "fine"\ndenied = "mail"', 'expected: denied by "mail"; got: not denied'),
        ('prompt = "Nightingale"\ndenied = true', "expected: not stopped"),
        ('thoughts = "Nightingale"', "(phrase 1 in thoughts)"),
    ],
)
def test_a_case_that_is_not_as_expected(file: Path, case: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(f"{RULES}\n[[case]]\n{case}\n")
    assert policy("test", file) == 1
    told, split, count = capsys.readouterr().out.splitlines()
    assert told.startswith(f"{file}:{len(RULES.splitlines()) + 2}: case 1: ")
    assert words in told
    assert split.startswith('  split so: "')
    assert count.endswith(": 1 failed")


def test_all_splits_are_tried(file: Path) -> None:
    """Rules that find a phrase only where it comes in one piece are found out."""
    case = cases.Case(Where(file, "case", 1), "content", "so, Nightingale", stopped="names", released="so, ")
    assert trials.tried(load(file), case) == trials.Tried(1 + 14 + 1 + 200, None)

    class Forgetful:
        def asked(self, channel: str) -> list[str]:
            return []

        def questions(self) -> list[str]:
            return []

        held = 0

        def gate(self, started_at: float) -> "Forgetful":
            return self

        def resume(self, decided: int) -> None:
            pass

        def content(self, text: str, at: float) -> Release:
            before, found, _ = text.partition("Nightingale")
            return Release(before, 0, Violation("names", "PolicyViolation") if found else None)

        def end(self, at: float) -> Release:
            return Release("", 0, None)

    forgetful: Any = Forgetful()
    failure = trials.tried(forgetful, case).failure
    assert failure
    assert trials.shown(failure) == '"so, N" | "ightingale"'


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("", "needs exactly one of "),
        ('content = "a"\nprompt = "b"', "needs exactly one of "),
        ("content = 5", "`content` has to be a text"),
        ("content = { a = 1 }", "`content` has to be a text"),
        ("arguments = 5", "`arguments` has to be a text, or a table as its JSON"),
        ('content = "a"\nstopped = 3', "`stopped` has to be a policy's name, true or false"),
        ('content = "a"\ndenied = true', "`denied` is for "),
        ('thoughts = "a"\nreleased = "a"', "`released` has to be a text, and is for content"),
        ('content = "a"\ntool = "search"', "`tool` has to be a name, and is for arguments"),
        ('content = "a"\nexpect = "b"', 'unknown key "expect"'),
    ],
)
def test_a_case_that_makes_no_sense(file: Path, case: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(f'{RULES}\n[[case]]\ncontent = "fine"\n[[case]]\n{case}\n')
    assert policy("test", file) == 2
    out, err = capsys.readouterr()
    assert out == ""
    place, _, told = err.partition(": case 2: ")
    assert int(place.removeprefix(f"{file}:")) > len(RULES.splitlines())
    assert told.startswith(reason)


def test_no_cases(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert policy("test", file) == 2
    assert capsys.readouterr().err == f"{file}: no [[case]] in it\n"


def test_a_policy_that_raises_stops(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.policies.gate.Gate.content", lambda *_: 1 / 0)
    file.write_text(f'{RULES}\n[[case]]\ncontent = "anything"\nstopped = "unknown"\nreleased = ""\n')
    assert policy("test", file) == 0


PLUGIN = """
[[policy]]
name = "decency"
kind = "plugin"
use = "plugin_of_this_test:decent"
reads = ["content", "thoughts", "arguments", "prompt", "results"]

[[case]]
content = "a damned long text, which is tried as a whole"
stopped = "decency"
released = ""

[[case]]
content = "a decent one"

[[case]]
thoughts = "damn"
stopped = true

[[case]]
prompt = "damn"
stopped = true

[[case]]
arguments = ["damn"]
stopped = true

[[case]]
results = "boom"
stopped = "decency"
"""


def test_a_plugin_is_really_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plugin_of_this_test.py").write_text(
        "async def decent(question):\n    assert 'boom' not in question.text\n    return 'damn' not in question.text\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "rules.toml").write_text(PLUGIN)
    assert policy("test", tmp_path / "rules.toml") == 0, capsys.readouterr().out
    out, err = capsys.readouterr()
    assert out == "6 cases in 6 splits: all as expected\n"
    assert '"event": "policy_unavailable"' in err
    assert policy("check", tmp_path / "rules.toml") == 0
    assert 'results    read by "decency"' in capsys.readouterr().out


def test_an_entry_of_a_list_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[policy]]\nname = "p"\nkind = "patterns"\npatterns = [\n  "fine",\n  "(",\n]\n\n'
        '[[policy]]\nname = "t"\nkind = "tools"\ndeny = [\n  "shell",\n  { tool = 5 },\n]\n'
    )
    assert policy("check", rules) == 2
    places = [line.partition(": ")[0].removeprefix(f"{rules}:") for line in capsys.readouterr().err.splitlines()]
    assert places == ["6", "14"]


def test_it_is_a_verb_of_the_program(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["policy", "check", str(file)]) == 0
    assert cli.main(["policy", "check", "nothing.toml"]) == 2
    assert "nothing.toml: No such file" in capsys.readouterr().err
