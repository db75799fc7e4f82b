import gc
from collections.abc import Sequence
from pathlib import Path

import pytest

from dispatcher.files.document import FileError
from dispatcher.policies.automaton import Automaton
from dispatcher.policies.budget import Limit
from dispatcher.policies.matches import CHANNELS, Rule
from dispatcher.policies.questions import AskedPolicy
from dispatcher.policies.repeats import Repeats
from dispatcher.policies.rules import BudgetPolicy, PatternsPolicy, PhrasesPolicy
from dispatcher.policies.tool_rules import ToolSelector, ToolsPolicy
from dispatcher.policing.load import load

KINDS = '"phrases", "patterns", "budget", "tools", "plugin", "http"'

BIRDS = 'kind = "plugin"\nuse = "tests.dispatcher.policing.asked_plugins:no_birds"'

GOOD = """
[[policy]]
name = "project names"
kind = "phrases"
phrases = ["Project Nightingale", "夜莺计划"]
action = "stop"
reads = ["content", "thoughts"]
reason = "RiskControl"

[[policy]]
name = "animals"
kind = "phrases"
phrases = ["dog"]
words = true
action = "redact"
replacement = "<animal>"
reads = ["prompt", "results"]

[[policy]]
name = "limits"
kind = "budget"
max_seconds = 120
max_characters = 1000
max_thought_characters = 2000
max_tool_calls = 0
max_repeats = 5
repeat_length = 30
reason = "Timeout"

[[policy]]
name = "calls"
kind = "tools"
allow = ["search", {tool = "fetch", argument = "url", pattern = 'https://example\\.com/.*'}]
deny = [{tool = "search", pattern = "(?i)secret"}]
action = "redact"
"""


def written(folder: Path, text: str, name: str = "rules.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def errors(path: Path) -> list[str]:
    with pytest.raises(FileError) as raised:
        load(path)
    assert str(raised.value) == "; ".join([str(fault) for fault in raised.value.faults])
    return [str(fault) for fault in raised.value.faults]


def test_a_file(tmp_path: Path) -> None:
    assert load(written(tmp_path, GOOD)).policies == (
        PhrasesPolicy(
            "project names", ("Project Nightingale", "夜莺计划"), frozenset({"content", "thoughts"}), "RiskControl"
        ),
        PhrasesPolicy(
            "animals",
            ("dog",),
            frozenset({"prompt", "results"}),
            action="redact",
            replacement="<animal>",
            words=True,
        ),
        BudgetPolicy(
            "limits",
            (
                Limit("max_seconds", 120, "limits", "Timeout"),
                Limit("max_characters", 1000, "limits", "Timeout"),
                Limit("max_thought_characters", 2000, "limits", "Timeout"),
                Limit("max_tool_calls", 0, "limits", "Timeout"),
            ),
            Repeats(5, 30, Rule("limits", "stop", "max_repeats = 5 exceeded", "Timeout")),
        ),
        ToolsPolicy(
            "calls",
            (ToolSelector("search"), ToolSelector("fetch", "url", r"https://example\.com/.*")),
            (ToolSelector("search", "", "(?i)secret"),),
            action="redact",
        ),
    )


def test_what_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, '[[policy]]\nname = "p"\nkind = "phrases"\nphrases = ["x"]\n[[tool]]\nname = "search"')
    assert load(path).policies == (PhrasesPolicy("p", ("x",), frozenset({"content", "arguments"}), "PolicyViolation"),)


def test_a_folder(tmp_path: Path) -> None:
    written(tmp_path, '[[policy]]\nname = "b"\nkind = "budget"\nmax_seconds = 0.5', "2.toml")
    written(tmp_path, '[[policy]]\nname = "a"\nkind = "budget"\nmax_seconds = 1', "1.toml")
    written(tmp_path, "not a policy", "README")
    assert [policy.name for policy in load(tmp_path).policies] == ["a", "b"]


