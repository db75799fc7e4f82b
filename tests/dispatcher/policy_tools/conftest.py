"""The verbs run in this process, and configure its logs as a program's."""

import pytest


@pytest.fixture(autouse=True)
def _logs(logs_restored: None) -> None:
    """With each test that ends."""
