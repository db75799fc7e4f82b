"""One rule at a time is taken out of the real code: a function is put in its stead that differs in one place."""

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """where: `module:function` or `module:Class.function`. old: stands there exactly once."""

    where: str
    old: str
    new: str = ""

    def source(self) -> str:
        """Raises AssertionError where the rule no longer stands there as it did: rewrite this mutant then."""
        source = inspect.getsource(self._place()[2])
        count = source.count(self.old)
        assert count == 1, f"{self.where} holds {count} times what this mutant replaces: {self.old!r}"
        return textwrap.dedent(source.replace(self.old, self.new))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The real function is the changed one meanwhile."""
        owner, name, original = self._place()
        function = textwrap.indent(self.source(), "    ")
        made: dict[str, Any] = {}
        # Inside a function of that parameter, as `super()` looks for `__class__` around its method.
        exec(f"def made(__class__):\n{function}\n    return {name}", original.__globals__, made)  # noqa: S102
        setattr(owner, name, made["made"](owner))
        try:
            yield
        finally:
            setattr(owner, name, original)

    def _place(self) -> tuple[Any, str, Any]:
        module, path = self.where.split(":")
        owner: Any = sys.modules[module]
        *classes, name = path.split(".")
        for each in classes:
            owner = vars(owner)[each]
        return owner, name, vars(owner)[name]
