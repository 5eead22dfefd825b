"""Statements of recording, one round trip each. None of them commits."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import args_row, dict_row

from meterbook.core.entries import Entry
from meterbook.core.recorded import Answer
from meterbook.postgres.arrays import plain_array, text_array, time_array
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
ATTRIBUTE_WAIT_MS = 2_000
KEY_WAIT_MS = 5_000
"""How long a writer waits for an earlier one of the same key (§3.4)."""


_COLUMNS = (
    ("keys", "key", plain_array),
    ("fingerprints", "fingerprint", plain_array),
    ("actors", "actor", text_array),
    ("sources", "source", text_array),
    ("descriptions", "description", text_array),
    ("amounts", "amount", plain_array),
    ("categories", "category", text_array),
    ("occurred_ats", "occurred_at", time_array),
    ("workspaces", "workspace", text_array),
    ("workflows", "workflow", text_array),
    ("executions", "execution", text_array),
    ("source_references", "source_reference", text_array),
    ("lines", "line", text_array),
    ("metadatas", "metadata", text_array),
    ("entities", "entity", text_array),
    ("periods", "period", plain_array),
    ("payer_ids", "payer_id", plain_array),
    ("payer_periods", "payer_period", plain_array),
    ("payers", "payer", text_array),
)
_NEW_ANSWER: Callable[[Sequence[Any]], Answer] = partial(tuple.__new__, Answer)
_POSITIONS = tuple((name, Entry._fields.index(field), literal) for name, field, literal in _COLUMNS)


def columns_of(entries: Sequence[Entry]) -> dict[str, Any]:
    """The arguments of record_usage; a column that nobody uses is NULL."""
    columns = list(zip(*entries, strict=True))
    return {
        name: literal(columns[position]) if columns[position].count(None) < len(entries) else None
        for name, position, literal in _POSITIONS
    }


def answers(_: object) -> Callable[[Sequence[Any]], Answer]:
    """A row factory without a call of Python a row."""
    return _NEW_ANSWER


async def record_usage(
    conn: AsyncConnection[Any],
    entries: Sequence[Entry],
    at: datetime | None,
    *,
    note_conflicts: bool,
    key_wait_ms: int = KEY_WAIT_MS,
) -> list[Answer]:
    """All or nothing; the transaction stays usable after a refusal, which comes back as outcomes.

    Results are binary, here and below: their text would depend on the caller's DateStyle.
    """
    arguments = columns_of(entries) | {"at": at, "note_conflicts": note_conflicts, "key_wait_ms": key_wait_ms}
    with refusals():
        async with conn.cursor(binary=True, row_factory=answers) as cursor:
            await cursor.execute(SQL["record_usage"], arguments)
            return await cursor.fetchall()


async def record_cumulative(conn: AsyncConnection[Any], arguments: dict[str, Any]) -> Answer:
    return await _answer(conn, "record_cumulative", arguments)


async def find_first_flush(conn: AsyncConnection[Any], request: str) -> dict[str, str | Decimal | None]:
    """Empty if there was none."""
    with refusals():
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(SQL["find_first_flush"], {"request": request})
            return await cursor.fetchone() or {}


async def correct_entry(conn: AsyncConnection[Any], arguments: dict[str, Any]) -> Answer:
    return await _answer(conn, "correct_entry", arguments)


async def _answer(conn: AsyncConnection[Any], statement: str, arguments: dict[str, Any]) -> Answer:
    with refusals():
        async with conn.cursor(binary=True, row_factory=answers) as cursor:
            await cursor.execute(SQL[statement], arguments)
            answer = await cursor.fetchone()
    assert answer is not None  # noqa: S101  the function gives exactly one row
    return answer


async def attribute(
    conn: AsyncConnection[Any],
    actors: Sequence[str],
    entities: Sequence[str],
    workspaces: Sequence[str],
    at: datetime | None,
    lock_wait_ms: int = ATTRIBUTE_WAIT_MS,
) -> None:
    arguments = {
        "actors": list(actors),
        "entities": list(entities),
        "workspaces": list(workspaces),
        "at": at,
        "lock_wait_ms": lock_wait_ms,
    }
    with refusals():
        async with conn.cursor() as cursor:
            await cursor.execute(SQL["attribute"], arguments)


class Payer(NamedTuple):
    """Who pays now: outcome `resolved`, or why it is not: `unattributed`, `unknown_workspace`."""

    outcome: str
    entity: str
    entity_id: int
    period: int


async def find_payer(conn: AsyncConnection[Any], actor: str, workspace: str | None, at: datetime | None) -> Payer:
    with refusals():
        async with conn.cursor(row_factory=args_row(Payer)) as cursor:
            await cursor.execute(SQL["resolve"], {"actor": actor, "workspace": workspace, "at": at})
            payer = await cursor.fetchone()
    assert payer is not None  # noqa: S101  the function gives exactly one row
    return payer


async def note_conflicts(conn: AsyncConnection[Any], entries: Sequence[Entry], at: datetime | None) -> None:
    with refusals():
        async with conn.cursor() as cursor:
            await cursor.execute(SQL["note_conflicts"], columns_of(entries) | {"at": at})


class FirstSaid(NamedTuple):
    key: str
    actor: str
    category: str
    source: str
    description: str
    amount: Decimal
    entity: str
    period: int
    corrects: str | None


async def list_first_said(conn: AsyncConnection[Any], keys: Sequence[str]) -> dict[str, FirstSaid]:
    """By key as PostgreSQL writes it, with dashes."""
    with refusals():
        async with conn.cursor(row_factory=args_row(FirstSaid)) as cursor:
            await cursor.execute(SQL["list_first_said"], {"keys": plain_array(keys)})
            return {said.key: said for said in await cursor.fetchall()}
