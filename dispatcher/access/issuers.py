"""The keys of OpenID Connect's issuers while the server runs: fetched when a token needs them, and kept."""

import asyncio
from collections.abc import Iterable

import structlog
from httpx2 import AsyncClient, HTTPError

from dispatcher.access.rules import Caller, IssuerRule
from dispatcher.access.tokens import Keys, caller_by, parse_keys, shown
from dispatcher.metrics import Metrics

logger = structlog.get_logger()

FRESH_SECONDS = 900.0  # after that a key that the issuer has taken back opens nothing any more
UNKNOWN_SECONDS = 60.0  # between two fetches for a `kid` that is not known: anybody can think of one
RETRY_SECONDS = 5.0  # between two tries while the issuer is away, with the old keys or none
FETCH_SECONDS = 5.0
MAX_BYTES = 256 * 1024  # of a JWK set; a hundred RSA keys are a quarter of that


class IssuerKeys:
    """One entry's. Times are the loop's."""

    def __init__(self, rule: IssuerRule, metrics: Metrics) -> None:
        self._rule, self._metrics = rule, metrics
        self._keys: Keys = parse_keys(rule.document, rule.algorithms) if rule.document else {}
        self._read_at = self._tried_at = self._asked_at = -FRESH_SECONDS
        self._away = False  # the last fetch has failed
        self._fetching: asyncio.Task[None] | None = None

    def serves(self, rule: IssuerRule) -> bool:
        """What is known is known for that rule too."""
        before = self._rule
        return (before.jwks, before.algorithms, before.document) == (rule.jwks, rule.algorithms, rule.document)

    async def caller(self, token: bytes, rule: IssuerRule, algorithm: str, kid: str) -> Caller | None:
        """Who shows that token."""
        if not rule.document:
            await self._refresh((kid, algorithm) in self._keys)
        key = self._keys.get((kid, algorithm))
        return caller_by(token, rule, key) if key else None

    async def close(self) -> None:
        if self._fetching:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    async def _refresh(self, known: bool) -> None:
        """Fetch the keys if it is time to, or wait for those who do. Whoever leaves meanwhile does not end that. A key
        that is known and counts waits for nobody: else anybody's thought of a `kid` would make all wait for an issuer
        that is slow.
        """
        now = asyncio.get_running_loop().time()
        if not self._fetching and self._due(known, now):
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch())
        counts = known and (self._away or now - self._read_at < FRESH_SECONDS)
        if self._fetching and not counts:
            await asyncio.wait({self._fetching})

    def _due(self, known: bool, now: float) -> bool:
        if not self._keys or now - self._read_at >= FRESH_SECONDS:
            return now - self._tried_at >= RETRY_SECONDS
        if known or now - self._asked_at < UNKNOWN_SECONDS:
            return False
        self._asked_at = now
        return True

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = parse_keys(await _document(self._rule.jwks), self._rule.algorithms)
        except TimeoutError:
            self._failed(f"no answer within {FETCH_SECONDS:g} s")
        except HTTPError as error:
            self._failed(type(error).__name__)
        except ValueError as error:
            self._failed(str(error))
        else:
            self._read_at, self._away = asyncio.get_running_loop().time(), False
            logger.info("issuer_keys_read", issuer=self._rule.issuer, keys=len({kid for kid, _ in self._keys}))
        finally:
            self._fetching = None

    def _failed(self, reason: str) -> None:
        self._away = True
        self._metrics.issuer_failures.inc()
        logger.error("issuer_keys_failed", issuer=self._rule.issuer, jwks=self._rule.jwks, error=reason)


async def _document(url: str) -> bytes:
    """Raises HTTPError and ValueError. A redirect is not followed: the file says whom to ask."""
    client = await asyncio.to_thread(AsyncClient, timeout=None)  # reads the certificates that are trusted
    plain = {"accept": "application/json", "accept-encoding": "identity"}  # a size that is known before it is unpacked
    async with client, client.stream("GET", url, headers=plain) as response:
        if response.status_code != 200:
            raise ValueError(f"HTTP {response.status_code}")
        received = b""
        async for part in response.aiter_raw():
            received += part
            if len(received) > MAX_BYTES:
                raise ValueError(f"is larger than {MAX_BYTES} bytes")
    return received


class Issuers:
    """Those that the access rules name."""

    def __init__(self, rules: Iterable[IssuerRule], metrics: Metrics) -> None:
        self._metrics = metrics
        self._known = [(rule, IssuerKeys(rule, metrics)) for rule in rules]

    async def use(self, rules: Iterable[IssuerRule]) -> None:
        """From now on these; what is known of one that was there before stays."""
        before = [keys for _, keys in self._known]
        self._known = [(rule, self._keys(rule, before)) for rule in rules]
        kept = {id(keys) for _, keys in self._known}
        for keys in before:
            if id(keys) not in kept:
                await keys.close()

    def _keys(self, rule: IssuerRule, before: list[IssuerKeys]) -> IssuerKeys:
        return next((keys for keys in before if keys.serves(rule)), None) or IssuerKeys(rule, self._metrics)

    async def caller(self, token: bytes) -> Caller | None:
        """Who shows that token: by the first entry for which it is valid. Its issuer and algorithm are looked at before
        anything is fetched or computed.
        """
        if token.count(b".") != 2 or not self._known or not (told := shown(token)):
            return None
        for rule, keys in list(self._known):
            fits = rule.issuer == told.issuer and told.algorithm in rule.algorithms
            if fits and (caller := await keys.caller(token, rule, told.algorithm, told.kid)):
                return caller
        return None

    async def close(self) -> None:
        await self.use(())
