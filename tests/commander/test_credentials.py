"""What the Commander shows, and when it shows nothing."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from structlog.testing import capture_logs

from commander.credentials import ClientTls, Credentials, is_local
from shared.errors import ConfigError
from tests.certificates import Authority

SECRET = SecretStr("mst_secret")


@pytest.mark.parametrize(
    "target",
    ["localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "dns:///localhost:1", "dns:127.0.0.1:1", "unix:/a",
     "unix:///a", "ipv4:127.0.0.1:1", "ipv6:[::1]:1", "dns:///[::1]:1", "unix-abstract:a"],
)  # fmt: skip
def test_what_is_on_this_machine(target: str) -> None:
    assert is_local(target)
    assert Credentials(target, token=SECRET).metadata() == (("authorization", "Bearer mst_secret"),)


@pytest.mark.parametrize(
    "target",
    ["example:1", "10.0.0.1:1", "localhost.example:1", "dns:///dispatcher:1", "127.0.0.1.example:1", "[::2]:1",
     "ipv4:127.0.0.1:1,10.0.0.1:1", "dns://127.0.0.1/example:1", "localhost:1,example:1", "xds:///localhost", ""],
)  # fmt: skip
def test_nothing_is_shown_to_others_in_the_clear(target: str, tmp_path: Path) -> None:
    assert not is_local(target)
    with pytest.raises(ConfigError, match=r"^COMMANDER_TOKEN: would go to .* in the clear; set COMMANDER_TLS__CA"):
        Credentials(target, token=SECRET)
    with pytest.raises(ConfigError, match="in the clear"):
        Credentials(target, token_file=tmp_path / "token")
    authority = Authority(tmp_path)
    assert Credentials(target, ClientTls(ca=str(authority.ca)), SECRET).metadata()


def test_a_tokens_file_is_read_for_each_stream(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    credentials = Credentials("localhost:1", token_file=file)
    file.write_text("two\n")
    assert credentials.metadata() == (("authorization", "Bearer two"),)
    file.unlink()
    with capture_logs() as logs:
        assert credentials.metadata() == (("authorization", "Bearer two"),)
    assert [each["event"] for each in logs] == ["token_unreadable"]


@pytest.mark.parametrize("content", ["", "two words", "two\nlines", "ü"])
def test_what_is_no_token(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match=r"^COMMANDER_TOKEN_FILE: "):
        Credentials("localhost:1", token_file=tmp_path / "token")
    if content:
        with pytest.raises(ConfigError, match=r"^COMMANDER_TOKEN: ") as raised:
            Credentials("localhost:1", token=SecretStr(content))
        assert content not in str(raised.value)


def test_one_of_the_two(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of them"):
        Credentials("localhost:1", token=SECRET, token_file=tmp_path / "token")


@pytest.mark.parametrize("given", [{"cert": "a"}, {"key": "a"}, {"server_name": "a"}, {"cert": "a", "key": "b"}])
def test_halves_of_tls_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"have to be given together|has to be given too"):
        ClientTls.model_validate(given)


def test_changed_files_make_another_channel_and_broken_ones_do_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("own")
    credentials = Credentials("example:1", ClientTls(ca=str(authority.ca), cert=own.cert, key=own.key))
    assert credentials.channel()
    assert not credentials.changed()
    own.key.write_text("broken")
    with capture_logs() as logs:
        assert not credentials.changed()
    assert [each["event"] for each in logs] == ["tls_reload_failed"]
    authority.issue("own")
    assert credentials.changed()
    assert not credentials.changed()


def test_files_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^COMMANDER_TLS__…: {tmp_path}/none.pem: no such file"):
        Credentials("example:1", ClientTls(ca=str(tmp_path / "none.pem")))
