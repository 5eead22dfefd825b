"""Keys and fingerprints (BEHAVIOUR §3.2, §3.3): canonical, length-prefixed, then the first 16 bytes of SHA-256, as 32 hex digits.

The same functions stand in SQL (meterbook.event_key, meterbook.fingerprint, …) for callers in other languages; a test holds the two
against each other.
"""

from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256

_EVENT_KEY = b"meterbook.event_key.1,"
_IDENTITY = b"meterbook.identity.1,"
_FINGERPRINT = b"meterbook.fingerprint.1,"
_FIELDS_REMEMBERED_MAX = 8192


def field(text: str | None) -> bytes:
    """`<bytes>:<utf-8>,` or `-,` for none, so that no crafted text runs into its neighbour."""
    if text is None:
        return b"-,"
    raw = text.encode()
    return b"%d:%b," % (len(raw), raw)


_repeated_field = lru_cache(_FIELDS_REMEMBERED_MAX)(field)
"""For fields that many entries share: actor, source, description."""


def plain(amount: Decimal) -> str:
    """An amount by value: 1.0, 1.00 and 1 are all `1`."""
    text = str(amount)
    if "E" in text:
        text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def of_event_key(event_key: str) -> str:
    return _digest(_EVENT_KEY + field(event_key))


def of_identity(fields: Iterable[str | None], ordinal: int) -> str:
    """The key of an entry that names none: what it is about, and which of the equal ones in its call."""
    return _digest(_IDENTITY + b"".join(map(field, fields)) + field(str(ordinal)))


def of_fingerprint(actor: str, category: str, source: str, description: str, amount: Decimal, currency: str) -> str:
    said = _repeated_field(actor) + _repeated_field(category) + _repeated_field(source) + _repeated_field(description)
    return _digest(_FINGERPRINT + said + field(plain(amount)) + _repeated_field(currency))


def ascii_field(text: str) -> str:
    """`field`, of a text that is known to be ASCII: as many bytes as characters."""
    return f"{len(text)}:{text},"


def of_ascii_event_key(event_key: str) -> str:
    return sha256(f"meterbook.event_key.1,{len(event_key)}:{event_key},".encode()).hexdigest()[:32]


def of_ascii_fields(said: str, amount: str, currency: str) -> str:
    """The fingerprint of `ascii_field`s from actor to description, and of an amount as `plain` writes it."""
    return sha256(
        f"meterbook.fingerprint.1,{said}{len(amount)}:{amount},{len(currency)}:{currency},".encode()
    ).hexdigest()[:32]


def _digest(encoded: bytes) -> str:
    return sha256(encoded).hexdigest()[:32]
