"""Section 5, and what of section 4 has a baseline."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

import meterbook
from meterbook import Book
from tests.bills import lump, organization, pays
from tests.conftest import Clock
from tests.ledger import P1, use, utc


async def test_s25_a_baseline_and_the_ledger_add_up(database_url: str, clock: Clock) -> None:
    """Baseline 18.40 (its audit rows too), stamped rows 3.10, refresh forced to 0 → 21.50; not 3.10, not 39.90."""
    shipped = meterbook.load_catalog()
    plans = tuple(replace(plan, refresh=Decimal(0)) for plan in shipped.plans)
    async with meterbook.open(database_url, clock=clock, catalog=replace(shipped, plans=plans)) as book:
        await pays(book, "user:u")
        await book.set_baseline("user:u", "18.40", audit=[(P1[0], "10.00"), (P1[0] + timedelta(days=3), "8.40")])
        await lump(book, "u", "3.10", 12)
        usage = await book.usage("user:u")
    assert (usage.effective, usage.baseline) == (Decimal("21.50"), Decimal("18.40"))


@pytest.mark.parametrize(
    ("a_day", "after", "refresh", "effective", "overage"),
    [("4.00", "10.00", "2.75", "47.25", "17.25"), ("1.00", "2.00", "2.75", "9.25", "0")],
)
async def test_s29_baseline_usage_is_refreshed_too(
    book: Book, clock: Clock, a_day: str, after: str, refresh: str, effective: str, overage: str
) -> None:
    """Cutover on day 10: 4.00 on each of days 0–9, then 10.00 → refresh 2.75, usage 47.25; the origin gave 0.25 and 49.75."""
    clock.now = utc(2026, 6, 11, 12)
    await pays(book, "user:u")
    quarter = str(Decimal(a_day) / 4)
    audit = [(P1[0] + timedelta(days=day, hours=hour), quarter) for day in range(10) for hour in (1, 7, 13, 19)]
    await book.set_baseline("user:u", str(10 * Decimal(a_day)), audit=audit)
    await lump(book, "u", after, 10)
    usage = await book.usage("user:u")
    assert (usage.refresh, usage.effective, usage.overage) == (Decimal(refresh), Decimal(effective), Decimal(overage))


async def test_s30_each_day_is_refreshed_up_to_its_cap(book: Book) -> None:
    """Day 0: 0.10, day 1: 0.25, day 2: 1.00, day 5: 0.30 + 0.40 → refresh 0.85, usage 1.20."""
    await pays(book, "user:u")
    for day, amount in [(0, "0.10"), (1, "0.25"), (2, "1.00"), (5, "0.30"), (5, "0.40")]:
        await lump(book, "u", amount, day)
    usage = await book.usage("user:u")
    assert (usage.refresh, usage.effective) == (Decimal("0.85"), Decimal("1.20"))


async def test_s32_a_pool_has_one_cap_a_day(book: Book) -> None:
    """team_6000 × 3: A 0.70 and B 0.10 in one bucket → refresh 0.75, usage 0.05; caps a member would give 0.35."""
    await organization(book, "o", "a", "b", seats=3)
    await lump(book, "a", "0.70")
    await lump(book, "b", "0.10")
    usage = await book.usage("organization:o")
    assert (usage.refresh, usage.effective) == (Decimal("0.75"), Decimal("0.05"))


async def test_s33_a_member_who_left_keeps_having_been_refreshed(book: Book) -> None:
    """team_6000 × 2, day 0: A 0.30, B 0.20; B leaves → refresh 0.50, usage 0; the origin 0.30 and 0.20."""
    await organization(book, "o", "a", "b", seats=2)
    await lump(book, "a", "0.30")
    await lump(book, "b", "0.20")
    await book.remove_member("o", "b")
    usage = await book.usage("organization:o")
    assert (usage.refresh, usage.effective) == (Decimal("0.50"), Decimal(0))


@pytest.mark.parametrize("plan", [None, "enterprise"])
async def test_s35_no_refresh_on_free_and_enterprise(book: Book, plan: str | None) -> None:
    """Free, enterprise, no dated period → 0."""
    if plan is not None:
        await pays(book, "user:u", plan)
    await use(book, "u", "3.00")
    usage = await book.usage("user:u")
    assert (usage.refresh, usage.effective) == (Decimal(0), Decimal("3.00"))
