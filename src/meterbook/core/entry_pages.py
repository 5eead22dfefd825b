"""Pages of entries (BEHAVIOUR §5): newest first, by keyset, beside a summary of the whole filter."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import UUID

from meterbook.errors import InvalidCursor

_LIST_ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class UsageEntry:
    """One immutable row of the ledger. `period` is where it is booked; of a late one, `belongs_to` is the closed period it came from."""

    id: str
    actor: str
    category: str
    source: str
    description: str
    amount: Decimal
    occurred_at: datetime
    recorded_at: datetime
    period: int
    belongs_to: int | None
    workspace: str | None
    workflow: str | None
    execution: str | None
    source_reference: str | None
    line: str | None
    corrects: str | None
    reason: str | None
    metadata: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class EntrySummary:
    """Of the whole filter, not of the page."""

    count: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class EntryPage:
    """`next_cursor` is None on the last page; `summary` is None if it was not asked for."""

    entries: tuple[UsageEntry, ...]
    next_cursor: str | None
    summary: EntrySummary | None


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """None filters nothing. `[start, end)` is of occurred at; `period` is where entries are booked."""

    actor: str | None = None
    workspace: str | None = None
    source: str | None = None
    category: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    period: int | None = None


def list_id(entity: str, wanted: EntryFilter) -> str:
    """Names a list: its entity and filter. A page of one is no page of another, whatever its size."""
    said = [entity] + [_plain(getattr(wanted, name)) for name in EntryFilter.__dataclass_fields__]
    return sha256(json.dumps(said).encode()).hexdigest()[:_LIST_ID_DIGITS]


def _plain(value: str | int | datetime | None) -> str | int | None:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def cursor_after(entry: UsageEntry, list_of: str) -> str:
    said = json.dumps([list_of, entry.recorded_at.isoformat(), entry.id], separators=(",", ":"))
    return urlsafe_b64encode(said.encode()).decode().rstrip("=")


def read_cursor(cursor: str, list_of: str) -> tuple[datetime, str]:
    """Raises `InvalidCursor` for what no page of this list gave out."""
    try:
        given_for, recorded_at, entry = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        after = datetime.fromisoformat(recorded_at), str(UUID(entry))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidCursor from None
    if after[0].utcoffset() is None:
        raise InvalidCursor
    if given_for != list_of:
        raise InvalidCursor("this cursor is of another list: pass the entity and the filters of the page that gave it")
    return after
