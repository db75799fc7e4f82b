"""`dispatcher receipt`: a session's, and one that is verified offline, against the route that makes them."""

import argparse
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from prometheus_client import CollectorRegistry

from dispatcher.access.watch import Access
from dispatcher.core.receipts import micros
from dispatcher.gateway.app import operator_app
from dispatcher.gateway.receipts import ReceiptKey
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.metrics import Metrics
from dispatcher.verbs import receipt
from dispatcher.verbs import sessions as operator_cli
from dispatcher.verbs.client import shielded
from shared.errors import ConfigError
from tests import receipt_reader
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.dispatcher.verbs.test_client_verbs import call


def private_key(file: Path) -> Path:
    """A new one, in that file, and its public half beside it."""
    key = Ed25519PrivateKey.generate()
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file.with_suffix(".pub").write_bytes(public)
    return file


@pytest.fixture
async def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture(params=["signed", "unsigned"])
def key(request: pytest.FixtureRequest, tmp_path: Path) -> ReceiptKey | None:
    return ReceiptKey.of(private_key(tmp_path / "key.pem")) if request.param == "signed" else None


@pytest.fixture
async def url(sessions: FakeSessions, key: ReceiptKey | None) -> AsyncIterator[str]:
    registry = CollectorRegistry()
    app = operator_app(sessions, registry, Metrics(registry), Access(None), key)
    server = HttpServer(app, bind("TEST", "127.0.0.1:0"))
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    sessions.closing.set()
    await server.close()


async def stopped(sessions: FakeSessions) -> str:
    commander = await sessions.begin()
    await commander.think("SECRET thought")
    await commander.say("Grüße, ")
    await commander.call()
    await commander.stop("RiskControl", "policy", "names", "phrase 1")
    await commander.answer(status="CANCELLED")
    await commander.halted()
    return commander.session_id


