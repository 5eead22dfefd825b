"""Σ entries = Σ rollup + Σ delta at every instant, whoever is writing, folding, or being killed."""

import asyncio
import contextlib
import random
from decimal import Decimal

from meterbook.book import Book
from meterbook.errors import LedgerUnavailable
from tests.races.playing import (
    ORACLE,
    Tried,
    connected,
    first_contact,
    rows,
    said,
    until,
    write_batches,
    write_in_own_transactions,
    write_singly,
)

VICTIMS = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and application_name = 'meterbook' and state <> 'idle' and pid <> pg_backend_pid()
order by random() limit 1
"""


async def test_entries_equal_rollups_and_deltas_in_every_snapshot(book: Book, database_url: str, seed: int) -> None:
    """Single writers, batches, callers' transactions with aborts and savepoints, two compactors and killed backends run, an oracle and
    a verifier read all the while: no mismatch. In the end exactly what was acknowledged is there.
    """
    chance = random.Random(seed)
    await first_contact(book, *(f"actor {n}" for n in range(7)), "ada")
    tried, done = Tried(), asyncio.Event()
    mismatches: list[object] = []

    async def look() -> None:
        async with connected(database_url) as conn:
            mismatches.extend(await rows(conn, ORACLE))

    async def verify() -> None:
        mismatches.extend(await book.verify())

    async def kill() -> None:
        await asyncio.sleep(chance.random() / 4)
        async with connected(database_url) as conn:
            await rows(conn, VICTIMS)

    async def write() -> None:
        await asyncio.gather(
            *(write_singly(book, tried, f"single {n}", random.Random(seed + n), 80) for n in range(8)),
            *(write_batches(book, tried, f"batch {n}", random.Random(seed - n), 40) for n in range(3)),
            *(write_in_own_transactions(book, database_url, tried, f"own {n}", chance, 30) for n in range(3)),
        )
        done.set()

    looking = asyncio.create_task(until(done, look))
    await asyncio.gather(
        write(), until(done, verify), *(until(done, book.compact) for _ in range(2)), until(done, kill)
    )
    assert await looking > 3
    assert mismatches == []
    async with connected(database_url) as conn:
        ((total, stored),) = await rows(conn, "select sum(amount), count(*) from meterbook.usage_log")
        ((acknowledged,),) = await rows(
            conn,
            "select count(*) from meterbook.event_key where key in (select meterbook.event_key(k) from unnest(%s::text[]) k)",
            list(tried.acknowledged),
        )
    assert (total, stored, acknowledged) == (tried.total, len(tried.acknowledged), len(tried.acknowledged))
    for _ in range(20):  # the pool may still hand out connections whose backends were killed
        with contextlib.suppress(LedgerUnavailable):
            await book.compact()
            break
    assert await book.verify() == []


async def test_usage_read_while_writing_is_always_a_figure_that_was_true(book: Book) -> None:
    """A writer records 1, 2, 3 … one after the other while two compactors fold: each figure read is a sum of a prefix, none goes back."""
    await first_contact(book, "ada")
    done = asyncio.Event()
    seen: list[Decimal] = []
    breakdowns: list[bool] = []

    async def write() -> None:
        for n in range(1, 151):
            await book.record_many([said(f"key {n}", str(n))])
        done.set()

    async def read() -> None:
        usage = await book.usage("user:ada")
        seen.append(usage.total)
        parts = (usage.by_actor, usage.by_day, usage.by_source, usage.by_description)
        breakdowns.append(all(sum(part.values()) == usage.total for part in parts))

    await asyncio.gather(write(), until(done, read), *(until(done, book.compact) for _ in range(2)))
    legal = {Decimal(n * (n + 1) // 2) for n in range(151)}
    assert set(seen) <= legal
    assert seen == sorted(seen)
    assert all(breakdowns)
    assert len(set(seen)) > 3


async def test_a_reader_of_one_snapshot_sees_one_figure(book: Book, database_url: str) -> None:
    """Inside a REPEATABLE READ transaction the figure stays, while entries are added and folded (I6)."""
    await book.record_many([said("first", "5")])
    statement = (
        "select amount from meterbook.usage_terms((select id from meterbook.billing_entity where external_id = 'ada'), %s, %s)"
        " where grain = 'total'"
    )
    usage = await book.usage("user:ada")
    async with connected(database_url) as conn:
        await conn.execute("set transaction isolation level repeatable read")
        before = await rows(conn, statement, usage.period.id, usage.period.starts_at)
        await book.record_many([said("second", "7")])
        await book.compact()
        assert await rows(conn, statement, usage.period.id, usage.period.starts_at) == before == [(Decimal(5),)]
    assert (await book.usage("user:ada")).total == 12