def test_the_rules_built_in() -> None:
    gate = load(None).gate(1000.0)
    assert gate.deadline == 1600.0
    release = gate.content("x" * 200_001, 1001.0)
    assert len(release.text) == 200_000
    assert release.violation is not None
    assert release.violation.reason == "PolicyViolation"
    violation = load(None).gate(1000.0).overdue(1600.0)
    assert violation is not None
    assert violation.reason == "Timeout"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ('kind = "phrase"', f"unknown kind 'phrase'; kinds are {KINDS}"),
        ('kind = ["phrases"]', f"unknown kind ['phrases']; kinds are {KINDS}"),
        ('phrases = ["x"]', f"`kind` is missing; kinds are {KINDS}"),
        ('kind = "phrases"\nphrases = []', "`phrases` has to be a list of texts that is not empty"),
        ('kind = "phrases"', "`phrases` has to be a list of texts that is not empty"),
        ('kind = "phrases"\nphrases = ["x", ""]', "phrase 2 is empty"),
        ('kind = "phrases"\nphrases = ["\\u200B\\u00AD"]', "phrase 1 has only characters that are ignored"),
        (
            'kind = "phrases"\nphrases = ["a", "\\u0301b"]',
            "phrase 2 begins with a combining mark, which has to stand on a character",
        ),
        (
            'kind = "phrases"\nphrases = ["a"]\naccents = "none"',
            'unknown accents \'none\'; accents are "any", "exact"',
        ),
        ('kind = "phrases"\nphrases = [1]', "phrase 1 is not a text"),
        ('kind = "phrases"\nphrases = ["x"]\nphrase = 1', 'unknown key "phrase" for kind "phrases"'),
        (
            'kind = "phrases"\nphrases = ["x"]\nreads = []',
            '`reads` has to be a list of some of "content", ',
        ),
        ('kind = "phrases"\nphrases = ["x"]\nreads = ["contents"]', "cannot read 'contents'; `reads` takes "),
        ('kind = "phrases"\nphrases = ["x"]\nreads = [["a"]]', "cannot read ['a']; `reads` takes "),
        ('kind = "phrases"\nphrases = ["x"]\nwords = 1', "`words` has to be true or false"),
        ('kind = "phrases"\nphrases = ["x"]\naction = "halt"', "unknown action 'halt'; actions are \"stop\", "),
        ('kind = "phrases"\nphrases = ["x"]\naction = ["stop"]', "unknown action ['stop']; actions are "),
        (
            'kind = "phrases"\nphrases = ["x"]\naction = "redact"\nreplacement = "\\u200B "',
            "`replacement` has to be a text that can be seen",
        ),
        ('kind = "phrases"\nphrases = ["x"]\nreplacement = "y"', '`replacement` is for action "redact"'),
        ('kind = "budget"\nmax_seconds = 1\naction = "observe"', "a budget can only stop"),
        ('kind = "phrases"\nphrases = ["x"]\nreason = "Bad"', "unknown reason 'Bad'; reasons are \"PolicyViolation\""),
        ('kind = "phrases"\nphrases = ["x"]\nreason = ["Timeout"]', "unknown reason ['Timeout']; reasons are "),
        ('kind = "phrases"\nphrases = ["x"]\n"a\\nb" = 1', 'unknown key "a\\nb" for kind "phrases"'),
        ('kind = "patterns"', "`patterns` has to be a list of texts that is not empty"),
        ('kind = "patterns"\npatterns = ["a", "["]', "pattern 2 does not compile: unterminated "),
        ('kind = "patterns"\npatterns = ["(a)\\\\1"]', "pattern 1 has a back-reference, which cannot be decided "),
        ('kind = "patterns"\npatterns = ["a*"]', "pattern 1 can match nothing at all"),
        (
            'kind = "patterns"\npatterns = ["a", "a{1000}"]',
            "pattern 2 costs too much: a text can make it stand at 251 places at once, beyond 250",
        ),
        (
            'kind = "tools"\ndeny = [{tool = "t", argument = "q", pattern = "a{1000}"}]',
            "`deny` entry 1: the pattern costs too much: a text can make it stand at 251 places at once, beyond 250",
        ),
        (
            'kind = "patterns"\npatterns = ["\\u200B\\\\["]',
            "pattern 1 asks for U+200B, which is not seen, and so never matches",
        ),
        (
            'kind = "patterns"\npatterns = ["x[\\\\u200b-\\\\u200d]"]',
            "pattern 1 asks for U+200B, which is not seen, and so never matches",
        ),
        ('kind = "patterns"\npatterns = [""]', "pattern 1 is empty"),
        ('kind = "patterns"\npatterns = ["a{9}"]\ncap = 8', "pattern 1 matches 9 characters or more, beyond `cap`"),
        ('kind = "patterns"\npatterns = ["a"]\ncap = 0', "`cap` has to be a whole number, 1 to 100000"),
        ('kind = "patterns"\npatterns = ["a"]\nbeyond_cap = "go"', "unknown beyond_cap 'go'; beyond_caps are "),
        ('kind = "patterns"\npresets = ["mail"]', "unknown preset 'mail'; presets are \"email\", "),
        ('kind = "patterns"\npresets = [1]', "preset 1 is not a text"),
        ('kind = "patterns"\npatterns = ["a"]\nwords = true', 'unknown key "words" for kind "patterns"'),
        ('kind = "plugin"', "`use` has to be a text that is not empty"),
        ('kind = "plugin"\nuse = "nowhere:x"', "`use`: no module 'nowhere' (looked in "),
        (
            'kind = "plugin"\nuse = "tests.dispatcher.policing.asked_plugins:x"',
            "`use`: module 'tests.dispatcher.policing.asked_plugins' has ",
        ),
        (
            'kind = "plugin"\nuse = "tests.dispatcher.policing.asked_plugins:not_async"',
            "`use`: tests.dispatcher.policing.asked_plugins:not_async is not an async callable",
        ),
        (f"{BIRDS}\nmode = 'gat'", 'unknown mode \'gat\'; modes are "gate", "observer"'),
        (f"{BIRDS}\ntimeout_seconds = 0", "`timeout_seconds` has to be a number above 0"),
        (f"{BIRDS}\non_failure = 'go'", "unknown on_failure 'go'"),
        (f"{BIRDS}\noverlap = -1", "`overlap` has to be a whole number, 0 to 8000"),
        (f"{BIRDS}\nmode = 'observer'\naction = 'redact'", "an observer cannot redact: its text has gone on"),
        (f"{BIRDS}\nurl = 'http://a'", 'unknown key "url" for kind "plugin"'),
        ('kind = "http"', "`url` has to be a text that is not empty"),
        ('kind = "http"\nurl = "ftp://a"', "`url` has to be http(s)://"),
        ('kind = "http"\nurl = "http://"', "`url` has to be http(s)://"),
        ('kind = "http"\nurl = "http://a"\nheaders = 1', "`headers` has to be a table"),
        ('kind = "http"\nurl = "http://a"\nheaders = {a = 1}', 'header "a" cannot be sent'),
        ('kind = "http"\nurl = "http://a"\nheaders = {"a b" = "x"}', 'header "a b" cannot be sent'),
        (
            'kind = "http"\nurl = "http://a"\nheaders = {a = "$NOT_SET_ANYWHERE"}',
            'header "a" cannot be sent: the variable NOT_SET_ANYWHERE is not set',
        ),
        ('kind = "http"\nurl = "http://a"\nparameters = []', "`parameters` has to be a table"),
        ('kind = "budget"', 'a budget needs one of "max_seconds", "max_characters", '),
        ('kind = "budget"\nmax_repeats = 0', "`max_repeats` has to be a whole number, 1 to 100"),
        ('kind = "budget"\nmax_seconds = 1\nrepeat_length = 5', "`repeat_length` is for `max_repeats`"),
        ('kind = "tools"', "a policy of tools needs `allow` or `deny`"),
        ('kind = "tools"\nallow = []', "`allow` has to be a list of tools that is not empty"),
        ('kind = "tools"\ndeny = ["a", 1]', "`deny` entry 2 has to be a tool's name, or {tool, argument?, pattern?}"),
        ('kind = "tools"\ndeny = [{argument = "a"}]', "`deny` entry 1 has to be a tool's name, or "),
        ('kind = "tools"\ndeny = [{tool = "a", arg = "b"}]', "`deny` entry 1 has to be a tool's name, or "),
        ('kind = "tools"\ndeny = [{tool = "a", pattern = "["}]', "`deny` entry 1: the pattern does not compile: "),
        ('kind = "tools"\ndeny = [{tool = "a", pattern = ".*"}]', "`deny` entry 1: the pattern can match nothing"),
        ('kind = "budget"\nmax_seconds = 0', "`max_seconds` has to be a number above 0"),
        ('kind = "budget"\nmax_seconds = inf', "`max_seconds` has to be a number above 0"),
        ('kind = "budget"\nmax_seconds = true', "`max_seconds` has to be a number above 0"),
        ('kind = "budget"\nmax_characters = 1.5', "`max_characters` has to be a whole number, 0 or more"),
        ('kind = "budget"\nmax_tool_calls = -1', "`max_tool_calls` has to be a whole number, 0 or more"),
        ('kind = "budget"\nmax_seconds = 1\nreads = ["content"]', 'unknown key "reads" for kind "budget"'),
    ],
)
def test_what_is_wrong_is_named_with_file_entry_and_reason(tmp_path: Path, lines: str, reason: str) -> None:
    first = '[[policy]]\nname = "first"\nkind = "budget"\nmax_seconds = 1'
    path = written(tmp_path, f'{first}\n[[policy]]\nname = "p"\n{lines}')
    (error,) = errors(path)
    assert error.startswith(f'{path}: policy 2 "p": {reason}')
    assert "\n" not in error


