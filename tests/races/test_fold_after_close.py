"""Sealed means consumed: what becomes visible after its period was closed is booked to the open one, entry by entry.

There is no operation that closes a period yet; the superuser sets the state as a seal would, under the fold's lock.
"""

import asyncio
from decimal import Decimal

import pytest
from psycopg import IsolationLevel

from meterbook.book import Book
from meterbook.core.usage_report import UsageReport
from tests.conftest import Clock
from tests.ledger import P1, P2, utc
from tests.races.playing import ORACLE, Connection, connected, rows, said, until
from tests.races.test_keys import levels

ROLLUP = """
select grain, part, detail, amount, entries, digest from meterbook.usage_rollup where period_id = %s order by 1, 2, 3
"""
LATE = """
select k.amount, e.stamped, e.booked from meterbook.late_entry e join meterbook.event_key k using (key) order by 1
"""


async def subscribed(book: Book) -> int:
    """Ada's period of June, with 10 in it."""
    await book.put_subscription(
        id="sub", owner="user:ada", plan="pro_6000", status="active", starts_at=P1[0], ends_at=P1[1]
    )
    return (await book.record_many([said("in time", "10")])).entries[0].period


async def seal(url: str, period: int) -> None:
    """What is visible is folded, and the period closed, in one transaction."""
    async with connected(url) as conn:
        await conn.execute("update meterbook.billing_period set state = 'sealing' where id = %s", [period])
        await conn.commit()
        await conn.execute("select meterbook.compact()")
        await conn.execute("update meterbook.billing_period set state = 'closed' where id = %s", [period])
        await conn.commit()


async def sealed_rollup(url: str, period: int) -> list[tuple[object, ...]]:
    async with connected(url) as conn:
        return await rows(conn, ROLLUP, period)


async def both(book: Book, closed: int) -> tuple[UsageReport, UsageReport]:
    return await book.usage("user:ada", closed), await book.usage("user:ada")


@levels
async def test_what_a_transaction_held_open_across_the_close_is_late(
    book: Book, database_url: str, clock: Clock, level: IsolationLevel
) -> None:
    """Written before the close and committed after it: counted in the open period, before and after the fold; the sealed figures stay."""
    june = await subscribed(book)
    async with connected(database_url, level) as caller:
        await book.record_many([said("one", "0.5")], conn=caller)
        await book.record_many([said(f"of three {n}", "2") for n in range(3)], conn=caller)
        clock.now = utc(2026, 7, 2, 12)
        july = (await book.usage("user:ada")).period.id
        await seal(database_url, june)
        before = await sealed_rollup(database_url, june)
        await caller.commit()
    unfolded = await both(book, june)
    assert await book.verify() == []
    assert (await book.compact()).entities
    folded = await both(book, june)
    for closed, current in (unfolded, folded):
        assert (closed.total, closed.count) == (Decimal(10), 1)
        assert (current.total, current.count, current.period.id) == (Decimal("6.5"), 4, july)
        assert current.by_day == {0: Decimal("6.5")}  # clamped: before the period's start
        assert current.by_actor == {"ada": Decimal("6.5")}
    assert await sealed_rollup(database_url, june) == before
    async with connected(database_url) as conn:
        late = [(Decimal("0.5"), june, july), *[(Decimal(2), june, july)] * 3]
        assert await rows(conn, LATE) == late
    assert await book.verify() == []


@levels
async def test_a_snapshot_that_still_sees_the_period_open(
    book: Book, database_url: str, clock: Clock, level: IsolationLevel
) -> None:
    """A transaction begun before the close records after it, by a clock that is behind: at READ COMMITTED the entry is late at once, at
    stricter levels its stamp is the closed period's and the fold books it to the open one. The money is the same.
    """
    june = await subscribed(book)
    async with connected(database_url, level) as caller:
        await caller.execute("select 1 from meterbook.billing_period")
        clock.now = utc(2026, 7, 2, 12)
        july = (await book.usage("user:ada")).period.id
        await seal(database_url, june)
        before = await sealed_rollup(database_url, june)
        clock.now = utc(2026, 6, 30, 23)
        reply = await book.record_many([said("late", "3")], conn=caller)
        await caller.commit()
    clock.now = utc(2026, 7, 2, 13)
    told = (reply.entries[0].period, reply.entries[0].belongs_to)
    assert told == ((july, june) if level is IsolationLevel.READ_COMMITTED else (june, None))
    for _ in range(2):
        closed, current = await both(book, june)
        assert [closed.total, current.total] == [10, 3]
        assert await book.verify() == []
        await book.compact()
    assert await sealed_rollup(database_url, june) == before
    (entry,) = (await book.entries("user:ada", period=july)).entries
    assert (entry.amount, entry.period, entry.belongs_to) == (Decimal(3), july, june)


async def test_a_retry_of_an_entry_that_became_late_is_replayed(book: Book, database_url: str, clock: Clock) -> None:
    """Also when it names the closed period, which it belongs to; and it can be corrected, in the open period."""
    june = await subscribed(book)
    async with connected(database_url) as caller:
        await book.record_many([said("k", "5")], conn=caller)
        clock.now = utc(2026, 7, 2)
        await seal(database_url, june)
        await caller.commit()
    entries = set()
    for _ in range(2):
        for call in (said("k", "5"), said("k", "5", period=june)):
            reply = await book.record_many([call])
            assert reply.replayed == 1
            entries.add(reply.entries[0].id)
        await book.compact()
    await book.correct(entries.pop(), amount="-2", reason="test", event_key="fix")
    closed, current = await both(book, june)
    assert [closed.total, current.total] == [10, 3]
    assert await book.verify() == []


