"""The access rules while the server runs: read at the start, and again on SIGHUP and when their file has changed."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from dispatcher.access.issuers import Issuers
from dispatcher.access.load import load
from dispatcher.access.rules import AccessRules, Caller, UnknownCaller, bearer, identify
from dispatcher.core.tenant_limits import TenantLimit
from dispatcher.files.document import FileError
from dispatcher.files.watch import FileWatch
from dispatcher.metrics import Metrics

logger = structlog.get_logger()

OPEN = "open"  # as a setting: who reaches an edge may use it


class Access:
    """rules: what is in force; None: whoever reaches an edge may use it."""

    def __init__(self, rules: AccessRules | None, issuers: Issuers | None = None) -> None:
        self.rules, self._issuers = rules, issuers

    def limit_of(self, tenant: str) -> TenantLimit | None:
        """The first that fits."""
        return next((limit for limit in self.rules.limits if limit.fits(tenant)), None) if self.rules else None

    async def identify(self, rules: AccessRules, shown: Sequence[bytes], names: Iterable[str], now: float) -> Caller:
        """As `dispatcher.access.rules.identify`, and by tokens of the issuers."""
        try:
            return identify(rules, shown, names, now)
        except UnknownCaller:
            caller = await self._issuers.caller(bearer(shown)) if shown and self._issuers else None
            if not caller:
                raise
            return caller


class AccessFile(Access):
    """setting: as `DISPATCHER_ACCESS` has it. Raises FileError where its file is wrong."""

    def __init__(self, setting: str | None, metrics: Metrics) -> None:
        self.said = setting is not None
        self._path = Path(setting) if setting not in (None, OPEN) else None
        self._metrics = metrics
        self._watch = FileWatch(self._path)
        self._reading = asyncio.Lock()
        self._watch.reading()
        rules = load(self._path, self._watch.reading_too) if self._path else None
        self._named = Issuers(rules.issuers if rules else (), metrics)
        super().__init__(rules, self._named)

    async def close(self) -> None:
        await self._named.close()

    async def reload(self) -> None:
        """Read the file now. A broken one leaves the rules in force that there are."""
        if self._path is None:
            return
        async with self._reading:
            self._watch.reading()
            try:
                rules = await asyncio.to_thread(load, self._path, self._watch.reading_too)
            except FileError as error:
                self._metrics.access_reload_success.set(0)
                logger.error("access_broken", errors="\n".join(map(str, error.faults)))  # noqa: TRY400 # the operator's
            else:
                self.rules = rules
                await self._named.use(rules.issuers)
                self._metrics.access_reload_success.set(1)
                logger.info(
                    "access_reloaded",
                    keys=len(rules.keys),
                    certificates=len(rules.certificates),
                    issuers=len(rules.issuers),
                )

    async def watch(self) -> None:
        """Read the file whenever it has changed, until cancelled."""
        await self._watch.watch(self.reload)
