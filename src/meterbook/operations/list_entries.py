"""Pages through an entity's entries (BEHAVIOUR §5)."""

from typing import Any

from psycopg import AsyncConnection

from meterbook.core.arguments import check_flag, check_limit, check_moment
from meterbook.core.entries import check_entity, check_text, is_id
from meterbook.core.entry_pages import (
    EntryFilter,
    EntryPage,
    EntrySummary,
    UsageEntry,
    cursor_after,
    list_id,
    read_cursor,
)
from meterbook.errors import InvalidUsage, Problem, UnknownEntity
from meterbook.postgres import reading

ENTRIES_PER_PAGE_MAX = 1000


async def list_entries(
    conn: AsyncConnection[Any], entity: str, wanted: EntryFilter, limit: int, cursor: str | None, *, summary: bool
) -> EntryPage:
    """Raises `UnknownEntity` (an organization not known), `InvalidCursor`, `InvalidUsage` (a limit out of range, a naive time)."""
    check_entity(entity)
    _check(wanted, limit)
    check_flag("summary", summary)
    list_of = list_id(entity, wanted)
    after_time, after_key = (None, None) if cursor is None else read_cursor(cursor, list_of)
    rows = await reading.list_entries(
        conn,
        {
            **reading.named(entity),
            **{name: getattr(wanted, name) for name in EntryFilter.__dataclass_fields__},
            "after_time": after_time,
            "after_key": after_key,
            "rows": limit + 1,
            "summary": summary,
            "by_sums": _is_summed(wanted),
        },
    )
    whole = EntrySummary(rows[0]["entries"], rows[0]["summed"]) if summary else None
    entries = tuple(_entry(row) for row in rows[:limit] if row["id"] is not None)
    if not entries and entity.startswith("organization:") and not await reading.entity_exists(conn, entity):
        raise UnknownEntity(f"{entity} is not known: call put_organization first")
    return EntryPage(entries, cursor_after(entries[-1], list_of) if len(rows) > limit else None, whole)


def _is_summed(wanted: EntryFilter) -> bool:
    """Whether the filter is one whose sum is kept: a period's, or of one actor or source in it."""
    others = (wanted.workspace, wanted.category, wanted.start, wanted.end)
    return wanted.period is not None and others == (None,) * 4 and (wanted.actor is None or wanted.source is None)


def _entry(row: dict[str, Any]) -> UsageEntry:
    return UsageEntry(**{name: row[name] for name in UsageEntry.__dataclass_fields__})


def _check(wanted: EntryFilter, limit: int) -> None:
    for name in ("actor", "workspace", "source", "category"):
        if getattr(wanted, name) is not None:
            check_text(name, getattr(wanted, name))
    for name in ("start", "end"):
        if getattr(wanted, name) is not None:
            check_moment(name, getattr(wanted, name))
    if not (wanted.period is None or is_id(wanted.period)):
        raise InvalidUsage([Problem(None, "period", "invalid_period", "pass the id of a period, a whole number")])
    check_limit(limit, ENTRIES_PER_PAGE_MAX)
