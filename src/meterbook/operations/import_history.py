"""Audit rows of periods that ended before this ledger knew of them (BEHAVIOUR §13): imported, sealed, readable, never billed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.entries import Entry, Usage, check_each_entry
from meterbook.core.money import total_of
from meterbook.core.windows import window_at
from meterbook.postgres import cutover
from meterbook.postgres.cutover import LegacyTables

ROWS_PER_PAGE = 2_000
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PastPlace:
    user_id: str
    payer: str
    payer_starts: datetime
    payer_dated: bool
    own: str
    own_starts: datetime | None
    joined_at: datetime | None


@dataclass(frozen=True, slots=True)
class PastRow:
    id: str
    amount: Decimal
    occurred_at: datetime
    source: str | None
    description: str | None
    category: str | None
    workflow: str | None
    execution: str | None


@dataclass(frozen=True, slots=True)
class Past:
    """A user's rows of `[since, until)` are of this entity, in monthly windows that end where its running period begins."""

    user: str
    entity: str
    anchor: datetime
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class ImportedPage:
    rows: int
    refused: int
    amount: Decimal
    last: PastRow | None


def pasts_of(place: PastPlace) -> list[Past]:
    """What an organization paid for since its member joined, and what a person's own plan was used for. Usage of the free plan has no past
    period: its period has not ended.
    """
    found = []
    pooled = place.payer != place.own
    if place.payer_dated:
        since = place.joined_at if pooled and place.joined_at is not None else EARLIEST
        found.append(Past(place.user_id, place.payer, place.payer_starts, since, place.payer_starts))
    if pooled and place.own_starts is not None:
        until = min(place.own_starts, place.joined_at or place.own_starts)
        found.append(Past(place.user_id, place.own, place.own_starts, EARLIEST, until))
    return [past for past in found if past.since < past.until]


async def list_past_places(conn: AsyncConnection[Any], after: str, rows: int) -> list[PastPlace]:
    return await cutover.rows_of(conn, PastPlace, "list_past_places", {"after": after, "rows": rows})


async def import_page(
    conn: AsyncConnection[Any], tables: LegacyTables, past: Past, after: PastRow | None, currency: str, at: datetime
) -> ImportedPage:
    """In the connection's transaction; a page again imports nothing twice."""
    arguments = {
        "user": past.user,
        "since": past.since,
        "until": past.until,
        "earliest": tables.earliest(past.since),
        "latest": tables.latest(past.until),
        "after_at": EARLIEST if after is None else after.occurred_at,
        "after_id": "" if after is None else after.id,
        "rows": ROWS_PER_PAGE,
    }
    page = await cutover.rows_of(conn, PastRow, "list_past_rows", arguments)
    entries, problems = check_each_entry([_usage(past, row) for row in page], currency)
    windows: dict[tuple[datetime, datetime], list[Entry]] = {}
    for entry in entries:
        windows.setdefault(window_at(past.anchor, 1, entry.occurred_at or at), []).append(entry)
    imported, amount = 0, Decimal(0)
    for (starts, ends), inside in sorted(windows.items()):
        count = await cutover.value_of(conn, "import_history", _arguments(past.entity, starts, ends, inside, at))
        imported += count
        amount = total_of([amount, *(entry.amount for entry in inside)]) if count else amount
    return ImportedPage(imported, len(problems), amount, page[-1] if page else None)


def _usage(past: Past, row: PastRow) -> Usage:
    return Usage(
        past.user,
        row.source or "legacy",
        row.description or "usage",
        row.amount,
        category=row.category or "model",
        event_key=f"legacy:{row.id}",
        workflow=row.workflow,
        execution=row.execution,
        occurred_at=row.occurred_at,
    )


def _arguments(entity: str, starts: datetime, ends: datetime, entries: Sequence[Entry], at: datetime) -> dict[str, Any]:
    return {
        "entity": entity,
        "starts": starts,
        "ends": ends,
        "keys": [one.key for one in entries],
        "fingerprints": [one.fingerprint for one in entries],
        "actors": [one.actor for one in entries],
        "amounts": [one.amount for one in entries],
        "categories": [one.category for one in entries],
        "sources": [one.source for one in entries],
        "descriptions": [one.description for one in entries],
        "workflows": [one.workflow for one in entries],
        "executions": [one.execution for one in entries],
        "occurred_ats": [one.occurred_at for one in entries],
        "at": at,
    }


async def seal_history(conn: AsyncConnection[Any], rows: int) -> int:
    """Seals a page of what was imported, in the connection's transaction; gives how many."""
    found = await cutover.records_of(conn, "list_unsealed_history", {"rows": rows})
    await cutover.value_of(conn, "lock_fold")
    for one in found:
        await cutover.value_of(conn, "seal_history", one)
    return len(found)
