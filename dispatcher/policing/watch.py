"""The operators' policy files: read at the start, and again on SIGHUP and when they are seen to have changed."""

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from dispatcher.files.document import FileError
from dispatcher.files.watch import FileWatch
from dispatcher.metrics import Metrics
from dispatcher.policies.budget import Quantity
from dispatcher.policies.rules import BudgetPolicy, RuleSet
from dispatcher.policing.load import load

logger = structlog.get_logger()

# What is bounded where there is no file.
BUILT_IN: tuple[Quantity, ...] = ("max_seconds", "max_characters", "max_thought_characters")


class PolicyFiles:
    """path: as `DISPATCHER_POLICIES` has it; None: the built-in rules. use: puts rules in force."""

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        self._path, self._metrics = path, metrics
        self._files = FileWatch(path)
        self._loaded_at = 0.0
        self._errors: list[str] = []
        self._rules = RuleSet(())
        self._reading = asyncio.Lock()

    def load(self) -> RuleSet:
        """The rules to begin with. Raises FileError."""
        self._files.reading()
        # What the program has made until now stays, and the collector need not visit it. Rules do not, nor sessions.
        gc.collect()
        gc.freeze()
        self._took(load(self._path))
        return self._rules

    async def reload(self, use: Callable[[RuleSet], None]) -> None:
        """Read the files now. Broken ones leave the rules in force that there are."""
        async with self._reading:
            self._files.reading()
            try:
                rules = await asyncio.to_thread(load, self._path)
            except FileError as error:
                self._broken([str(fault) for fault in error.faults])
            except Exception as error:
                logger.exception("policies_unreadable")
                self._broken([f"{self._path}: {type(error).__name__}"])
            else:
                self._took(rules)
                use(rules)
                self._metrics.policy_reload_success.set(1)
                logger.info("policies_reloaded", policies=len(rules.policies))

    async def watch(self, use: Callable[[RuleSet], None]) -> None:
        """Read the files whenever they have changed, until cancelled."""
        await self._files.watch(lambda: self.reload(use))

    @property
    def unbounded(self) -> list[Quantity]:
        """What the built-in budget bounds, and the operators' files, which take its place, do not."""
        budgets = [policy for policy in self._rules.policies if isinstance(policy, BudgetPolicy)]
        bounded = {limit.quantity for policy in budgets for limit in policy.limits}
        return [quantity for quantity in BUILT_IN if quantity not in bounded]

    def status(self) -> dict[str, object]:
        """For operators: what is in force, and what is wrong with the files as they are now."""
        return {
            "source": str(self._path) if self._path else None,
            "loaded_at": self._loaded_at,
            "errors": self._errors,
            "notices": [{"policy": policy, "notice": notice} for policy, notice in self._rules.notices],
            "policies": [_summary(policy) for policy in self._rules.policies],
        }

    def _took(self, rules: RuleSet) -> None:
        self._rules, self._loaded_at, self._errors = rules, time.time(), []
        for policy, notice in rules.notices:
            logger.warning("policy_notice", policy=policy, notice=notice)

    def _broken(self, errors: list[str]) -> None:
        self._errors = errors
        self._metrics.policy_reload_success.set(0)
        logger.error("policies_broken", errors="\n".join(errors))


def _summary(policy: msgspec.Struct) -> dict[str, object]:
    """Without what it looks for, and without headers, which hold keys."""
    kind = type(policy).__name__.removesuffix("Policy").lower()
    found: dict[str, object] = {"name": getattr(policy, "name", ""), "kind": getattr(policy, "kind", kind)}
    for name in ("action", "reads", "reason", "mode"):
        if hasattr(policy, name):
            value = getattr(policy, name)
            found[name] = sorted(value) if isinstance(value, frozenset) else value
    return found