@pytest.fixture
async def files(
    url: str, sessions: FakeSessions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> tuple[Path, Path]:
    """A stopped session's receipt and its log, as the commands print them."""
    session_id = await stopped(sessions)
    made, log = tmp_path / "receipt.json", tmp_path / "log.jsonl"
    assert await call(receipt, "get", "--url", url, *shielded([session_id])) == 0
    made.write_text(capfd.readouterr().out)
    assert await call(operator_cli, "--url", url, "watch", *shielded([session_id]), "--json") == 0
    log.write_text(capfd.readouterr().out)
    return made, log


async def test_it_says_what_became_of_the_session(
    files: tuple[Path, Path], key: ReceiptKey | None, capfd: pytest.CaptureFixture[str]
) -> None:
    made, log = files
    told = json.loads(made.read_text())
    end = told["end"]
    assert (end["state"], end["author"], end["reason"], end["policy"], end["character"]) == (
        "stopped",
        "policy",
        "RiskControl",
        "names",
        7,
    )
    assert told["delivered"]["characters"] == 7
    assert [each["outcome"] for each in told["tools_in_flight"]] == ["CANCELLED"]
    assert (told["stop"]["halt"], told["stop"]["halt_micros"], told["stop"]["tokens_after"]) == ("confirmed", 100, 1)
    assert "SECRET" not in made.read_text()
    assert receipt_reader.faults(told, [json.loads(line) for line in log.read_text().splitlines()]) == []
    assert await call(receipt, "verify", str(made), "--log", str(log)) == 0
    out = capfd.readouterr().out
    assert "all 7 entries of the log fit" in out
    assert ("signed by" in out) == bool(key)
    assert await call(receipt, "verify", "--log", str(log), str(made)) == 0, "in any order"
    assert "all 7 entries of the log fit" in capfd.readouterr().out
    assert await call(receipt, "verify", str(made)) == 0
    assert "the log was not asked" in capfd.readouterr().out


def changed(value: Any) -> Iterator[Any]:
    """A JSON value with one of its leaves changed, each in turn."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from ({**value, name: other} for other in changed(each))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from ([*value[:number], other, *value[number + 1 :]] for other in changed(each))
    elif isinstance(value, str):
        yield value[:-1] + ("0" if value[-1:] == "1" else "1")
    elif isinstance(value, bool):
        yield not value
    else:
        yield 1 if value is None else value + 1


async def test_each_changed_field_is_noticed(files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    made, _ = files
    forged = list(changed(json.loads(made.read_text())))
    assert len(forged) > 40
    for each in forged:
        made.write_text(json.dumps(each))
        assert receipt.run(options("verify", made)) == 1, each
        assert str(made) in capfd.readouterr().err
        assert receipt_reader.faults(each), each


async def test_what_may_be_read_in_two_ways_is_noticed(
    files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a name that stands twice people read the first, and programs the last."""
    made, log = files
    for file in files:
        text = file.read_text()
        before = text.index('"policy"')
        name = text.rindex('"', 0, text.rindex('"', 0, before)) + 1
        assert text[name : text.index('"', name)] == "author"
        file.write_text(text[: name - 1] + '"author": "user", ' + text[name - 1 :])
        assert receipt.run(options("verify", made, "--log", log)) == 1
        assert "author stands twice in one object" in capfd.readouterr().err
        file.write_text(text)
    assert receipt.run(options("verify", made, "--log", log)) == 0


async def test_what_nests_too_deep_is_none(files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    made, log = files
    deep = b'{"deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    log.write_bytes(deep + log.read_bytes())
    assert receipt.run(options("verify", made, "--log", log)) == 1
    assert "line 1 is no entry of a log" in capfd.readouterr().err
    made.write_bytes(deep)
    assert receipt.run(options("verify", made)) == 1
    assert "is no receipt" in capfd.readouterr().err


def options(*arguments: object) -> Any:
    parser = argparse.ArgumentParser()
    receipt.add_arguments(parser)
    return parser.parse_args([str(each) for each in arguments])


def means(log: bytes) -> object:
    with contextlib.suppress(ValueError):
        return [json.loads(line) for line in log.splitlines()]
    return None


async def test_each_changed_byte_of_the_log_is_noticed(
    files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    made, log = files
    data = log.read_bytes()
    assert json.loads(data.splitlines()[1])["step_name"] == "Planning"
    for position in range(0, len(data), 5):
        other = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        if means(other) == means(data):
            continue  # the last digit of a time may be one more than a number can tell
        log.write_bytes(other)
        assert receipt.run(options("verify", made, "--log", log)) == 1, data[max(0, position - 20) : position + 1]
    said = capfd.readouterr().err
    assert "log: " in said
    for wrong in (data.replace(b"SECRET", b"SECREt"), b"".join(data.splitlines(keepends=True)[:-1]), b"", data + b"{}"):
        log.write_bytes(wrong)
        assert receipt.run(options("verify", made, "--log", log)) == 1


async def test_a_log_that_an_older_version_printed(files: tuple[Path, Path]) -> None:
    """Which lacks what was added since: such members are empty."""
    made, log = files
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert not all(all(line.values()) for line in lines)
    log.write_text("\n".join(json.dumps({k: v for k, v in line.items() if v}) for line in lines))
    assert receipt.run(options("verify", made, "--log", log)) == 0


@pytest.mark.parametrize("second", [0.1234565, 0.1234575, 0.12345650001])
def test_a_time_between_two_microseconds(second: float) -> None:
    """As the document says it, in integers: 2^20 seconds and more are exact in a double to parts of a microsecond."""
    at = 1_700_000_000 + second
    product = Fraction(at * 1e6)
    below = product.numerator // product.denominator
    above = product - below > Fraction(1, 2) or (product - below == Fraction(1, 2) and below % 2)
    assert micros(at) == below + above


async def test_what_was_changed_in_an_unsigned_receipt_that_fits_again_the_log_tells(
    files: tuple[Path, Path], key: ReceiptKey | None, capfd: pytest.CaptureFixture[str]
) -> None:
    made, log = files
    forged = json.loads(made.read_text())
    forged["end"]["author"] = "user"
    forged["signature"] = None
    body = receipt_reader.canonical({k: v for k, v in forged.items() if k not in ("sha256", "signature")})
    made.write_text(json.dumps({**forged, "sha256": receipt_reader.sha256(body)}))
    assert receipt.run(options("verify", made)) == 0
    capfd.readouterr()
    assert receipt.run(options("verify", made, "--log", log)) == 1
    assert capfd.readouterr().err == f'{made}: log: end.author: the receipt has "user", the log "policy"\n'


async def test_whose_key_signed_it(
    files: tuple[Path, Path], key: ReceiptKey | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made, _ = files
    private_key(tmp_path / "other.pem")
    assert receipt.run(options("verify", made, "--key", tmp_path / "other.pub")) == 1
    assert ("is by" if key else "there is none") in capfd.readouterr().err
    if key:
        assert receipt.run(options("verify", made, "--key", tmp_path / "key.pub")) == 0
        assert "whose key" not in capfd.readouterr().out


@pytest.mark.parametrize("key", ["signed"], indirect=True)
async def test_a_session_that_is_not_over_has_none(
    url: str, sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    commander = await sessions.begin()
    assert await call(receipt, "get", "--url", url, *shielded([commander.session_id])) == 1
    await commander.stop("UserCancel", "user")
    assert await call(receipt, "get", "--url", url, *shielded([commander.session_id])) == 1
    assert capfd.readouterr().err.count("dispatcher receipt: The session is not over") == 2
    await commander.halted()
    assert await call(receipt, "get", "--url", url, *shielded([commander.session_id])) == 0
    assert await call(receipt, "get", "--url", url, "nobody") == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", "\x00", '{"format": "midsentence-receipt-1"}', "{" * 100_000])
def test_what_is_no_receipt(text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    assert receipt.run(options("verify", file)) == 1
    assert capfd.readouterr().err.startswith(f"{file}: is no receipt: ")


@pytest.mark.parametrize("arguments", [("verify",), ("a",), ("verify", "a", "b"), ("get", "a", "--log", "b")])
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as raised:
        options(*arguments)
    assert raised.value.code == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, broken = tmp_path / "missing", tmp_path / "broken"
    broken.write_text("SECRET")
    for arguments in (("verify", missing), ("verify", broken, "--key", missing), ("verify", broken, "--key", broken)):
        with pytest.raises(ConfigError, match=f"{missing}: No such file|{broken}: is no public key") as raised:
            receipt.run(options(*arguments))
        assert "SECRET" not in str(raised.value)


def test_keys_that_cannot_sign(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for text, wrong in (
        (b"SECRET", "is no private key in PEM"),
        (other, "must be an Ed25519 key"),
        (None, "No such file"),
    ):
        file = tmp_path / "key.pem"
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_bytes(text)
        with pytest.raises(ConfigError, match=wrong) as raised:
            ReceiptKey.of(file)
        assert "SECRET" not in str(raised.value)
