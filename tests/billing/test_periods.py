"""Opening, cutting and amending periods through the Book (BEHAVIOUR §4, §7, §10)."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

import meterbook
from meterbook import Book
from tests.bills import charged, check_books, invoices, lump, pays, state_of
from tests.conftest import Clock
from tests.ledger import P1, P2, query, use, utc, windows


async def test_month_ends_are_clamped_from_the_original_anchor(book: Book, clock: Clock, database_url: str) -> None:
    """31 January 10:30 → 29 February (2028) → 31 March → 30 April."""
    clock.now = utc(2028, 2, 1)
    await pays(book, "user:u", window=(utc(2028, 1, 31, 10, 30), utc(2028, 2, 29, 10, 30)))
    clock.now = utc(2028, 5, 1)
    await book.sweep()
    starts = [start for start, _ in windows(database_url, "user:u")]
    assert starts == [
        utc(2028, 1, 31, 10, 30),
        utc(2028, 2, 29, 10, 30),
        utc(2028, 3, 31, 10, 30),
        utc(2028, 4, 30, 10, 30),
    ]


async def test_a_year_has_monthly_windows_each_with_its_own_included(
    book: Book, clock: Clock, database_url: str
) -> None:
    """40.25 in each of two months of an annual plan: 10.00 each."""
    await pays(book, "user:u", window=(utc(2026, 6, 11), utc(2027, 6, 11)), interval="year")
    for month in (6, 7):
        clock.now = utc(2026, month, 20)
        await use(book, "u", "40.25")
    clock.now = utc(2026, 8, 12)
    await book.sweep()
    assert await charged(book, "user:u") == [1_000, 1_000]
    assert windows(database_url, "user:u")[:2] == [
        (utc(2026, 6, 11), utc(2026, 7, 11)),
        (utc(2026, 7, 11), utc(2026, 8, 11)),
    ]
    await check_books(book, database_url)


async def test_stripes_end_moves_ours_while_it_runs(book: Book, clock: Clock, database_url: str) -> None:
    """Same start, another end: the period ends there, and the next begins there."""
    await pays(book, "user:u")
    await use(book, "u", "40.25")
    longer = (P1[0], utc(2026, 7, 5))
    await pays(book, "user:u", window=longer)
    clock.now = utc(2026, 7, 3)
    assert (await book.sweep()).closed == 0
    clock.now = utc(2026, 7, 5, 1)
    assert (await book.sweep()).closed == 1
    assert windows(database_url, "user:u")[0] == longer
    assert (await book.usage("user:u")).period.starts_at == longer[1]
    await check_books(book, database_url)


async def test_stripes_end_moves_ours_after_it_has_passed_and_before_it_closes(
    book: Book, clock: Clock, database_url: str
) -> None:
    """07-01 00:30, P2 opened by the clock and empty: Stripe says that P1 ends on 07-05. It runs on, nothing closes before."""
    await pays(book, "user:u")
    await use(book, "u", "40.25")
    clock.now = utc(2026, 7, 1, 0, 30)
    await book.sweep()
    await pays(book, "user:u", window=(P1[0], utc(2026, 7, 5)))
    clock.now = utc(2026, 7, 2)
    assert (await book.sweep()).closed == 0
    assert (await book.usage("user:u")).total == Decimal("40.25")
    clock.now = utc(2026, 7, 5, 1)
    assert (await book.sweep()).closed >= 1
    assert await charged(book, "user:u") == [1_000]
    await check_books(book, database_url)


async def test_a_trial_that_ends_begins_an_ordinary_period(book: Book, clock: Clock, database_url: str) -> None:
    """Trialing 06-01 … 06-15, then active 06-15 … 07-15, learned a day late: two periods, what came between is the second's."""
    clock.now = utc(2026, 6, 10)
    await pays(book, "user:u", window=(P1[0], utc(2026, 6, 15)), status="trialing")
    await use(book, "u", "31.25")
    clock.now = utc(2026, 6, 15, 12)
    await use(book, "u", "2")
    clock.now = utc(2026, 6, 16)
    second = (utc(2026, 6, 15), utc(2026, 7, 15))
    await pays(book, "user:u", window=second)
    await book.sweep()
    assert windows(database_url, "user:u") == [(P1[0], second[0]), second]
    assert ((await book.usage("user:u")).total, await invoices(book)) == (2, [100])
    await check_books(book, database_url)


async def test_a_plan_effective_at_the_start_replaces_what_the_clock_assumed(book: Book, clock: Clock) -> None:
    """P2 opened as pro_25000; on 07-03 Stripe says pro_6000 since 07-01: included 30; since 07-02: 125."""
    await pays(book, "user:u", "pro_25000")
    await pays(book, "user:v", "pro_25000")
    clock.now = utc(2026, 7, 3)
    await book.sweep()
    await pays(book, "user:u", "pro_6000", P2, effective_at=P2[0])
    await pays(book, "user:v", "pro_6000", P2, effective_at=utc(2026, 7, 2))
    assert ((await book.usage("user:u")).included, (await book.usage("user:v")).included) == (30, 125)


