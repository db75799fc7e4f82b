"""An OpenID Connect issuer, as far as a Dispatcher knows one: keys that it publishes, and tokens that it signs."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.sockets import listening

Private: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

ISSUER, AUDIENCE = "https://login.acme.example", "midsentence"


def public(key: Private, kid: str, **more: str) -> dict[str, Any]:
    """As a JWK."""
    told: dict[str, Any]
    match key:
        case rsa.RSAPrivateKey():
            told = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            told = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case _:
            told = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: value for name, value in told.items() if name != "key_ops"} | {"kid": kid} | more


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


class ScriptedIssuer:
    """asked: how often its keys were fetched. status, document: what it answers; held: not before that is set.
    reached: somebody has asked.
    """

    def __init__(self) -> None:
        self.asked, self.status = 0, 200
        self.held, self.reached = asyncio.Event(), asyncio.Event()
        self.held.set()
        self.rotate("k1")

    def rotate(self, kid: str) -> None:
        """From now on it signs with a new key, and publishes no other."""
        self.kid, self.key = kid, ec.generate_private_key(ec.SECP256R1())
        self.document = key_set(public(self.key, kid))

    def token(self, claims: dict[str, Any] | None = None, **headers: Any) -> str:
        """claims: instead of, or besides, the usual ones; None: without that one."""
        now = time.time()
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u-1", "org_id": "acme", "iat": int(now), "exp": int(now) + 600}
        told = {name: value for name, value in (usual | (claims or {})).items() if value is not None}
        return jwt.encode(told, self.key, "ES256", headers={"kid": self.kid} | headers)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """The address of its keys."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            self.reached.set()
            await self.held.wait()
            head = f"HTTP/1.1 {self.status} X\r\ncontent-length: {len(self.document)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + self.document)
            await writer.drain()

        async with listening(answer) as port:
            yield f"http://127.0.0.1:{port}/jwks"
