"""The same keys from several connections: one row a key, no deadlock, and callers' transactions that stay what they were."""

import asyncio
import random
import time
from datetime import timedelta
from decimal import Decimal
from functools import partial

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus

from meterbook.book import Book
from meterbook.core.recorded import Recorded
from meterbook.errors import (
    AttributionUnavailable,
    InProgress,
    InvalidUsage,
    KeyConflict,
    MeterbookError,
    TransactionConflict,
    Unavailable,
)
from tests.conftest import Clock
from tests.races.playing import LEVELS, Connection, connected, first_contact, insist, rows, said

levels = pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name.lower())


async def count(url: str, table: str) -> int:
    async with connected(url) as conn:
        ((found,),) = await rows(conn, f"select count(*) from meterbook.{table}")
    return int(found)


async def deadlocks(url: str) -> int:
    async with connected(url) as conn:
        await conn.execute("select pg_stat_force_next_flush()")
        ((found,),) = await rows(conn, "select deadlocks from pg_stat_database where datname = current_database()")
    return int(found)


async def test_overlapping_batches_in_opposite_orders_never_deadlock(book: Book, database_url: str, seed: int) -> None:
    """Eight connections record shuffled, overlapping batches of 120 keys again and again: no deadlock, and one row a key."""
    await first_contact(book, "ada")
    keys = [f"key {n}" for n in range(120)]

    async def write(number: int) -> Recorded:
        chance = random.Random(seed + number)
        inserted = replayed = 0
        async with connected(database_url) as conn:
            await conn.set_autocommit(True)
            for _ in range(12):
                batch = [said(key) for key in chance.sample(keys, 100)]
                reply = await book.record_many(batch, conn=conn)
                inserted, replayed = inserted + reply.inserted, replayed + reply.replayed
        return Recorded(inserted, replayed, Decimal(inserted), ())

    replies = await asyncio.gather(*(write(number) for number in range(8)))
    assert sum(reply.inserted for reply in replies) == await count(database_url, "event_key") == 120
    assert sum(reply.inserted + reply.replayed for reply in replies) == 8 * 12 * 100
    assert await deadlocks(database_url) == 0
    assert (await book.usage("user:ada")).total == 120


async def test_opposite_orders_over_several_calls_are_answered_as_retryable(book: Book, database_url: str) -> None:
    """Sorting protects one call only: two transactions that record two keys in opposite orders deadlock, one of them is told to repeat
    the whole transaction, and then there is one row a key.
    """
    await first_contact(book, "ada")
    met = asyncio.Barrier(2)

    async def both(first: str, second: str) -> Recorded:
        async with connected(database_url, deadlock_timeout="100ms") as conn:
            await book.record_many([said(first)], conn=conn)
            await met.wait()
            reply = await book.record_many([said(second)], conn=conn)
            await conn.commit()
            return reply

    results = await asyncio.gather(both("a", "b"), both("b", "a"), return_exceptions=True)
    (refused,) = (result for result in results if isinstance(result, BaseException))
    assert isinstance(refused, TransactionConflict)
    assert refused.retryable
    assert (await book.record_many([said("a"), said("b")])).replayed == 2


@levels
async def test_callers_at_each_isolation_level_record_exactly_once(
    book: Book, database_url: str, level: IsolationLevel, seed: int
) -> None:
    """Six callers record the same 30 keys in their own transactions and repeat those that are refused as retryable: one row a key."""

    async def write(number: int) -> None:
        order = random.Random(seed + number).sample(range(30), 30)
        for start in range(0, 30, 5):
            batch = [said(f"key {n}", str(n + 1), f"actor {n % 3}") for n in order[start : start + 5]]
            await insist(partial(commit, batch))

    async def commit(batch: list[dict[str, object]]) -> Recorded:
        async with connected(database_url, level, deadlock_timeout="20ms") as conn:
            reply = await book.record_many(batch, conn=conn)
            await conn.commit()
            return reply

    await asyncio.gather(*(write(number) for number in range(6)))
    assert await count(database_url, "usage_log") == 30
    assert sum([(await book.usage(f"user:actor {n}")).total for n in range(3)]) == 30 * 31 // 2
    assert await book.verify() == []


