"""JSON Web Tokens for tests, right and wrong ones."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs tokens with one key.

    Args:
        name: The value of ``iss``.
        key_id: The key's ``kid``.
    """

    def __init__(self, name: str, key_id: str = "k1") -> None:
        self.name, self.key_id = name, key_id
        self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, str]:
        public = self.key.public_key().public_numbers()
        x, y = (encode(number.to_bytes(32, "big")) for number in (public.x, public.y))
        return {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.key_id, "x": x, "y": y}

    @property
    def jwks(self) -> str:
        return json.dumps({"keys": [self.jwk]})

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Return claims that are valid for a day; a value of None leaves a claim out."""
        whole = {"iss": self.name, "aud": "shop", "sub": "ann", "exp": int(time.time()) + 86_400, **claims}
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Return a signed token.

        Args:
            header: Fields that replace those of its header.
            **claims: Claims that replace those of :meth:`claims`.
        """
        return self.sign({"alg": "ES256", "typ": "JWT", "kid": self.key_id, **(header or {})}, self.claims(**claims))

    def sign(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
        signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
