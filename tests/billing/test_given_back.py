"""What corrections give back (BEHAVIOUR §3.7)."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

import asyncio
from decimal import Decimal

import pytest

from meterbook import Book
from meterbook.core.ledgers import Billed
from meterbook.operations.close_period import fence_period, seal_period
from tests.bills import balance, charged, check_books, lump, pays, period_id, somebody_waits
from tests.conftest import Clock
from tests.ledger import P2, query, utc
from tests.races.playing import connected

AFTER = utc(2026, 7, 1, 2)


async def correct(book: Book, entry: str, amount: str, key: str | None = None) -> None:
    await book.correct(entry, amount=amount, reason="test", event_key=key or f"correct {entry} by {amount}")


async def closed_p1(book: Book, clock: Clock, used: str = "80.25") -> str:
    """P1 closed and billed 50.00; gives the entry of that usage."""
    await pays(book, "user:u")
    entry = await lump(book, "u", used)
    clock.now = AFTER
    await book.sweep()
    return entry


async def test_of_a_closed_period_the_difference_of_the_bill_is_given_back(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Billed 50.00, corrected by −20 → 20.00 as credit without expiry; P2 shows the row, its effective usage and P1 don't move."""
    entry = await closed_p1(book, clock)
    await use_10_in_p2(book)
    await correct(book, entry, "-20")
    account = await book.credits("user:u")
    assert [(one.amount_cents, one.source, one.expires_at) for one in account.grants] == [(2_000, "correction", None)]
    current, last = await book.usage("user:u"), await book.usage("user:u", "last")
    assert (current.total, current.effective, current.given_back) == (-10, Decimal("9.75"), -20)
    assert (last.total, last.billed_cents) == (Decimal("80.25"), 5_000)
    await check_books(book, database_url)


async def use_10_in_p2(book: Book) -> None:
    await lump(book, "u", "10", window=P2)


async def test_no_more_is_given_back_than_was_billed(book: Book, clock: Clock, database_url: str) -> None:
    """−30, then −50.25 more: 30 + 20 = the 50.00 that was billed; the included is nobody's money."""
    entry = await closed_p1(book, clock)
    await correct(book, entry, "-30")
    assert await balance(book, "user:u") == 3_000
    await correct(book, entry, "-50.25")
    assert await balance(book, "user:u") == 5_000
    await check_books(book, database_url)


async def test_a_correction_counts_on_the_day_of_its_entry(book: Book, clock: Clock) -> None:
    """A day of 0.20 that falls to 0 loses its refresh of 0.20: nothing is given back for it."""
    await pays(book, "user:u")
    small = await lump(book, "u", "0.20", 3)
    await lump(book, "u", "80.25")
    clock.now = AFTER
    await book.sweep()
    assert await charged(book, "user:u") == [5_000]
    await correct(book, small, "-0.20")
    assert await balance(book, "user:u") == 0


async def test_the_same_correction_gives_back_once(book: Book, clock: Clock) -> None:
    """Retried, and 10 at a time: one row, one grant."""
    entry = await closed_p1(book, clock)
    await asyncio.gather(*(correct(book, entry, "-20", "fix") for _ in range(10)))
    assert await balance(book, "user:u") == 2_000