def test_patterns(tmp_path: Path) -> None:
    text = """
    [[policy]]
    name = "numbers"
    kind = "patterns"
    patterns = ['\\d{4}', 'a[^b]*b', 'x.{1,40}y']
    presets = ["email", "iban"]
    cap = 40
    beyond_cap = "release"
    action = "redact"
    """
    rules = load(written(tmp_path, text))
    (policy,) = rules.policies
    assert policy == PatternsPolicy(
        "numbers", (r"\d{4}", "a[^b]*b", "x.{1,40}y"), ("email", "iban"), 40, "release", action="redact", places=85
    )
    more = "can match more than 40 characters (`cap`); what is undecided by then is released"
    assert rules.notices == (("numbers", f"pattern 2 {more}"), ("numbers", f"pattern 3 {more}"))
    observed = text.replace('"redact"', '"observe"')
    assert load(written(tmp_path, observed)).notices == ()
    (notice,) = load(written(tmp_path, '[[policy]]\nname = "p"\nkind = "patterns"\npatterns = ["a+b"]')).notices
    assert notice[1].endswith("what is undecided by then stops the session")


def test_policies_that_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDRAIL_KEY", "s3cret")
    text = """
    [[policy]]
    name = "birds"
    kind = "plugin"
    use = "tests.dispatcher.policing.asked_plugins:no_birds"
    mode = "observer"
    timeout_seconds = 0.5
    on_failure = "release"
    reads = ["content", "thoughts", "prompt"]
    reason = "RiskControl"

    [[policy]]
    name = "guardrail"
    kind = "http"
    url = "http://127.0.0.1:8000/"
    headers = {x-api-key = "$GUARDRAIL_KEY", x-team = "birds"}
    parameters = {language = "en", thresholds = [0.5]}
    overlap = 40
    action = "redact"
    replacement = "<bird>"

    [[policy]]
    name = "other"
    kind = "http"
    url = "https://guard.example/x/beta/litellm_basic_guardrail_api"
    """
    assert load(written(tmp_path, text)).policies == (
        AskedPolicy(
            "birds",
            "plugin",
            "tests.dispatcher.policing.asked_plugins:no_birds",
            "observer",
            0.5,
            "release",
            reads=frozenset({"content", "thoughts", "prompt"}),
            reason="RiskControl",
        ),
        AskedPolicy(
            "guardrail",
            "http",
            "http://127.0.0.1:8000/beta/litellm_basic_guardrail_api",
            overlap=40,
            action="redact",
            replacement="<bird>",
            headers=(("x-api-key", "s3cret"), ("x-team", "birds")),
            parameters_json='{"language": "en", "thresholds": [0.5]}',
        ),
        AskedPolicy("other", "http", "https://guard.example/x/beta/litellm_basic_guardrail_api"),
    )


