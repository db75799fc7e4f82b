from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from shared.config import (
    Address,
    CommaSeparated,
    Count,
    Seconds,
    Section,
    Settings,
    import_attribute,
    load,
)
from shared.errors import ConfigError


def no_spaces(text: str) -> str:
    if " " in text:
        raise ValueError("must be a name without spaces")
    return text


class Provider(Section):
    base_url: str = "http://localhost"
    api_key: SecretStr | None = None
    tries: Count = 3


class Example(Settings):
    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")
    grace_seconds: Seconds = 20
    takeovers: Annotated[int, Field(ge=0, le=9)] = 2
    address: Address = "127.0.0.1:8080"
    backend: Literal["local", "openai"] = "local"
    name: Annotated[str, AfterValidator(no_spaces)] = "x"
    origins: CommaSeparated = ()
    verbose: bool = False
    openai: Provider = Provider()


class Demanding(Settings):
    model_config = SettingsConfigDict(env_prefix="DEMANDING_")
    key: SecretStr


def test_defaults_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(Example) == Example()
    monkeypatch.setenv("EXAMPLE_GRACE_SECONDS", "1.5")
    monkeypatch.setenv("example_takeovers", "0")
    monkeypatch.setenv("EXAMPLE_ORIGINS", "http://a, http://b,")
    monkeypatch.setenv("EXAMPLE_NAME", "")  # as compose files pass on what is not set
    monkeypatch.setenv("EXAMPLE_OPENAI__API_KEY", "sk-1")
    settings = load(Example)
    assert (settings.grace_seconds, settings.takeovers, settings.name) == (1.5, 0, "x")
    assert settings.origins == ("http://a", "http://b")
    assert settings.openai.api_key is not None
    assert settings.openai.api_key.get_secret_value() == "sk-1"
    assert "sk-1" not in repr(settings)


def test_what_a_compose_file_passes_on_counts_where_it_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_NAME", "image")
    monkeypatch.setenv("EXAMPLE_TAKEOVERS", "1")
    monkeypatch.setenv("EXAMPLE_OPENAI__TRIES", "1")
    monkeypatch.setenv("DOTENV_EXAMPLE_NAME", "")
    monkeypatch.setenv("DOTENV_EXAMPLE_TAKEOVERS", "2")
    monkeypatch.setenv("DOTENV_EXAMPLE_OPENAI__TRIES", "4")
    settings = load(Example)
    assert (settings.name, settings.takeovers, settings.openai.tries) == ("image", 2, 4)
    monkeypatch.setenv("DOTENV_EXAMPLE_TAKEOVERS", "many")
    with pytest.raises(ConfigError, match=r"^EXAMPLE_TAKEOVERS: must be a whole number"):
        load(Example)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("EXAMPLE_GRACE_SECONDS", "abc", "EXAMPLE_GRACE_SECONDS: must be a number above 0, got 'abc'"),
        ("EXAMPLE_GRACE_SECONDS", "0", "EXAMPLE_GRACE_SECONDS: must be a number above 0, got '0'"),
        ("EXAMPLE_GRACE_SECONDS", "nan", "EXAMPLE_GRACE_SECONDS: must be a number above 0, got 'nan'"),
        ("EXAMPLE_GRACE_SECONDS", "inf", "EXAMPLE_GRACE_SECONDS: must be a number above 0, got 'inf'"),
        (
            "example_takeovers",
            "10",
            "example_takeovers: must be a whole number of at least 0 and of at most 9, got '10'",
        ),
        ("EXAMPLE_ADDRESS", "localhost", "EXAMPLE_ADDRESS: must be an address as host:port, got 'localhost'"),
        ("EXAMPLE_BACKEND", "x", "EXAMPLE_BACKEND: must be one of local, openai, got 'x'"),
        ("EXAMPLE_VERBOSE", "perhaps", "EXAMPLE_VERBOSE: must be true or false, got 'perhaps'"),
        ("EXAMPLE_NAME", "a b", "EXAMPLE_NAME: must be a name without spaces"),
        ("EXAMPLE_OPENAI__TRIES", "0", "EXAMPLE_OPENAI__TRIES: must be a whole number of at least 1, got '0'"),
        ("EXAMPLE_OPENAI", '{"tries": "x"}', "EXAMPLE_OPENAI: tries: must be a whole number of at least 1, got 'x'"),
        ("EXAMPLE_OPENAI", '{"colour": 1}', "EXAMPLE_OPENAI: unknown setting 'colour'"),
        ("EXAMPLE_OPENAI", "{", "EXAMPLE_OPENAI: must be JSON, or given as single settings (EXAMPLE_OPENAI__…)"),
        (
            "EXAMPLE_GRACE_SECOND",
            "5",
            "EXAMPLE_GRACE_SECOND: unknown setting; did you mean EXAMPLE_GRACE_SECONDS?",
        ),
        ("EXAMPLE_ZZZ", "5", "EXAMPLE_ZZZ: unknown setting"),
        ("EXAMPLE_PORT", "5", "EXAMPLE_PORT: unknown setting"),
        (
            "EXAMPLE_OPENAI__APIKEY",
            "sk-1",
            "EXAMPLE_OPENAI__APIKEY: unknown setting; did you mean EXAMPLE_OPENAI__API_KEY?",
        ),
        (
            "EXAMPLE_OPENAI__TRIES__MORE",
            "1",
            "EXAMPLE_OPENAI__TRIES__MORE: unknown setting; did you mean EXAMPLE_OPENAI__TRIES?",
        ),
    ],
)
def test_a_wrong_or_unknown_setting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as raised:
        load(Example)
    assert str(raised.value) == line


