"""Many events at once: `record_bulk` and `record_many` against plain binary COPY of the same rows into tables of the same shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from time import perf_counter
from typing import LiteralString
from uuid import UUID

import psycopg

import meterbook
from benchmarks.measuring import Figure, take_turns
from benchmarks.options import Options
from benchmarks.server import Server
from benchmarks.workload import ZIPF_ENTITIES, Event, events, zipf
from meterbook.core.entries import Usage, check_entries
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
BATCH = 5_000
"""Rows of a call, and of a transaction of COPY."""
BATCHES = 10
ENTRIES_PER_STATEMENT = 1_000
KEY_TYPES = ("uuid", "uuid", "int8", "int8", "numeric", "timestamptz")
ENTRY_TYPES = (
    "int8", "timestamptz", "uuid", "int8", "int4", "int8", "timestamptz", "numeric", "text", "text", "text",
)  # fmt: skip


async def measure(server: Server, options: Options) -> list[Figure]:
    url = server.database("bulk")
    stream = events("bulk", zipf())
    async with meterbook.open(url) as book, await psycopg.AsyncConnection.connect(url) as conn:
        await conn.execute(SQL["make_tables"])
        await meet_everybody(book)
        run = _Bulk(book, conn, stream, await _list_parties(conn), 2 if options.quick else BATCHES)
        return await take_turns(options.rounds, [run.bulk, run.many, run.copy, run.copy_packed], "events/s")


async def meet_everybody(book: meterbook.Book, entities: int = ZIPF_ENTITIES) -> None:
    """First contact decides who pays, once; the rates are those of every later event."""
    await book.record_many([
        Usage(f"user_{n}", "workflow", "first contact", "0.01", event_key=f"first contact {n}") for n in range(entities)
    ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Rows:
    """Ready to be copied, by key."""

    keys: list[tuple[object, ...]]
    entries: list[tuple[object, ...]]


Parties = dict[str, tuple[int, int, int]]


async def _list_parties(conn: psycopg.AsyncConnection) -> Parties:
    """Actor → its surrogate, the payer's, the period's."""
    cursor = await conn.execute(SQL["list_parties"])
    return {
        actor: (actor_id, entity_id, period_id) for actor, actor_id, entity_id, period_id in await cursor.fetchall()
    }


def _rows(batch: list[Event], parties: Parties) -> _Rows:
    now = datetime.now(UTC)
    rows = _Rows([], [])
    for entry in sorted(check_entries([event.usage() for event in batch], "USD"), key=lambda entry: entry.key):
        key, amount = UUID(entry.key), Decimal(entry.amount)
        actor_id, entity_id, period_id = parties[entry.actor]
        rows.keys.append((key, UUID(entry.fingerprint), entity_id, period_id, amount, now))
        rows.entries.append((
            entity_id, now, key, period_id, 0, actor_id, now, amount, entry.category, entry.source, entry.description,
        ))  # fmt: skip
    return rows


class _Bulk:
    def __init__(
        self,
        book: meterbook.Book,
        conn: psycopg.AsyncConnection,
        stream: Iterator[Event],
        parties: Parties,
        batches: int,
    ) -> None:
        self._book, self._conn, self._stream, self._parties, self._batches = book, conn, stream, parties, batches

    def _given(self) -> list[list[Event]]:
        return [list(islice(self._stream, BATCH)) for _ in range(self._batches)]

    def _rate(self, started: float) -> float:
        return self._batches * BATCH / (perf_counter() - started)

    async def bulk(self) -> dict[str, float]:
        given = [[event.usage() for event in batch] for batch in self._given()]
        started = perf_counter()
        for batch in given:
            await self._book.record_bulk(batch)
        rate = self._rate(started)
        await self._book.compact()
        return {"bulk/meterbook record_bulk": rate}

    async def many(self) -> dict[str, float]:
        given = [[event.usage() for event in batch] for batch in self._given()]
        started = perf_counter()
        for batch in given:
            for start in range(0, BATCH, ENTRIES_PER_STATEMENT):
                await self._book.record_many(batch[start : start + ENTRIES_PER_STATEMENT])
        rate = self._rate(started)
        await self._book.compact()
        return {"bulk/meterbook record_many": rate}

    async def copy(self) -> dict[str, float]:
        """Rows are ready as Python values; psycopg packs them."""
        given = [_rows(batch, self._parties) for batch in self._given()]
        started = perf_counter()
        for rows in given:
            await self._copy_rows(rows)
        return {"bulk/COPY": self._rate(started)}

    async def copy_packed(self) -> dict[str, float]:
        """Rows are ready as the bytes that COPY takes: what the server alone can do."""
        packed = [await self._pack(_rows(batch, self._parties)) for batch in self._given()]
        started = perf_counter()
        for keys, entries in packed:
            await self._copy_bytes(SQL["copy_keys"], keys)
            await self._copy_bytes(SQL["copy_entries"], entries)
            await self._conn.commit()
        return {"bulk/COPY packed": self._rate(started)}

    async def _copy_rows(self, rows: _Rows) -> None:
        async with self._conn.cursor() as cursor:
            async with cursor.copy(SQL["copy_keys"]) as copy:
                copy.set_types(KEY_TYPES)
                for row in rows.keys:
                    await copy.write_row(row)
            async with cursor.copy(SQL["copy_entries"]) as copy:
                copy.set_types(ENTRY_TYPES)
                for row in rows.entries:
                    await copy.write_row(row)
        await self._conn.commit()

    async def _pack(self, rows: _Rows) -> tuple[bytes, bytes]:
        """By way of the tables, emptied again, in a transaction that is rolled back."""
        async with self._conn.transaction(force_rollback=True):
            await self._conn.execute(SQL["empty_tables"])
            async with self._conn.cursor() as cursor:
                for statement, types, wanted in (
                    ("copy_keys", KEY_TYPES, rows.keys),
                    ("copy_entries", ENTRY_TYPES, rows.entries),
                ):
                    async with cursor.copy(SQL[statement]) as copy:
                        copy.set_types(types)
                        for row in wanted:
                            await copy.write_row(row)
                return await self._bytes(cursor, "pack_keys"), await self._bytes(cursor, "pack_entries")

    async def _bytes(self, cursor: psycopg.AsyncCursor, statement: str) -> bytes:
        async with cursor.copy(SQL[statement]) as copy:
            return b"".join([bytes(part) async for part in copy])

    async def _copy_bytes(self, statement: LiteralString, packed: bytes) -> None:
        async with self._conn.cursor() as cursor, cursor.copy(statement) as copy:
            await copy.write(packed)
