"""Keys of the HTTP door: how one is written, known again and limited. Whoever reads the table can make none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, get_args

from meterbook.errors import InvalidKey

Scope = Literal["record", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX_DIGITS = 12
SECRET_BYTES = 32
_WRITTEN = re.compile(rf"mb_([0-9a-f]{{{PREFIX_DIGITS}}})_[0-9a-f]{{{2 * SECRET_BYTES}}}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key. `prefix` is shown, the rest of it is known to who was given it alone."""

    id: int
    prefix: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaces: int | None

    def may(self, scope: Scope) -> bool:
        """An admin may do everything; the others only what they were made for."""
        return scope in self.scopes or "admin" in self.scopes

    def lives_at(self, at: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key that was just made; `text` is said once, now."""

    key: ApiKey
    text: str


@dataclass(frozen=True, slots=True)
class Act:
    """An administrative act; without an `outcome` it was cut off, and may or may not have taken effect."""

    id: int
    at: datetime
    by_whom: str
    act: str
    subject: str
    said: Mapping[str, Any]
    request: str
    outcome: Literal["done", "refused", "failed"] | None
    code: str | None
    ended_at: datetime | None


def key_text(prefix: str, secret: str) -> str:
    return f"mb_{prefix}_{secret}"


def prefix_of(text: object) -> str:
    """Raises `InvalidKey` for what is no key at all."""
    found = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidKey
    return found[1]


def digest_of(text: str) -> bytes:
    """The secret has 256 random bits: no salt and no slow hash would make it harder to guess."""
    return sha256(text.encode()).digest()
