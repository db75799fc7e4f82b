"""`dispatcher receipt get SESSION`, and `dispatcher receipt verify FILE`, which asks nobody (`docs/receipts.md`)."""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from dispatcher.core.receipts import Account, Receipt, Unfinished, body_of, differences
from dispatcher.verbs.client import Client, add_operators, as_session_id
from dispatcher.verbs.servers import RequestFailed
from shared.errors import ConfigError
from shared.terminal import printable

MAX_RECEIPT_BYTES = 1024 * 1024  # 64 calls in flight and a stop's detail, every character of them escaped
MAX_LINE_BYTES = 16 * 1024 * 1024  # an entry: more than a message from a Commander, every character of it escaped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="receipt_verb", required=True, metavar="VERB")
    getting = verbs.add_parser("get", help="print the receipt of a session that is over")
    add_operators(getting)
    getting.add_argument("session_id", metavar="SESSION", type=as_session_id)
    getting.set_defaults(receipt_verb=_get)
    verifying = verbs.add_parser("verify", help="whether a file is one, asking nobody; exits 0 or 1")
    verifying.add_argument("--log", type=Path, help="the log, as `dispatcher sessions watch SESSION --json` prints it")
    verifying.add_argument("--key", type=Path, help="the public key in PEM that must have signed it")
    verifying.add_argument("file", metavar="FILE", type=Path)
    verifying.set_defaults(receipt_verb=_verify)


def run(options: argparse.Namespace) -> int:
    """Raises ConfigError."""
    status: int = options.receipt_verb(options)
    return status


def _get(options: argparse.Namespace) -> int:
    try:
        with Client.of(options, "operator") as client:
            print(json.dumps(client.get(f"/operator/sessions/{options.session_id}/receipt"), indent=2))
    except RequestFailed as error:
        print(f"dispatcher receipt: {printable(str(error))}", file=sys.stderr)
        return 1
    return 0


# ---- verify


def _verify(options: argparse.Namespace) -> int:
    file, log = options.file, options.log
    wanted = _public_key(options.key) if options.key else None
    try:
        said = _read(file)
        receipt = msgspec.json.decode(said, type=Receipt)
        json.loads(said, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # msgspec's and Unicode's too
        return _told(file, [f"is no receipt: {error}"])
    wrong = _wrong(receipt, wanted)
    if log:
        wrong += _against_log(receipt, log)
    if wrong:
        return _told(file, wrong)
    end, signature = receipt.end, receipt.signature
    print(printable(f"{file}: session {receipt.session_id} {end.state} by {end.author} ({end.reason})"))
    print(f"signed by {signature.public_key}" if signature else "not signed: it could have been made to fit")
    if signature and not wanted:
        print("whose key that is was not asked: --key")
    print(f"all {receipt.log.entries} entries of the log fit" if log else "the log was not asked: --log")
    return 0


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names stand in it once: of two, people and programs may read either. Raises ValueError."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} stands twice in one object")
        found[name] = value
    return found


def _told(file: Path, wrong: list[str]) -> int:
    for each in wrong:
        print(printable(f"{file}: {each}"), file=sys.stderr)
    return 1


def _wrong(receipt: Receipt, wanted: str | None) -> list[str]:
    """What is wrong with it, whatever the log says. wanted: the public key, in hex."""
    body = body_of(receipt)
    wrong = []
    if hashlib.sha256(body).hexdigest() != receipt.sha256:
        wrong.append("sha256: is not the digest of what it says: it was changed")
    signature = receipt.signature
    if signature and not _signed(signature.public_key, signature.value, body):
        wrong.append("signature: does not fit: it was changed, or signed by another key than it says")
    if wanted and not signature:
        wrong.append("signature: there is none")
    elif wanted and signature and signature.public_key != wanted:
        wrong.append(f"signature: is by {signature.public_key}, not by {wanted}")
    return wrong


def _signed(public_key: str, value: str, body: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(_hex(public_key)).verify(_hex(value), body)
    except (ValueError, InvalidSignature):
        return False
    return True


def _hex(text: str) -> bytes:
    """Raises ValueError, for another spelling of the same bytes too: each changed character is noticed."""
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError
    return data


def _against_log(receipt: Receipt, log: Path) -> list[str]:
    account = Account(receipt.session_id, receipt.prompt)
    for number, line in enumerate(_lines(log), 1):
        try:
            fields = json.loads(line, object_pairs_hook=_once)
            account.take(fields.pop("offset"), fields.pop("event"), fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return [f"log: {log}: line {number} is no entry of a log, or not the next ({error})"]
    try:
        return [f"log: {each}" for each in differences(receipt, account)]
    except Unfinished:
        return [f"log: {log}: has no end"]


def _lines(log: Path) -> Iterator[bytes]:
    try:
        with log.open("rb") as lines:
            while line := lines.readline(MAX_LINE_BYTES):
                yield line
    except OSError as error:
        raise _unreadable(log, error) from None


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_RECEIPT_BYTES)
    except OSError as error:
        raise _unreadable(file, error) from None


def _public_key(file: Path) -> str:
    """In hex, as receipts have it."""
    try:
        key = load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise _unreadable(file, error) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{file}: is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{file}: must be an Ed25519 key")
    return key.public_bytes_raw().hex()


def _unreadable(file: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{file}: {error.strerror or 'cannot be read'}")