async def test_a_plan_that_changes_before_the_start_is_the_one_that_begins(book: Book, clock: Clock) -> None:
    """P2 was sold as pro_25000 on 06-10 and is changed to pro_6000 on 06-12, before it begins: included 30."""
    clock.now = utc(2026, 6, 10)
    await pays(book, "user:u", "pro_25000", P2)
    clock.now = utc(2026, 6, 12)
    await pays(book, "user:u", "pro_6000", P2)
    clock.now = utc(2026, 7, 3)
    usage = await book.usage("user:u")
    assert (usage.included, usage.period.plan) == (30, "pro_6000")


async def test_the_newest_word_holds_from_now_where_an_older_one_was_of_a_later_instant(
    book: Book, clock: Clock
) -> None:
    """pro_25000 said of 06-05, then pro_6000 since 06-03: both were in force in June, in July pro_6000 alone."""
    await pays(book, "user:u", "pro_25000", effective_at=utc(2026, 6, 5))
    await pays(book, "user:u", "pro_6000", effective_at=utc(2026, 6, 3))
    assert (await book.usage("user:u")).included == 125
    clock.now = utc(2026, 7, 3)
    assert (await book.usage("user:u")).included == 30


async def test_a_cancellation_learned_late_cuts_at_its_own_time(book: Book, database_url: str) -> None:
    """Cancelled on 06-15, learned on 06-20: the period ended on 06-15, its rows since count in the last bucket."""
    await pays(book, "user:u")
    await lump(book, "u", "40.25", 3)
    await lump(book, "u", "1.00", 13)
    await lump(book, "u", "1.00", 17)
    await pays(book, "user:u", status="canceled", effective_at=utc(2026, 6, 15))
    await book.sweep()
    assert windows(database_url, "user:u") == [(P1[0], utc(2026, 6, 15))]
    # 42.25 − 0.25 − 0.25 − 30
    assert await charged(book, "user:u") == [1_175]
    await check_books(book, database_url)


async def test_what_was_to_cancel_ends_by_the_clock(book: Book, clock: Clock, database_url: str) -> None:
    """cancel_at_period_end: no next period, free pays from the end on, one close."""
    await pays(book, "user:u", cancel_at_period_end=True)
    await use(book, "u", "40.25")
    clock.now = P1[1]
    assert (await use(book, "u", "1")).entries[0].belongs_to is None
    assert (await book.usage("user:u")).period.kind == "free"
    clock.now = utc(2026, 9, 1)
    assert (await book.sweep()).closed == 1
    assert (windows(database_url, "user:u"), await charged(book, "user:u")) == ([P1], [1_000])
    await check_books(book, database_url)


@pytest.mark.parametrize("seats", [(3, 5), (5, 3)])
async def test_the_allowance_is_the_largest_of_the_period(book: Book, clock: Clock, seats: tuple[int, int]) -> None:
    """Three and five seats in either order: 150 and 1.25 for all its days; the next period has the last number."""
    await book.put_organization("o", owner="boss")
    await pays(book, "organization:o", "team_6000", seats=seats[0])
    clock.now = utc(2026, 6, 25)
    await pays(book, "organization:o", "team_6000", seats=seats[1])
    period = (await book.usage("organization:o")).period
    assert (period.included, period.refresh_per_day) == (150, Decimal("1.25"))
    clock.now = P2[0]
    assert (await book.usage("organization:o")).included == seats[1] * 30


async def test_calendar_months_of_the_free_plan_close_too(database_url: str, clock: Clock) -> None:
    """4.99 in June, July is fresh; June is sealed without a charge, a late row of it goes to July."""
    query(database_url, "update meterbook.ledger set free_period = 'calendar'")
    catalog = replace(meterbook.load_catalog(), free_period="calendar")
    async with meterbook.open(database_url, clock=clock, catalog=catalog) as book:
        await use(book, "u", "4.99")
        clock.now = utc(2026, 7, 1, 2)
        assert (await book.check("u")).used == 0
        assert (await book.sweep()).closed == 1
        late = (await use(book, "u", "1", occurred_at=P1[1] - timedelta(hours=1))).entries[0]
        assert late.belongs_to is not None
        assert ((await book.usage("user:u")).total, await state_of(book, "user:u")) == (1, "closed")
        await check_books(book, database_url)


async def test_a_cancellation_that_is_taken_back_goes_on(book: Book, clock: Clock, database_url: str) -> None:
    """Before the end by our clock, and after it by Stripe's later word: the next period is there, what free took meanwhile stays."""
    await pays(book, "user:u", cancel_at_period_end=True)
    clock.now = utc(2026, 6, 25)
    await pays(book, "user:u")
    clock.now = utc(2026, 7, 2)
    assert (await book.usage("user:u")).period.starts_at == P2[0]
    await pays(book, "user:u", window=P2, cancel_at_period_end=True)
    clock.now = utc(2026, 8, 1, 0, 30)
    await use(book, "u", "1")
    assert (await book.usage("user:u")).period.kind == "free"
    await pays(book, "user:u", window=(utc(2026, 8, 1), utc(2026, 9, 1)))
    usage = await book.usage("user:u")
    assert (usage.period.starts_at, usage.total) == (utc(2026, 8, 1), 0)
    clock.now = utc(2026, 8, 1, 3)
    await book.sweep()
    await check_books(book, database_url)