def test_all_problems_stand_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_GRACE_SECONDS", "-1")
    monkeypatch.setenv("EXAMPLE_BACKEND", "no")
    with pytest.raises(ConfigError, match=r"^EXAMPLE_GRACE_SECONDS: .*; EXAMPLE_BACKEND: .*$"):
        load(Example)


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^DEMANDING_KEY: must be set$"):
        load(Demanding)


def test_passwords_and_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_TAKEOVERS", "redis://user:secret@host")
    monkeypatch.setenv("EXAMPLE_OPENAI", '{"api_key": {"value": "secret"}}')
    with pytest.raises(ConfigError) as raised:
        load(Example)
    assert "EXAMPLE_OPENAI: api_key" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_variables_that_kubernetes_sets_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("EXAMPLE_SERVICE_PORT_HTTP", "8080")
    monkeypatch.setenv("EXAMPLE_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("EXAMPLE_PORT_8080_TCP_ADDR", "10.0.0.1")
    load(Example)


def test_an_attribute_is_found_from_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("work")
    (folder / "my_module_of_test_config.py").write_text("class A:\n    b = 7\n")
    (folder / "broken_of_test_config.py").write_text("raise ValueError('two\\nlines')")
    (folder / "needs_of_test_config.py").write_text("import not_there_of_test_config")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    assert import_attribute("my_module_of_test_config:A.b") == 7
    for reference, reason in {
        "my_module_of_test_config:C": "module 'my_module_of_test_config' has no 'C'",
        "not_there:x": "no module 'not_there' (looked in ",
        "needs_of_test_config:x": "module 'needs_of_test_config' needs 'not_there_of_test_config', which",
        "broken_of_test_config:x": "module 'broken_of_test_config' cannot be imported: ValueError: two lines",
        "no colon": "must be module:attribute, got 'no colon'",
    }.items():
        with pytest.raises(ConfigError) as raised:
            import_attribute(reference)
        assert str(raised.value).startswith(reason)


def test_a_slip_in_an_import_of_ours_is_told_in_the_projects_own_folder_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "slip_of_test_config.py").write_text("from shared.config import NOT_THERE")
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="cannot be imported: ImportError: cannot import name 'NOT_THERE'"):
        import_attribute("slip_of_test_config:x")
