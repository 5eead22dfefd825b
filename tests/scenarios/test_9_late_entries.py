"""Section 9: period close, as far as entries and periods; the close itself is simulated."""

from decimal import Decimal
from typing import Any

from meterbook import Book
from tests.ledger import P0, P1, P2, amounts, close, place_of, subscribe, sums, total, use, utc, windows


async def test_s67_a_row_that_comes_after_the_close(book: Book, database_url: str, clock: Any) -> None:
    """P1 closed with 47.25; at 05:00 a row of 3.00 stamped P1 → accepted once, booked to P2, naming P1. Σ ledger = Σ periods."""
    await subscribe(book, "user:u")
    june = (await use(book, "u", "47.25")).entries[0].period
    clock.now = utc(2026, 7, 1, 2)
    await book.usage("user:u")
    close(database_url, june)
    clock.now = utc(2026, 7, 1, 5)
    late, again = [await use(book, "u", "3.00", "K", period=june) for _ in range(2)]
    assert [late.amount, again.amount] == [3, 0]
    assert late.entries[0].belongs_to == again.entries[0].belongs_to == june
    assert await place_of(book, late) == ("user:u", P2)
    assert [await total(book, "user:u", period) for period in (june, "current")] == [Decimal("47.25"), 3]
    assert sums(database_url) == {"user:u": Decimal("50.25")}


async def test_s67_a_running_total_across_periods(book: Book, database_url: str, clock: Any) -> None:
    """0.4 in P0; 1.0 and 1.3 in P1; 1.5 in P2 → 0.4 / 0.9 / 0.2."""
    clock.now = utc(2026, 5, 31, 23)
    await subscribe(book, "user:u", window=P0)
    by_period = {}
    for moment, flushes in ((clock.now, ["0.4"]), (utc(2026, 6, 2), ["1.0", "1.3"]), (utc(2026, 7, 1), ["1.5"])):
        clock.now = moment
        for so_far in flushes:
            await book.record_cumulative("u", request="r", total=so_far, source="agent", description="m")
        by_period[(await book.usage("user:u")).period.id] = await total(book, "user:u")
        if len(by_period) > 1:
            close(database_url, next(iter(by_period)))
    assert list(by_period.values()) == [Decimal("0.4"), Decimal("0.9"), Decimal("0.2")]
    assert amounts(database_url) == [Decimal("0.2"), Decimal("0.3"), Decimal("0.4"), Decimal("0.6")]


async def test_s71_a_re_anchored_subscription_cuts_its_window(book: Book, database_url: str, clock: Any) -> None:
    """8.00 on each of days 0–9, annual from 06-11 on → [06-01, 06-11) has refresh 2.50, overage 47.50; [06-11, 07-11) starts at 0."""
    clock.now = utc(2026, 6, 1)
    await subscribe(book, "user:u")
    for day in range(10):
        clock.now = utc(2026, 6, 1 + day, 12)
        await use(book, "u", "8.00")
    clock.now = utc(2026, 6, 11)
    await subscribe(book, "user:u", window=(utc(2026, 6, 11), utc(2027, 6, 11)), interval="year")
    assert windows(database_url, "user:u") == [(P1[0], utc(2026, 6, 11)), (utc(2026, 6, 11), utc(2026, 7, 11))]
    cut = await book.usage("user:u", "last")
    assert (cut.refresh, cut.overage) == (Decimal("2.50"), Decimal("47.50"))
    usage = await book.usage("user:u")
    assert (usage.total, usage.included) == (Decimal(0), Decimal(30))