def test_all_errors_at_once(tmp_path: Path) -> None:
    first = written(
        tmp_path,
        '[[policy]]\nkind = "x"\n[[policy]]\nname = "p"\nkind = "phrases"\nphrases = ["", 2]\nkey = 1\n[[policies]]',
        "1.toml",
    )
    second = written(tmp_path, '[[policy]]\nname = "p"\nkind = "budget"\nmax_seconds = 1', "2.toml")
    third = written(tmp_path, "[[policy]\n", "3.toml")
    assert errors(tmp_path) == [
        f'{first}: unknown key "policies"',
        f"{first}: policy 1: `name` has to be a text that is not empty",
        f"{first}: policy 1: unknown kind 'x'; kinds are {KINDS}",
        f'{first}: policy 2 "p": unknown key "key" for kind "phrases"',
        f'{first}: policy 2 "p": phrase 1 is empty',
        f'{first}: policy 2 "p": phrase 2 is not a text',
        f'{second}: policy 1 "p": its name is taken by {first}: policy 2',
        f"{third}: Expected ']]' at the end of an array declaration (at line 1, column 9)",
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert errors(tmp_path) == [f"{tmp_path}: no *.toml file in this folder"]
    missing = tmp_path / "missing.toml"
    assert errors(missing) == [f"{missing}: No such file or directory"]
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "\xe9"')
    assert errors(latin) == [f"{latin}: not UTF-8"]
    deep = written(tmp_path, f"policy = {'[' * 5_000}", "deep.toml")
    assert errors(deep) == [f"{deep}: values stand too deep in each other"]
    assert errors(written(tmp_path, "policy = 1", "number.toml")) == [
        f"{tmp_path}/number.toml: policies are written as [[policy]]"
    ]
    assert errors(written(tmp_path, "policy = [1]", "list.toml")) == [f"{tmp_path}/list.toml: policy 1: is not a table"]
    assert errors(written(tmp_path, "[[policy]]", "empty.toml")) == [
        f"{tmp_path}/empty.toml: policy 1: `name` has to be a text that is not empty",
        f"{tmp_path}/empty.toml: policy 1: `kind` is missing; kinds are {KINDS}",
    ]


def test_phrases_are_compiled_once_and_without_looking_for_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[int, bool]] = []

    class Counting(Automaton):
        def __init__(self, phrases: Sequence[str], words: bool = False, exact: bool = False) -> None:
            compiled.append((len(phrases), gc.isenabled()))
            super().__init__(phrases, words, exact)

    monkeypatch.setattr("dispatcher.policies.rules.Automaton", Counting)
    reads = ", ".join(f'"{channel}"' for channel in CHANNELS)
    (tmp_path / "rules.toml").write_text(
        f'[[policy]]\nname = "a"\nkind = "phrases"\nphrases = ["one", "two"]\nreads = [{reads}]\n'
    )
    rules = load(tmp_path / "rules.toml")
    assert compiled == [(2, False)]
    assert gc.isenabled()
    for channel in CHANNELS:
        assert rules.readers(channel) == ("a",)
