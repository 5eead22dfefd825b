"""Monthly partitions of the ledger: made ahead by themselves, at nobody's cost; and rows that nobody changes, whoever asks."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

import meterbook
from meterbook.book import Book
from tests.conftest import Clock
from tests.races.playing import connected, first_contact, rows, said

PARTITIONS = """
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'meterbook.usage_log'::regclass order by 1
"""
HOLDING = """
select tableoid::regclass::text, count(*) from meterbook.usage_log group by 1 order by 1
"""


async def partitions(url: str) -> list[str]:
    async with connected(url) as conn:
        return [name for (name,) in await rows(conn, PARTITIONS)]


def months_from(start: datetime, count: int) -> list[str]:
    months = [divmod(start.year * 12 + start.month - 1 + n, 12) for n in range(count)]
    return [f"usage_log_y{year}m{month + 1:02}" for year, month in months]


async def test_a_migrated_ledger_has_partitions_for_a_year(database_url: str) -> None:
    """Of this month and the twelve that follow, beside the default one."""
    assert set(months_from(datetime.now(UTC), 13)) | {"usage_log_default"} <= set(await partitions(database_url))


async def test_opening_and_compacting_make_the_partitions_ahead(database_url: str, clock: Clock) -> None:
    """By the clock of whoever opens the book or folds; again, nothing is made."""
    async with meterbook.open(database_url, clock=clock) as book:
        assert set(months_from(clock.now, 13)) <= set(await partitions(database_url))
        clock.now = clock.now.replace(year=2031)
        await book.compact()
        ahead = await partitions(database_url)
        assert set(months_from(clock.now, 13)) <= set(ahead)
        await book.compact()
    assert await partitions(database_url) == ahead


async def test_entries_lie_in_the_partition_of_their_month(book: Book, database_url: str, clock: Clock) -> None:
    """Also at the very edges, which are UTC's whatever the session's time zone."""
    clock.now = datetime(2026, 7, 1, tzinfo=UTC) - timedelta(microseconds=1)
    await book.record_many([said("june")])
    clock.now = datetime(2026, 7, 1, tzinfo=UTC)
    async with connected(database_url, timezone="Pacific/Kiritimati") as conn:
        await book.record_many([said("july")], conn=conn)
        await conn.commit()
        assert await rows(conn, HOLDING) == [("meterbook.usage_log_y2026m06", 1), ("meterbook.usage_log_y2026m07", 1)]


async def test_a_month_without_a_partition_refuses_no_entry(book: Book, database_url: str, clock: Clock) -> None:
    """The row goes to the default partition, counts like any other, and the doctor says so; partitions of other months are still made."""
    clock.now = datetime(2051, 3, 5, tzinfo=UTC)
    await book.record_many([said("stray", "5")])
    async with connected(database_url) as conn:
        assert await rows(conn, HOLDING) == [("meterbook.usage_log_default", 1)]
    assert (await book.usage("user:ada")).total == 5
    advice = {finding.name: finding for finding in await book.doctor()}["default partition"]
    assert (advice.ok, advice.value) == (False, "has rows")
    await book.compact()
    made = await partitions(database_url)
    assert "usage_log_y2051m03" not in made
    assert set(months_from(clock.now, 13)[1:]) <= set(made)
    assert (await book.usage("user:ada")).total == 5
    assert await book.verify() == []
    assert (await book.record_many([said("stray", "5")])).replayed == 1
    fix = await book.correct(
        next(iter((await book.entries("user:ada")).entries)).id, amount="-1", reason="x", event_key="f"
    )
    assert fix.inserted == 1


async def test_an_empty_default_partition_is_well(book: Book) -> None:
    """The doctor is content with partitions three months ahead and nothing astray."""
    findings = {finding.name: finding for finding in await book.doctor()}
    assert findings["default partition"].ok
    assert findings["partitions ahead"].ok


async def test_making_partitions_stops_no_recorder(book: Book, database_url: str) -> None:
    """While a caller's transaction holds the locks of a recorder, partitions are made, and recorders (who refuse to wait for a lock at
    all) go on beside it.
    """
    await first_contact(book, "ada")
    async with connected(database_url) as caller, connected(database_url) as maker:
        await caller.execute("alter function meterbook.record_usage set lock_timeout = '1ms'")
        await caller.commit()
        await book.record_many([said("open"), said("open too")], conn=caller)
        ((made,),) = await rows(maker, "select meterbook.ensure_partitions(at => '2040-01-01')")
        assert made > 0
        replies = await asyncio.gather(*(book.record_many([said(f"beside {n}")]) for n in range(50)))
        assert sum(reply.inserted for reply in replies) == 50
        await maker.commit()
        await caller.commit()
    assert set(months_from(datetime(2040, 1, 1, tzinfo=UTC), 13)) <= set(await partitions(database_url))
    assert (await book.usage("user:ada")).total == 2 + 50


async def test_a_reader_who_stays_delays_the_partitions_not_the_recorders(book: Book, database_url: str) -> None:
    """A transaction that has read the whole ledger holds the default partition: nothing is made and nobody is stopped; later it is made."""
    await first_contact(book, "ada")
    async with connected(database_url) as reader:
        await reader.execute("select count(*) from meterbook.usage_log")
        async with connected(database_url) as maker:
            making = asyncio.create_task(
                rows(maker, "select meterbook.ensure_partitions(months_ahead => 2, at => '2040-01-01')")
            )
            replies = await asyncio.gather(*(book.record_many([said(f"beside {n}")]) for n in range(50)))
            assert await making == [(0,)]
        assert sum(reply.inserted for reply in replies) == 50
    async with connected(database_url) as maker:
        assert await rows(maker, "select meterbook.ensure_partitions(months_ahead => 2, at => '2040-01-01')") == [(3,)]


async def test_two_who_make_partitions_do_not_wait_for_each_other(database_url: str) -> None:
    """The second one leaves it to the first."""
    async with connected(database_url) as first, connected(database_url) as second:
        assert await rows(first, "select meterbook.ensure_partitions(months_ahead => 0, at => '2040-01-01')") == [(1,)]
        assert await rows(second, "select meterbook.ensure_partitions(months_ahead => 0, at => '2040-02-01')") == [(0,)]


APPEND_ONLY = ["event_key", "usage_log", "late_entry"]
CHANGES = {
    "update": "update meterbook.{} set entity_id = entity_id",
    "delete": "delete from meterbook.{}",
    "truncate": "truncate meterbook.{}",
    "truncate, cascading": "truncate meterbook.{} cascade",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_nobody_changes_what_has_been_counted(book: Book, database_url: str, change: str) -> None:
    """UPDATE, DELETE and TRUNCATE of keys, entries and late bookings are refused for the superuser too, on the ledger as a whole and on
    each of its partitions, also where triggers are switched off for a replica (I2).
    """
    await book.record_many([said("k")])
    async with connected(database_url) as conn:
        await conn.execute(
            "insert into meterbook.late_entry (entity_id, key, stamped, booked)"
            " select entity_id, key, period_id, period_id from meterbook.event_key"
        )
        await conn.commit()
        refused = []
        full = "usage_log_y2026m06"
        for role in ("origin", "replica"):
            for table in [*APPEND_ONLY, full] + (await partitions(database_url) if "truncate" in change else []):
                await conn.execute(f"set session_replication_role = {role}".encode())
                with pytest.raises(psycopg.Error) as error:
                    await conn.execute(CHANGES[change].format(table).encode())
                refused.append(error.value.sqlstate)
                await conn.rollback()
        assert set(refused) == {"MB010"}
        assert await rows(conn, "select count(*) from meterbook.usage_log") == [(1,)]
