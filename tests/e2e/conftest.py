"""What is tested here starts the programs as their users do: it costs seconds each, and has a target of its own."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # all that was collected, wherever it stands
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slow)
