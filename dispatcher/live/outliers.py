"""Which Commanders fail where others do not: they get less, then none for a while.

Outlier ejection as Envoy has it, with the names and the numbers of its `outlier_detection` where no reason is given:
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier
"""

from collections.abc import Collection

from dispatcher.core.log import CommanderName

CONSECUTIVE_FAILURES = 5  # `consecutive_5xx`
BASE_EJECTION_SECONDS = 30.0  # `base_ejection_time`; times the ejections since it last served one well
MAX_EJECTION_SECONDS = 300.0  # `max_ejection_time`
MAX_EJECTION_PERCENT = 50  # of the Commanders, one at least. Envoy: 10, of many hosts; here are a few


class _Standing:
    def __init__(self) -> None:
        self.failures = 0  # in a row
        self.ejections = 0  # since it last served one well
        self.ejected = False


class Outliers:
    """By Commander. Who calls it times the ejections."""

    def __init__(self) -> None:
        self._standings: dict[CommanderName, _Standing] = {}

    def failures(self, commander: CommanderName) -> int:
        """In a row, up to now."""
        standing = self._standings.get(commander)
        return standing.failures if standing else 0

    def ejected(self, commander: CommanderName) -> bool:
        """It is to get nothing."""
        standing = self._standings.get(commander)
        return bool(standing and standing.ejected)

    def served(self, commander: CommanderName) -> None:
        """A session of it has ended well."""
        if not self.ejected(commander):
            self._standings.pop(commander, None)

    def failed(self, commander: CommanderName, others: Collection[CommanderName]) -> float:
        """A session of it has failed, or was lost by it. others: all that are connected beside it.

        For how many seconds it is ejected now; 0: it is not, or was already.
        """
        standing = self._standings.setdefault(commander, _Standing())
        standing.failures += 1
        if standing.ejected or standing.failures < CONSECUTIVE_FAILURES or not self._stands_out(others):
            return 0
        standing.ejected = True
        standing.ejections += 1
        return min(BASE_EJECTION_SECONDS * standing.ejections, MAX_EJECTION_SECONDS)

    def _stands_out(self, others: Collection[CommanderName]) -> bool:
        """Where all fail, their provider does, or one user's prompts do: nothing is gained without this one."""
        ejected = sum(map(self.ejected, others))
        if ejected + 1 > max(1, (len(others) + 1) * MAX_EJECTION_PERCENT // 100):
            return False
        return any(self.failures(each) <= CONSECUTIVE_FAILURES // 2 for each in others if not self.ejected(each))

    def back(self, commander: CommanderName) -> None:
        """Its ejection is over. One more failure ejects it again, for longer."""
        standing = self._standings[commander]
        standing.ejected, standing.failures = False, CONSECUTIVE_FAILURES - 1

    def forget(self, commander: CommanderName) -> None:
        """It is not connected any more; an ejection stays."""
        if not self.ejected(commander):
            self._standings.pop(commander, None)
