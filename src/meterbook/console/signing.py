"""Short statements that we signed ourselves: who is signed in, which customer a link is for. Anybody can read them, nobody can make one."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Literal

Purpose = Literal["session", "form", "customer"]
TEXT_LENGTH_MAX = 2048


def sign(secret: bytes, purpose: Purpose, said: list[str], until: datetime) -> str:
    """`purpose` is part of what is signed: a customer's link is no session."""
    body = _encode(json.dumps([*said, int(until.timestamp())], separators=(",", ":")).encode())
    return f"{body}.{_encode(_mark(secret, purpose, body))}"


def read_signed(secret: bytes, purpose: Purpose, text: str, now: datetime) -> list[str] | None:
    """None: not signed by us for this purpose, or past its time."""
    body, _, mark = text[:TEXT_LENGTH_MAX].partition(".")
    if not compare_digest(mark.encode(), _encode(_mark(secret, purpose, body)).encode()):
        return None
    *said, until = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return said if now.timestamp() < until else None


def _mark(secret: bytes, purpose: Purpose, body: str) -> bytes:
    return digest(secret, f"meterbook {purpose} {body}".encode(), sha256)


def _encode(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")
