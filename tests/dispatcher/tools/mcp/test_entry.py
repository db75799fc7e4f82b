"""The keys of `[[toolset]]` entries of kind `mcp`."""

from pathlib import Path

import pytest

from dispatcher.files.document import FileError
from dispatcher.tools.load import load

URL = 'url = "https://docs.example/mcp"'


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("", "either `url` or `command`"),
        (f'{URL}\ncommand = ["server"]', "either `url` or `command`"),
        ('url = "ftp://docs.example"', "`url`: "),
        ('url = "https://docs.example/{page}"', "`url` takes no arguments"),
        (f"{URL}\nforward_token = true", "a server's session is many users'"),
        (f'{URL}\nheaders = {{ Last-Event-ID = "${{user.subject}}" }}', "is the protocol's own to send"),
        (f'{URL}\nheaders = {{ X-User = "u-${{user.subject}}" }}', "is written ${env:NAME} or ${file:PATH}"),
        (f'{URL}\nheaders = {{ Mcp-Session-Id = "1" }}', '`headers`: "Mcp-Session-Id" is the protocol\'s own to send'),
        (f'{URL}\nheaders = {{ Authorization = "Bearer ${{env:NOT_SET}}" }}', "the variable NOT_SET is not set"),
        (f'{URL}\nenv = {{ KEY = "value" }}', "`env` is for `command`"),
        ('command = ["server"]\nprivate = true', "`private` is for `url`"),
        ("command = []", "`command` has to be a list of texts"),
        ('command = ["server", "a\\u0000b"]', "part 2 has a NUL"),
        ('command = ["server"]\nenv = { "A=B" = "value" }', '`env`: "A=B" cannot be set so'),
        ('command = ["server"]\nenv = { KEY = 3 }', '`env`: "KEY" is not a text'),
        (f"{URL}\nspec = 'x'", 'unknown key "spec" for kind "mcp"'),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, keys: str, fault: str) -> None:
    file = tmp_path / "tools.toml"
    file.write_text(f'[[toolset]]\nname = "docs"\nkind = "mcp"\n{keys}\n')
    with pytest.raises(FileError) as error:
        load(file)
    assert any(fault in str(found) for found in error.value.faults), [str(found) for found in error.value.faults]


def test_secrets_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCS_TOKEN", "s3cret")
    file = tmp_path / "tools.toml"
    file.write_text(
        f'[[toolset]]\nname = "docs"\nkind = "mcp"\n{URL}\n'
        'headers = { Authorization = "Bearer ${env:DOCS_TOKEN}" }\n'
        '[[toolset]]\nname = "files"\nkind = "mcp"\ncommand = ["server"]\nenv = { TOKEN = "${env:DOCS_TOKEN}" }\n'
    )
    loaded = load(file)
    assert len(loaded.toolsets) == 2
    shown = repr(loaded) + "".join(repr(vars(given.toolset)) for given in loaded.toolsets.values())
    assert "s3cret" not in shown
