"""Receipts of sessions that are over, signed where the operator has given a key (`docs/receipts.md`)."""

import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec.structs import replace

from dispatcher.core.entries import as_event
from dispatcher.core.log import Record
from dispatcher.core.receipts import Account, Receipt, Signature, Unfinished, body_of, prompt_of, receipt_of
from dispatcher.gateway import sse
from dispatcher.gateway.errors import HttpError, unknown_session
from dispatcher.store.ports import Store
from shared.errors import ConfigError
from shared.turns import LoopTurn


class ReceiptKey:
    """The operator's private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = key.public_key().public_bytes_raw().hex()

    @classmethod
    def of(cls, file: Path) -> "ReceiptKey":
        """Raises ConfigError, which quotes nothing of the file."""
        try:
            key = load_pem_private_key(file.read_bytes(), password=None)
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror or 'cannot be read'}") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigError(f"{file}: is no private key in PEM without a password") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{file}: must be an Ed25519 key")
        return cls(key)

    def signature(self, body: bytes) -> Signature:
        return Signature("Ed25519", self._public, self._key.sign(body).hex())


async def receipt(store: Store, record: Record, key: ReceiptKey | None) -> Receipt:
    """Raises HttpError 409 while its log may still grow."""
    if not record.head.complete:
        raise _not_over()
    account, turn = Account(record.session_id, prompt_of(record.request)), LoopTurn()
    async for entry in sse.logged(store, record):
        account.take(entry.offset, *as_event(entry))
        await turn.step()
    if account.entries < record.head.offset:
        raise unknown_session()  # it was dropped meanwhile
    try:
        made = receipt_of(record, account)
    except Unfinished:
        raise _not_over() from None
    body = body_of(made)
    signature = key.signature(body) if key else None
    return replace(made, sha256=hashlib.sha256(body).hexdigest(), signature=signature)


def _not_over() -> HttpError:
    message = "The session is not over: until it is halted and every call has its result, its receipt would change."
    return HttpError(409, message, code="session_not_over", headers={"Retry-After": "1"})
