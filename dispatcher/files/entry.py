"""One table of the operators' files while it is checked: typed answers, and every fault named with where it stands."""

import math
from collections.abc import Iterable
from typing import Any, TypeVar

from dispatcher.files.document import Fault, Where, quoted

ChoiceT = TypeVar("ChoiceT", bound=str)


class FileEntry:
    """What is wrong is added to `faults`; what is asked for then gets a harmless answer."""

    def __init__(self, where: Where, table: dict[str, Any], faults: list[Fault]) -> None:
        self.where, self._table, self._faults = where, table, faults
        self._before = len(faults)

    def __contains__(self, key: str) -> bool:
        return key in self._table

    @property
    def faultless(self) -> bool:
        return len(self._faults) == self._before

    def wrong(self, reason: str, key: str = "", item: int = 0) -> None:
        """key, item: what the reason is about, as in `Fault`."""
        self._faults.append(Fault(self.where, reason, key, item))

    def check(self, right: bool, reason: str, key: str = "", item: int = 0) -> None:
        if not right:
            self.wrong(reason, key, item)

    def only(self, keys: Iterable[str], of: str) -> None:
        """No other key may be there. of: what the keys are for."""
        allowed = set(keys)
        for key in self._table:
            self.check(key in allowed, f"unknown key {quoted(key)} for {of}", key)

    def get(self, key: str) -> Any:
        """As it is written; None where it is not."""
        return self._table.get(key)

    def choice(self, key: str, choices: tuple[ChoiceT, ...], default: ChoiceT) -> ChoiceT:
        value = self._table.get(key, default)
        found = next((choice for choice in choices if choice == value), None)
        plural = key if key.endswith("s") else f"{key}s"
        self.check(found is not None, f"unknown {key} {value!r}; {plural} are {listed(choices)}", key)
        return found or default

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._table.get(key, default)
        self.check(isinstance(value, bool), f"`{key}` has to be true or false", key)
        return bool(value)

    def count(self, key: str, default: int, least: int = 0, most: int | None = None) -> int:
        value = self._table.get(key, default)
        right = isinstance(value, int) and not isinstance(value, bool) and value >= least
        right = right and (most is None or value <= most)
        self.check(right, f"`{key}` has to be a whole number, {least} " + (f"to {most}" if most else "or more"), key)
        return value if right else default

    def seconds(self, key: str, default: float) -> float:
        value = self._table.get(key, default)
        right = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        self.check(right, f"`{key}` has to be a number above 0", key)
        return float(value) if right else default

    def table(self, key: str) -> dict[str, Any]:
        value = self._table.get(key, {})
        self.check(isinstance(value, dict), f"`{key}` has to be a table", key)
        return value if isinstance(value, dict) else {}

    def text(self, key: str) -> str:
        value = self._table.get(key)
        right = isinstance(value, str) and bool(value.strip())
        self.check(right, f"`{key}` has to be a text that is not empty", key)
        return str(value) if right else ""

    def texts(self, key: str, one: str) -> list[str]:
        """A list of texts, each called `one` where it is wrong. The answer keeps their places."""
        values = self._table.get(key)
        if not isinstance(values, list) or not values:
            self.wrong(f"`{key}` has to be a list of texts that is not empty", key)
            return []
        for number, value in enumerate(values, 1):
            if not isinstance(value, str):
                self.wrong(f"{one} {number} is not a text", key, number)
            elif not value:
                self.wrong(f"{one} {number} is empty", key, number)
        return [value if isinstance(value, str) else "" for value in values]


def listed(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)