async def test_corrections_at_once_give_back_what_they_do_one_by_one(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Eight of −10 on 80.25 with 50.00 billed → 50.00."""
    entry = await closed_p1(book, clock)
    await asyncio.gather(*(correct(book, entry, "-10", f"fix {n}") for n in range(8)))
    assert await balance(book, "user:u") == 5_000
    await check_books(book, database_url)


async def test_a_positive_correction_of_a_closed_period_is_late_usage(
    book: Book, clock: Clock, database_url: str
) -> None:
    """+5 counts in P2's effective usage; −5 after it is given back only as far as P1's own bill falls."""
    entry = await closed_p1(book, clock)
    await correct(book, entry, "5")
    assert ((await book.usage("user:u")).effective, await balance(book, "user:u")) == (Decimal("4.75"), 0)
    await correct(book, entry, "-5")
    assert await balance(book, "user:u") == 0
    await check_books(book, database_url)


@pytest.mark.parametrize("closing", [False, True])
async def test_of_a_running_period_the_surplus_is_used_up_first_and_the_close_gives_back(
    book: Book, clock: Clock, database_url: str, closing: bool
) -> None:
    """Billed 120.00, corrected by −50: nothing now; 20 more is used up; at the close min(120, 140) − 90 = 30.00."""
    await pays(book, "user:u")
    entry = await lump(book, "u", "150.25")
    assert await book.bill_threshold("user:u") == Billed(12_000, 0, None)
    if closing:
        clock.now = utc(2026, 7, 1, 0, 30)
    await correct(book, entry, "-50")
    await lump(book, "u", "20")
    assert (await balance(book, "user:u"), (await book.usage("user:u", await period_id(book, "user:u"))).overage) == (
        0,
        90,
    )
    clock.now = AFTER
    await book.sweep()
    assert (await charged(book, "user:u"), await balance(book, "user:u")) == ([12_000], 3_000)
    await check_books(book, database_url)


async def test_an_upgrade_gives_nothing_back(book: Book, clock: Clock, database_url: str) -> None:
    """Billed 120.00 on pro_6000, overage 25.25 on pro_25000 at the close: no credit; with a correction of −10 only its own part."""
    await pays(book, "user:u")
    entry = await lump(book, "u", "150.25")
    await book.bill_threshold("user:u")
    clock.now = utc(2026, 6, 25)
    await pays(book, "user:u", "pro_25000")
    await correct(book, entry, "-10")
    clock.now = AFTER
    await book.sweep()
    # min(120.00, 24.25) − 14.25
    assert (await charged(book, "user:u"), await balance(book, "user:u")) == ([12_000], 1_000)
    await check_books(book, database_url)


async def test_an_upgrade_alone_gives_nothing_back(book: Book, clock: Clock) -> None:
    """The surplus of 95.75 stays billed."""
    await pays(book, "user:u")
    await lump(book, "u", "150.25")
    await book.bill_threshold("user:u")
    clock.now = utc(2026, 6, 25)
    await pays(book, "user:u", "pro_25000")
    clock.now = AFTER
    await book.sweep()
    assert (await charged(book, "user:u"), await balance(book, "user:u")) == ([12_000], 0)


async def test_a_correction_between_the_fence_and_the_seal_is_given_back_by_the_seal(
    book: Book, clock: Clock, database_url: str
) -> None:
    """The closer died behind the fence; −20 is booked to P2 and P1 is then billed 50.00 in full: 20.00 come back, once."""
    await pays(book, "user:u")
    entry = await lump(book, "u", "80.25")
    clock.now = AFTER
    entity, period = await fenced(book)
    await correct(book, entry, "-20")
    assert await balance(book, "user:u") == 0
    async with book._pool.connection() as conn, conn.transaction():
        assert await seal_period(conn, entity, period, book.catalog, clock.now) == "closed"
    assert (await charged(book, "user:u"), await balance(book, "user:u")) == ([5_000], 2_000)
    await correct(book, entry, "-40")
    assert await balance(book, "user:u") == 5_000
    await check_books(book, database_url)


async def fenced(book: Book) -> tuple[int, int]:
    """P1 of user:u behind its fence, the closer dead."""
    await book.usage("user:u")
    async with book._pool.connection() as conn:
        entity = (await (await conn.execute("select meterbook.entity_id_of('user:u')")).fetchall())[0][0]
        period = await period_id(book, "user:u")
        async with conn.transaction():
            assert await fence_period(conn, entity, period, book.catalog, utc(2026, 7, 1, 2)) == "fenced"
    return entity, period


async def test_days_behind_a_cut_count_in_the_last_bucket_also_when_they_are_corrected(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Cut back to day 10 after 0.10 on each of days 9 and 15, one bucket: −0.10 of it loses its refresh too, nothing is given back."""
    await pays(book, "user:u")
    await lump(book, "u", "80.25")
    await lump(book, "u", "0.10", 9)
    behind = await lump(book, "u", "0.10", 15)
    await pays(book, "user:u", window=(utc(2026, 6, 11), utc(2026, 7, 11)))
    clock.now = utc(2026, 6, 20, 14)
    await book.sweep()
    assert await charged(book, "user:u") == [5_000]
    await correct(book, behind, "-0.10")
    assert await balance(book, "user:u") == 0
    assert query(database_url, "select count(*) from meterbook.sealed_period") == [(1,)]


async def test_a_close_waits_for_a_correction_that_takes_back(book: Book, clock: Clock, database_url: str) -> None:
    """Written to P1 in a transaction that is open as the closer comes: it is P1's, and P2 owes no less."""
    await pays(book, "user:u")
    entry = await lump(book, "u", "80.25")
    clock.now = utc(2026, 7, 1, 0, 30)
    await book.usage("user:u")
    async with connected(database_url) as caller:
        await book.correct(entry, amount="-20", reason="test", event_key="fix", conn=caller)
        clock.now = AFTER
        closing = asyncio.create_task(book.sweep())
        await somebody_waits(database_url)
        await caller.commit()
        await closing
    await book.sweep()
    await lump(book, "u", "10", window=P2)
    charges = sum(await charged(book, "user:u"))
    assert charges - await balance(book, "user:u") == 3_000
    assert (await book.usage("user:u")).effective == Decimal("9.75")
    await check_books(book, database_url)


async def test_all_corrections_after_a_close_count_in_hindsight(book: Book, clock: Clock, database_url: str) -> None:
    """Billed 50.00; +10 is late usage of P2; −10 leaves the closed one at its bill: nothing comes back (ADR 0022)."""
    entry = await closed_p1(book, clock)
    await correct(book, entry, "10")
    await correct(book, entry, "-10")
    current = await book.usage("user:u")
    assert (await balance(book, "user:u"), current.total, current.given_back) == (0, 0, -10)
    await correct(book, entry, "-10", "and again")
    assert await balance(book, "user:u") == 1_000
    await check_books(book, database_url)
