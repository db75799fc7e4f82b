import re
import tomllib
from pathlib import Path

import pytest

from commander import cli as commander_cli
from dispatcher.verbs import main as dispatcher_cli

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(("program", "main"), [("dispatcher", dispatcher_cli.main), ("commander", commander_cli.main)])
def test_both_programs_say_their_version(program: str, main, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"{program} {PROJECT['version']}\n")
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["version"])