async def test_a_late_delta_without_a_home_is_kept(book: Book, database_url: str, clock: Clock) -> None:
    """Whatever the reason that nothing is open for an entity: the fold leaves its late entries where they are, other entities' are
    folded, and they are booked once there is a home.
    """
    june = await subscribed(book)
    async with connected(database_url) as caller:
        await book.record_many([said("late", "5")], conn=caller)
        clock.now = utc(2026, 7, 2)
        await seal(database_url, june)
        await caller.execute(
            "update meterbook.billing_period set state = 'closed' where entity_id = meterbook.entity_id_of('user:ada')"
        )
        await caller.execute("update meterbook.subscription set ended_at = %s", [P2[0]])
        await caller.commit()
    await book.record_many([said("another's", "1", "bob")])
    for _ in range(2):
        await book.compact()
        assert await book.verify() == []
        async with connected(database_url) as conn:
            assert await rows(conn, "select sum(amount) from meterbook.usage_delta") == [(Decimal(5),)]
            await conn.execute("update meterbook.period_clock set due_at = 'infinity'")  # it points at a closed period
            await conn.commit()
    assert (await book.usage("user:bob")).total == 1
    async with connected(database_url) as conn:
        await conn.execute("update meterbook.billing_period set state = 'open' where kind = 'free'")
        await conn.commit()
    await book.compact()
    closed, current = await both(book, june)
    assert [closed.total, current.total] == [10, 5]
    assert current.period.kind == "free"
    assert await book.verify() == []


async def test_a_late_delta_of_an_entity_nobody_asks_about_finds_its_home(
    book: Book, database_url: str, clock: Clock
) -> None:
    """Its clock is due, nobody has come by since: the fold opens the next period itself."""
    june = await subscribed(book)
    async with connected(database_url) as caller:
        await book.record_many([said("late", "5")], conn=caller)
        clock.now = utc(2026, 7, 2)
        await seal(database_url, june)
        await caller.commit()
    await book.compact()
    assert [period.starts_at.month for period in await book.periods("user:ada") if period.kind == "dated"] == [7, 6]
    assert (await book.usage("user:ada")).total == 5
    assert await book.verify() == []


async def test_closing_while_everybody_records_loses_nothing(book: Book, database_url: str, clock: Clock) -> None:
    """Writers at every isolation level, the fold, and a close in the middle: every snapshot adds up, no figure of the sealed period moves
    after the seal, and both periods together hold every entry once.
    """
    june = await subscribed(book)
    clock.now = utc(2026, 6, 30, 23, 59)
    done = asyncio.Event()
    sealed = asyncio.Event()
    mismatches: list[object] = []

    async def write(number: int, level: IsolationLevel) -> Decimal:
        written = Decimal(0)
        for n in range(25):
            async with connected(database_url, level) as caller:
                reply = await book.record_many(
                    [said(f"{number}.{n}", str(n + 1)), said(f"{number}.{n}.b")], conn=caller
                )
                if n % 5 == 4 and not sealed.is_set():
                    await asyncio.sleep(0.02)
                if n == 12:
                    await sealed.wait()
                await caller.commit()
                written += reply.amount
        return written

    async def close() -> list[tuple[object, ...]]:
        await asyncio.sleep(0.1)
        await open_july(book, database_url)
        await seal(database_url, june)
        sealed.set()
        return await sealed_rollup(database_url, june)

    async def look() -> None:
        async with connected(database_url) as conn:
            mismatches.extend(await rows(conn, ORACLE))

    looking = [asyncio.create_task(until(done, turn)) for turn in (look, book.compact)]
    closing = asyncio.create_task(close())
    written = await asyncio.gather(*(write(number, level) for number, level in enumerate(list(IsolationLevel)[1:] * 2)))
    done.set()
    await asyncio.gather(*looking)
    assert mismatches == []
    clock.now = utc(2026, 7, 3)
    await book.compact()
    closed, current = await both(book, june)
    assert closed.total + current.total == 10 + sum(written)
    assert closed.total > 10
    assert current.total > 0
    assert await sealed_rollup(database_url, june) == await closing
    assert await book.verify() == []


async def open_july(book: Book, url: str) -> None:
    """As a process would whose clock is ahead."""
    async with connected(url) as conn:
        await attribute(conn)
    assert len([period for period in await book.periods("user:ada") if period.kind == "dated"]) == 2


async def attribute(conn: Connection) -> None:
    await conn.execute("select meterbook.attribute('{}', '{user:ada}', '{}', %s)", [utc(2026, 7, 2)])
    await conn.commit()


@pytest.mark.parametrize("turns", [1, 3])
async def test_an_entry_can_be_late_only_once(book: Book, database_url: str, clock: Clock, turns: int) -> None:
    """Period after period is closed while one transaction stays open: its entry is booked once, where it first found an open period."""
    june = await subscribed(book)
    async with connected(database_url) as caller:
        await book.record_many([said("late", "5")], conn=caller)
        for turn in range(turns):
            clock.now = utc(2026, 7 + turn, 2)
            await book.usage("user:ada")
            await seal(database_url, june if turn == 0 else (await book.usage("user:ada", "last")).period.id)
        await caller.commit()
    await book.compact()
    current = await book.usage("user:ada")
    await seal(database_url, current.period.id)
    clock.now = utc(2026, 7 + turns, 2)
    await book.compact()
    assert (await book.usage("user:ada", current.period.id)).total == 5
    assert (await book.usage("user:ada")).total == 0
    assert await book.verify() == []
