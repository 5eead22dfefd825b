"""Who pays for an actor's work, resolved before it begins and carried as a small token (BEHAVIOUR §4).

The rule itself, which payer wins, is one SQL function: meterbook.payer_of in postgres/migrations/0002_attribution.sql.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

_VERSION = "mba1"
_CHECKSUM_DIGITS = 8
_ID_BELOW = 2**63


@dataclass(frozen=True, slots=True)
class Attribution:
    """Checked when recording and not resolved again; it doesn't expire, and its payer stays."""

    actor: str
    workspace: str | None
    entity: str
    entity_id: int
    period: int

    def __post_init__(self) -> None:
        texts = (self.actor, self.entity) if self.workspace is None else (self.actor, self.entity, self.workspace)
        numbers = (self.entity_id, self.period)
        if not all(isinstance(text, str) for text in texts) or not all(
            type(number) is int and 0 < number < _ID_BELOW for number in numbers
        ):
            raise ValueError("not an attribution")

    @property
    def token(self) -> str:
        said = [self.actor, self.workspace, self.entity, self.entity_id, self.period]
        body = urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode().rstrip("=")
        return f"{_VERSION}.{body}.{_checksum(body)}"

    @classmethod
    def from_token(cls, token: str) -> Self:
        """Raises `ValueError` for what no attribution gave out."""
        version, _, rest = token.partition(".")
        body, _, checksum = rest.partition(".")
        if version != _VERSION or checksum != _checksum(body):
            raise ValueError("not an attribution token")
        said = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        if not isinstance(said, list) or len(said) != len(cls.__dataclass_fields__):
            raise ValueError("not an attribution token")
        return cls(*said)


def _checksum(body: str) -> str:
    return sha256(body.encode()).hexdigest()[:_CHECKSUM_DIGITS]
