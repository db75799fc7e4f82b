import importlib

import pytest

from tests.faults.probe import SHORT_LIVED


@pytest.mark.parametrize(("module", "name"), sorted(SHORT_LIVED))
def test_what_is_counted_exists(module, name):
    """A class that was renamed would be counted as none, and no leak of it seen."""
    found = getattr(importlib.import_module(module), name)
    assert (found.__module__, found.__qualname__) == (module, name)
