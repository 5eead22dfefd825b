"""COPY into the ledger, for large batches of new keys."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Any

from psycopg import AsyncConnection, AsyncCopy, AsyncCursor
from psycopg.errors import UniqueViolation
from psycopg.rows import tuple_row

from meterbook.core.bulk_rows import Delta, DeltaSum, Party, Row, Said, deltas_of
from meterbook.core.event_keys import plain
from meterbook.postgres.arrays import plain_array, text_array
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
LINES_PER_WRITE = 500
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


async def may_copy(conn: AsyncConnection[Any]) -> bool:
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["may_copy"])
            row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def list_known_keys(conn: AsyncConnection[Any], keys: Sequence[str]) -> set[str]:
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["list_known_keys"], {"keys": plain_array(keys)})
            return {key for (key,) in await cursor.fetchall()}


async def list_parties(
    conn: AsyncConnection[Any], said: Sequence[Said], at: datetime | None
) -> tuple[dict[Said, Party], datetime | None]:
    """The parties that are known, and the moment to record at; None if none is."""
    actors, workspaces, entities, payer_ids = zip(*said, strict=True)
    arguments = {
        "actors": text_array(actors),
        "workspaces": text_array(workspaces),
        "entities": text_array(entities),
        "payer_ids": plain_array(payer_ids),
        "at": at,
    }
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["list_parties"], arguments)
            found = await cursor.fetchall()
    return {said[n - 1]: Party(*party) for n, *party, _ in found}, found[0][-1] if found else None


class KeyAlreadyThere(Exception):
    """A key was written by somebody else in the meantime; nothing of the transaction holds."""


async def copy_rows(conn: AsyncConnection[Any], rows: Sequence[Row], moment: datetime) -> None:
    """`rows` are sorted by key, so that two of these can't deadlock."""
    with refusals():
        try:
            async with conn.cursor() as cursor:
                await cursor.execute(SQL["bound_waits"])
                await _copy_rows(cursor, rows, str(moment))
        except UniqueViolation as error:
            raise KeyAlreadyThere from error


async def _copy_rows(cursor: AsyncCursor[Any], rows: Sequence[Row], moment: str) -> None:
    """The text of what follows is written while the server is still busy with what it has been sent."""
    texts, time_text = _Texts(), cache(str)  # most entries share one time
    amounts = [plain(row.entry.amount) for row in rows]
    async with cursor.copy(SQL["copy_keys"]) as copy:
        await _write(copy, (_key(row, amount, moment) for row, amount in zip(rows, amounts, strict=True)))
        entries = [_entry(row, amount, moment, texts, time_text) for row, amount in zip(rows, amounts, strict=True)]
    async with cursor.copy(SQL["copy_entries"]) as copy:
        await _write(copy, entries)
        deltas = list(_deltas(deltas_of(rows), moment, texts))
    metadata = [_metadata(row, moment, row.entry.metadata) for row in rows if row.entry.metadata is not None]
    if metadata:
        async with cursor.copy(SQL["copy_metadata"]) as copy:
            await _write(copy, metadata)
    async with cursor.copy(SQL["copy_deltas"]) as copy:
        await _write(copy, deltas)


async def _write(copy: AsyncCopy, lines: Iterable[str]) -> None:
    ahead = iter(lines)
    while part := "".join(islice(ahead, LINES_PER_WRITE)):
        await copy.write(part)


class _Texts(dict[str | None, str]):
    """Each distinct text escaped once, as COPY's text format wants it."""

    def __missing__(self, text: str | None) -> str:
        self[text] = escaped = r"\N" if text is None else text.translate(_ESCAPES)
        return escaped


def _key(row: Row, amount: str, moment: str) -> str:
    entry, party, _, _ = row
    return f"{entry.key}\t{entry.fingerprint}\t{party.entity_id}\t{party.home_id}\t{amount}\t{moment}\n"


def _entry(row: Row, amount: str, moment: str, texts: _Texts, time_text: Callable[[datetime], str]) -> str:
    entry, party, day, happened = row
    return (
        f"{party.entity_id}\t{moment}\t{entry.key}\t{party.home_id}\t{day}\t{party.actor_id}\t{time_text(happened)}\t"
        f"{amount}\t{entry.category}\t{texts[entry.source]}\t{texts[entry.description]}\t"
        f"{texts[entry.workspace]}\t{texts[entry.workflow]}\t{texts[entry.execution]}\t"
        f"{texts[entry.source_reference]}\t{texts[entry.line]}\n"
    )


def _metadata(row: Row, moment: str, metadata: str) -> str:
    return f"{row.party.entity_id}\t{row.entry.key}\t{moment}\t{metadata.translate(_ESCAPES)}\n"


def _deltas(deltas: Mapping[Delta, DeltaSum], moment: str, texts: _Texts) -> Iterator[str]:
    for which, total in deltas.items():
        yield (
            f"{which.entity_id}\t{which.period_id}\t{which.day}\t{which.actor_id}\t{texts[which.source]}\t"
            f"{texts[which.description]}\t{plain(total.amount)}\t{len(total.keys)}\t{plain(total.digest)}\t"
            f"{plain_array(total.keys)}\t{moment}\n"
        )
