"""PEM files: what can be used, and what is said of the others."""

import contextlib
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from shared.tls import TlsError, read
from tests.certificates import Authority

NO_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"


def test_a_certificate_with_its_key_and_a_ca(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("edge")
    pems = read(files.cert, files.key, authority.ca)
    assert (pems.cert, pems.key, pems.ca) == tuple(each.read_bytes() for each in (files.cert, files.key, authority.ca))
    assert pems.server_context().verify_mode.name == "CERT_REQUIRED"
    assert read(files.cert, files.key).server_context().verify_mode.name == "CERT_NONE"


def test_forward_secrecy_authenticated_encryption_and_no_renegotiation(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("edge")
    context = read(files.cert, files.key).server_context()
    assert {(each["aead"], each["kea"]) for each in context.get_ciphers()} == {(True, "kx-ecdhe"), (True, "kx-any")}
    assert ssl.OP_NO_RENEGOTIATION in context.options


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_handshake_costs_little_whatever_the_client_asks_for(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Over finite fields each would take the loop's time, 0.2 s of it, without anything shown (CVE-2002-20001)."""
    authority = Authority(tmp_path)
    files = authority.issue("edge")
    server = read(files.cert, files.key).server_context()
    agreed = set()
    for group in ("prime256v1", "ffdhe2048", "ffdhe8192"):
        client = authority.client()
        client.maximum_version = version
        client.set_ecdh_curve(group)
        with contextlib.suppress(ssl.SSLError):
            handshake(client, server)
            agreed.add(group)
    assert agreed == {"prime256v1"}
    default = authority.client()
    default.maximum_version = version
    handshake(default, server)


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """In memory. Raises ssl.SSLError."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                sides.remove(side)


def test_the_first_of_a_chain_to_expire_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    leaf, between = authority.issue("leaf"), authority.issue("between", days=2)
    soon = read(between.cert, between.key).expires_at
    leaf.cert.write_bytes(leaf.cert.read_bytes() + between.cert.read_bytes())
    assert read(leaf.cert, leaf.key).expires_at == soon


@pytest.mark.parametrize("broken", ["cert", "key", "ca"])
@pytest.mark.parametrize(
    "content", [None, b"", b"no PEM", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"]
)
def test_what_cannot_be_used_is_named(tmp_path: Path, broken: str, content: bytes | None) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("edge")
    paths = {"cert": files.cert, "key": files.key, "ca": authority.ca}
    if content is None:
        paths[broken].unlink()
    else:
        paths[broken].write_bytes(content)
    with pytest.raises(TlsError) as raised:
        read(**paths)
    assert str(raised.value).startswith(f"{paths[broken]}: ")
    assert "\n" not in str(raised.value)


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files, others = authority.issue("edge"), authority.issue("others")
    with pytest.raises(TlsError, match="not that of"):
        read(files.cert, others.key)


def test_an_encrypted_key_is_not_asked_for_on_the_terminal(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("edge")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(TlsError, match="not an unencrypted key"):
        read(files.cert, files.key)
