"""What docker-compose.yml starts closed with: made once, before the rest starts, a folder (a volume) for each reader.

    yours         user, operator: the keys to show; no other container has them
    dispatcher    access.toml, grpc.crt, grpc.key, and redis, the password of the logs
    commander     token, grpc.crt
    haproxy       grpc.crt
    prometheus    token
    redis         users.acl, which holds the password's digest alone

Only their reader can read what is secret (0600). `access.toml` comes last: where it is, all is made, and nothing is
made anew.
"""

import datetime
import hashlib
import os
import secrets
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dispatcher.access.new_keys import NewKey

ROOT, MIDSENTENCE, NOBODY = 0, 10001, 65534  # the users of the containers: their numbers stand in the images
HOST = "dispatcher"  # as Commanders name it
CERTIFICATE_DAYS = 3650  # it is known by itself, in these containers alone
KEYS = (
    ("yours/user", ROOT, NewKey("user", "user")),
    ("yours/operator", ROOT, NewKey("operator", "operator")),
    ("commander/token", MIDSENTENCE, NewKey("commander", "commander")),
    ("prometheus/token", NOBODY, NewKey("prometheus", "metrics")),
)
MADE = """Made the keys of this deployment. To read yours, or to add one for somebody else:
  docker compose run --rm -T --entrypoint cat keys /keys/yours/user        # for users' requests and SDKs
  docker compose run --rm -T --entrypoint cat keys /keys/yours/operator    # for operators
  docker compose exec dispatcher dispatcher keys new NAME --role user --tenant TENANT"""


def make(folder: Path) -> bool:
    """Whether there was anything to make. Raises OSError."""
    access = folder / "dispatcher" / "access.toml"
    if access.exists():
        return False
    coming = access.with_suffix(".coming")
    _write(coming, 'metrics = "operator"\n', ROOT)
    for name, owner, key in KEYS:
        _write(folder / name, key.append_to(coming), owner)
    certificate, private = _certificate()
    _write(folder / "dispatcher" / "grpc.key", private, MIDSENTENCE)
    for reader in ("dispatcher", "commander", "haproxy"):
        _write(folder / reader / "grpc.crt", certificate, MIDSENTENCE)
    password = secrets.token_hex(32)
    _write(folder / "dispatcher" / "redis", password, MIDSENTENCE)
    _write(folder / "redis" / "users.acl", _users(password), ROOT, mode=0o644)  # Redis's user has no number of its own
    os.chown(coming, MIDSENTENCE, MIDSENTENCE)
    coming.replace(access)
    return True


def _write(path: Path, text: str, owner: int, mode: int = 0o600) -> None:
    """In place of what was left by an attempt that broke off, and may be another's already."""
    path.unlink(missing_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text)
    os.chown(path, owner, owner)


def _users(password: str) -> str:
    """The Dispatchers' rights are those that the page on operating names; a health check may ping, others nothing."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    return (
        "user default off ~* &* +@all\n"  # nobody gets in by it, but Redis reads its own file back with its rights
        "user health on nopass -@all +ping\n"
        f"user dispatcher on #{digest} ~midsentence:* resetchannels &midsentence:* +@all -@admin -@dangerous +info\n"
    )


def _certificate() -> tuple[str, str]:
    """Of the Commanders' edge, and its private key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


if __name__ == "__main__":
    if make(Path(sys.argv[1])):
        print(MADE)
