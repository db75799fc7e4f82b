"""Certificates and keys from PEM files: read whole and checked before they are used, for files change while we run."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

SYSTEM = "system"  # instead of a CA's file: those that the machine trusts


# Of TLS 1.2, as gRPC has them: forward secrecy and AEAD alone (RFC 9325, 4.2). Those of TLS 1.3 all are such.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# What keys are agreed on by: the one that every client of TLS 1.3 has (RFC 8446, 9.1), for `ssl` takes no list before
# Python 3.15. By itself OpenSSL takes finite fields too, of which one handshake may cost 0.2 s (CVE-2002-20001).
GROUP = "prime256v1"


class TlsError(Exception):
    """What is wrong with the files, and with which: one line, without anything that stands in them."""


class Pems(NamedTuple):
    """What a side shows, and whom it trusts. Empty: nothing."""

    cert: bytes = b""
    key: bytes = b""
    ca: bytes = b""

    @property
    def expires_at(self) -> float:
        """When what it shows expires, with all between that and its root: Unix seconds."""
        return expires_at(self.cert)

    def server_context(self) -> ssl.SSLContext:
        """For HTTP/1.1 over TLS 1.2 and later. With a CA, whoever connects has to show a certificate of it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.set_ecdh_curve(GROUP)
        context.options |= ssl.OP_NO_RENEGOTIATION  # OpenSSL 3 refuses it by itself, 1.1.1 does not
        context.set_alpn_protocols(["http/1.1"])
        self.show_in(context)
        if self.ca:
            context.load_verify_locations(cadata=self.ca.decode("ascii"))
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def show_in(self, context: ssl.SSLContext) -> None:
        """The certificate, to whoever asks for it. Raises ssl.SSLError, ValueError and TypeError where it is none."""
        with _as_file(self.cert) as cert, _as_file(self.key) as key:
            context.load_cert_chain(cert, key, password=b"")  # an encrypted key is not asked for on the terminal


def expires_at(pem: bytes) -> float:
    """The first of these certificates to expire: Unix seconds. Raises ValueError: it is none."""
    return min(cert.not_valid_after_utc.timestamp() for cert in x509.load_pem_x509_certificates(pem))


def read(cert: Path | None, key: Path | None, ca: Path | str | None = None) -> Pems:
    """The files as they are now, of one piece: they can be used. Raises TlsError."""
    pems = Pems(_content(cert), _content(key), _system_ca() if ca == SYSTEM else _content(Path(ca) if ca else None))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if pems.cert:
        try:
            x509.load_pem_x509_certificates(pems.cert)
        except ValueError:
            raise TlsError(f"{cert}: no certificates in PEM") from None
        try:
            pems.show_in(context)
        except (ssl.SSLError, ValueError, TypeError):
            raise TlsError(f"{key}: not an unencrypted key in PEM, or not that of {cert}") from None
    if pems.ca:
        try:
            context.load_verify_locations(cadata=pems.ca.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise TlsError(f"{ca}: no certificates in PEM") from None
    return pems


def _content(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise TlsError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
    if not content:
        raise TlsError(f"{file}: is empty")
    return content


def _system_ca() -> bytes:
    """gRPC has roots of its own, which are not those that the machine's owner chose."""
    roots = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not roots:
        raise TlsError("this machine trusts no certificates: name a file")
    return "".join(map(ssl.DER_cert_to_PEM_cert, roots)).encode()


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Under a name, for `ssl` reads chains and keys from files only. In memory: what was checked is what is used."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