@pytest.mark.parametrize("level", LEVELS[1:], ids=lambda level: level.name.lower())
async def test_a_key_committed_after_the_snapshot_asks_to_repeat_the_transaction(
    book: Book, database_url: str, level: IsolationLevel
) -> None:
    """40001 reaches the caller as TransactionConflict, which is retryable; repeated, the entry is replayed."""
    await first_contact(book, "ada")
    async with connected(database_url, level) as conn:
        await conn.execute("select 1 from meterbook.event_key")
        await book.record_many([said("k")])
        with pytest.raises(TransactionConflict) as refused:
            await book.record_many([said("k")], conn=conn)
        await conn.rollback()
        assert refused.value.retryable
        assert (await book.record_many([said("k")], conn=conn)).replayed == 1


@levels
async def test_first_contact_in_a_callers_transaction(book: Book, database_url: str, level: IsolationLevel) -> None:
    """An actor nobody has heard of: at READ COMMITTED the entry is recorded; at stricter levels the snapshot can't see who pays, which is
    refused as retryable (I4), and recorded when the transaction is repeated.
    """
    async with connected(database_url, level) as conn:
        if level is IsolationLevel.READ_COMMITTED:
            assert (await book.record_many([said("k")], conn=conn)).inserted == 1
            return
        await conn.execute("select 1 from meterbook.actor")
        with pytest.raises(AttributionUnavailable):
            await book.record_many([said("k")], conn=conn)
        assert conn.info.transaction_status == TransactionStatus.INTRANS
        await conn.rollback()
        assert (await book.record_many([said("k")], conn=conn)).inserted == 1


REFUSED: list[tuple[dict[str, object], type[MeterbookError]]] = [
    ({"event_key": "taken", "amount": "2"}, KeyConflict),
    ({"workspace": "nowhere"}, InvalidUsage),
    ({"entity": "organization:nobody"}, InvalidUsage),
    ({"period": 987_654_321}, InvalidUsage),
    ({"amount": "-1"}, InvalidUsage),
]


@levels
@pytest.mark.parametrize(("wrong", "error"), REFUSED, ids=["conflict", "workspace", "entity", "period", "amount"])
async def test_a_callers_transaction_survives_a_refusal(
    book: Book, database_url: str, level: IsolationLevel, wrong: dict[str, object], error: type[MeterbookError]
) -> None:
    """A call that is refused, alone or with sound entries, writes nothing, and the transaction goes on: what was done before and after
    it is committed.
    """
    await book.record_many([said("taken")])
    async with connected(database_url, level) as conn:
        await book.record_many([said("before", "10")], conn=conn)
        for companions in ([], [said(f"companion {n}", "100") for n in range(3)]):
            with pytest.raises(error):
                await book.record_many([said("wrong") | wrong, *companions], conn=conn)
            assert conn.info.transaction_status == TransactionStatus.INTRANS
        await book.record_many([said("after", "20")], conn=conn)
        await conn.commit()
    assert (await book.usage("user:ada")).total == 1 + 10 + 20
    assert await book.verify() == []


async def test_a_future_time_is_refused_and_the_transaction_goes_on(
    book: Book, database_url: str, clock: Clock
) -> None:
    """More than five minutes ahead of the ledger's clock: refused by the database, inside the caller's transaction."""
    await first_contact(book, "ada")
    async with connected(database_url) as conn:
        with pytest.raises(InvalidUsage):
            await book.record_many([said("k", occurred_at=clock.now + timedelta(minutes=6)), said("l")], conn=conn)
        await book.record_many([said("k", occurred_at=clock.now + timedelta(minutes=5))], conn=conn)
        await conn.commit()
    assert (await book.usage("user:ada")).total == 1


@levels
async def test_rolled_back_entries_vanish(book: Book, database_url: str, level: IsolationLevel) -> None:
    """The work and its charge commit or vanish together, also to a savepoint; the keys are free again."""
    await first_contact(book, "ada")
    async with connected(database_url, level) as conn:
        await book.record_many([said("kept", "3")], conn=conn)
        await undo(conn, book, said("undone", "40"), said("undone too", "40"))
        await book.record_many([said("kept as well", "4")], conn=conn)
        await conn.commit()
        await book.record_many([said("vanishes", "500")], conn=conn)
        await conn.rollback()
    assert (await book.usage("user:ada")).total == 7
    reply = await book.record_many([said("undone", "1"), said("vanishes", "1")])
    assert reply.inserted == 2
    assert await book.verify() == []


async def undo(conn: Connection, book: Book, *entries: dict[str, object]) -> None:
    """Records and rolls back to a savepoint."""
    async with conn.transaction() as savepoint:
        await book.record_many(entries, conn=conn)
        raise psycopg.Rollback(savepoint)


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
async def test_a_second_writer_of_a_key_waits_for_the_first(book: Book, database_url: str, outcome: str) -> None:
    """First committed → the second is replayed; first rolled back → the second writes (§3.4)."""
    await first_contact(book, "ada")
    async with connected(database_url) as first:
        await book.record_many([said("k")], conn=first)
        second = asyncio.create_task(book.record_many([said("k")]))
        await until_blocked(database_url, 1)
        assert not second.done()
        await getattr(first, outcome)()
    reply = await second
    assert (reply.inserted, reply.replayed) == ((0, 1) if outcome == "commit" else (1, 0))
    assert (await book.usage("user:ada")).total == 1


async def test_a_second_writer_waits_five_seconds_at_most(book: Book, database_url: str) -> None:
    """Then it gets in_progress, which is retryable, and its own transaction goes on; the first one rolled back, it writes."""
    await first_contact(book, "ada")
    async with connected(database_url) as first, connected(database_url) as second:
        await book.record_many([said("k")], conn=first)
        started = time.monotonic()
        single, batch, running = await asyncio.gather(
            book.record_many([said("k")], conn=second),
            book.record_many([said("k"), said("l")]),
            waits_for_a_running_total(book, database_url),
            return_exceptions=True,
        )
        assert [type(result) for result in (single, batch, running)] == [InProgress] * 3
        assert time.monotonic() - started > 4
        assert second.info.transaction_status == TransactionStatus.INTRANS
        await first.rollback()
        assert (await book.record_many([said("k")], conn=second)).inserted == 1
        await second.commit()
    assert (await book.usage("user:ada")).total == 1


async def waits_for_a_running_total(book: Book, url: str) -> Recorded:
    async def flush(total: str, conn: Connection | None) -> Recorded:
        return await book.record_cumulative(
            "ada", request="r", total=total, source="copilot", description="gpt-4o", conn=conn
        )

    async with connected(url) as first:
        await flush("5", first)
        return await flush("6", None)


async def until_blocked(url: str, backends: int) -> None:
    """Returns when so many backends wait for a lock; the clock only bounds it."""
    async with connected(url) as conn, asyncio.timeout(10):
        await conn.set_autocommit(True)
        while True:
            ((blocked,),) = await rows(
                conn,
                "select count(*) from pg_stat_activity where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0",
            )
            if blocked >= backends:
                return


async def test_fifty_flushes_of_a_running_total_in_any_order(book: Book, seed: int) -> None:
    """The maximum is kept, whatever the order of arrival: the ledger's sum is the largest total that was reported (§3.6)."""
    totals = random.Random(seed).sample(range(1, 51), 50)
    flush = partial(book.record_cumulative, "ada", request="r", source="copilot", description="gpt-4o")
    await asyncio.gather(*(insist(partial(flush, total=total)) for total in totals))
    assert (await book.usage("user:ada")).total == 50


async def test_racing_corrections_never_take_more_than_there_was(book: Book, database_url: str) -> None:
    """Twenty corrections of -1 on an entry of 12, at once and beside a fold: twelve are taken, eight refused, nothing is below 0."""
    entry = (await book.record_many([said("k", "12")])).entries[0].id

    async def correct(number: int) -> Recorded:
        return await book.correct(entry, amount="-1", reason="test", event_key=f"fix {number}")

    results = await asyncio.gather(*(correct(n) for n in range(20)), book.compact(), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert [getattr(error, "code", error) for error in refused] == ["correction_refused"] * 8
    assert (await book.usage("user:ada")).total == 0
    assert await book.verify() == []
    with pytest.raises(MeterbookError):
        await correct(99)
    assert await count(database_url, "usage_log") == 13


async def test_a_lost_race_for_a_serialization_is_retryable_in_every_verb(book: Book, database_url: str) -> None:
    """Corrections and running totals in callers' SERIALIZABLE transactions: what fails fails as retryable, and the sum is exact."""
    entry = (await book.record_many([said("k", "100")])).entries[0].id

    async def both(number: int) -> Recorded:
        async with connected(database_url, IsolationLevel.SERIALIZABLE, deadlock_timeout="20ms") as conn:
            await book.correct(entry, amount="-1", reason="test", event_key=f"fix {number}", conn=conn)
            reply = await book.record_cumulative(
                "ada", request="r", total=10 + number, source="copilot", description="gpt-4o", conn=conn
            )
            try:
                await conn.commit()
            except psycopg.errors.SerializationFailure as error:
                raise Unavailable from error
            return reply

    await asyncio.gather(*(insist(partial(both, number)) for number in range(6)))
    assert (await book.usage("user:ada")).total == 100 - 6 + 15
    assert await book.verify() == []
