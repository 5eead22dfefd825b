"""Section 9: period close. S63 without the webhook, S69 without an import."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

from datetime import timedelta
from decimal import Decimal

import pytest

from meterbook import Book
from tests.bills import (
    alerts,
    balance,
    charged,
    check_books,
    invoices,
    lump,
    organization,
    pays,
    period_id,
    state_of,
)
from tests.conftest import Clock
from tests.ledger import P0, P1, P2, query, sums, use, utc, windows

AFTER = utc(2026, 7, 1, 2)


async def s62(book: Book, clock: Clock) -> None:
    """P1 billed 100.00, lump finally 145.25 (overage 115.00), credits 4.00; it is 07-01 02:00."""
    await pays(book, "user:u")
    await lump(book, "u", "130.25")
    await book.sweep()
    await lump(book, "u", "15.00")
    await book.grant_credit("user:u", amount="4.00", grant_id="g")
    clock.now = AFTER


async def check_s62(book: Book, database_url: str, p2_total: str) -> None:
    assert await charged(book, "user:u") == await invoices(book) == [10_000, 1_100]
    assert await balance(book, "user:u") == 0
    last, current = await book.usage("user:u", "last"), await book.usage("user:u")
    assert (last.period.state, last.total) == ("closed", Decimal("145.25"))
    assert (current.period.starts_at, current.total, current.billed_cents) == (P2[0], Decimal(p2_total), 0)
    await check_books(book, database_url)


async def test_s62_normal_close(book: Book, clock: Clock, database_url: str) -> None:
    """Close at 07-01 02:00 → charge of 1 100 cents, credits 0, P1 closed (usage 145.25), P2 open with nothing billed."""
    await s62(book, clock)
    assert (await book.sweep()).closed == 1
    await check_s62(book, database_url, "0")


@pytest.mark.parametrize("renewal", ["before the close", "after the close", "never"])
async def test_s63_the_close_reads_its_own_period(book: Book, clock: Clock, database_url: str, renewal: str) -> None:
    """P2 has 2.00 and the renewal is reported before, after or never: as S62. The origin computed from 2.00 and lost 15.00."""
    await s62(book, clock)
    await use(book, "u", "2.00")
    if renewal == "before the close":
        await pays(book, "user:u", window=P2)
    await book.sweep()
    if renewal == "after the close":
        await pays(book, "user:u", window=P2)
        await book.sweep()
    assert await charged(book, "user:u") == [10_000, 1_100]
    await check_s62(book, database_url, "2.00")


@pytest.mark.parametrize(
    ("used", "credit", "charges", "written_off"),
    [("30.74", None, [], 49), ("30.75", None, [50], 0), ("31.05", "0.40", [], 40)],
)
async def test_s65_minimum(
    book: Book, clock: Clock, database_url: str, used: str, credit: str | None, charges: list[int], written_off: int
) -> None:
    """0.49 is forgiven, recorded; 0.50 is charged; 0.80 with credits 0.40 → credits 0, 0.40 forgiven."""
    await pays(book, "user:u")
    await lump(book, "u", used)
    if credit:
        await book.grant_credit("user:u", amount=credit, grant_id="g")
    clock.now = AFTER
    await book.sweep()
    assert await charged(book, "user:u") == await invoices(book) == charges
    usage = await book.usage("user:u", "last")
    assert (usage.facts.written_off_cents, usage.period.state) == (written_off, "closed")
    assert await balance(book, "user:u") == 0
    await check_books(book, database_url)


@pytest.mark.parametrize(("day", "refresh", "cents"), [(29, "0.25", 1_700), (5, "0.50", 1_675)])
async def test_s66_grace_and_stragglers(
    book: Book, clock: Clock, database_url: str, day: int, refresh: str, cents: int
) -> None:
    """Lump 40.25; a run attributed to P1 writes 7.00 at 00:30. Sweep 00:59:59 → nothing; 01:00:00 → 1 700 (day 5: 1 675)."""
    clock.now = utc(2026, 6, 30, 23, 30)
    await pays(book, "user:u")
    await lump(book, "u", "40.25", day)
    attribution = await book.resolve("u")
    clock.now = utc(2026, 7, 1, 0, 30)
    await use(book, "u", "7.00", attribution=attribution.token)
    clock.now = utc(2026, 7, 1, 0, 59, 59)
    assert (await book.sweep()).closed == 0
    assert await invoices(book) == []
    clock.now = utc(2026, 7, 1, 1)
    assert (await book.sweep()).closed == 1
    usage = await book.usage("user:u", "last")
    assert (usage.total, usage.refresh) == (Decimal("47.25"), Decimal(refresh))
    assert await invoices(book) == [cents]
    await check_books(book, database_url)


async def test_s67_after_the_close(book: Book, clock: Clock, database_url: str) -> None:
    """P1 closed with 47.25; at 05:00 a row stamped P1 with 3.00 → once, booked to P2 with a reference to P1; P1 stays 47.25."""
    await pays(book, "user:u")
    await lump(book, "u", "47.25")
    attribution = await book.resolve("u")
    first = await period_id(book, "user:u")
    clock.now = AFTER
    await book.sweep()
    clock.now = utc(2026, 7, 1, 5)
    late = await use(book, "u", "3.00", "late", attribution=attribution.token)
    again = await use(book, "u", "3.00", "late", attribution=attribution.token)
    assert (late.inserted, again.inserted) == (1, 0)
    assert (late.entries[0].period, late.entries[0].belongs_to) == (await period_id(book, "user:u", P2), first)
    assert (await book.usage("user:u", first)).total == Decimal("47.25")
    assert (await book.usage("user:u")).total == Decimal("3.00")
    assert sums(database_url) == {"user:u": Decimal("50.25")}
    await check_books(book, database_url)


async def test_s67_a_running_total_goes_on_in_the_next_period(book: Book, clock: Clock, database_url: str) -> None:
    """0.4 in P0; 1.0 and 1.3 in P1; 1.5 in P2 → 0.4 / 0.9 / 0.2, together 1.5."""
    clock.now = utc(2026, 5, 20)
    await pays(book, "user:u", window=P0)
    for now, total in [
        (clock.now, "0.4"),
        (utc(2026, 6, 2), "1.0"),
        (utc(2026, 6, 9), "1.3"),
        (utc(2026, 7, 9), "1.5"),
    ]:
        clock.now = now
        await book.sweep()
        await book.record_cumulative("u", request="r", total=total, source="copilot", description="m")
    found = [(await book.usage("user:u", await period_id(book, "user:u", window))).total for window in (P0, P1, P2)]
    assert found == [Decimal("0.4"), Decimal("0.9"), Decimal("0.2")]
    await check_books(book, database_url)


async def test_s68_deferred_without_ids_never_forgiven(book: Book, clock: Clock, database_url: str) -> None:
    """Overage 115, credits 15, customer id missing → not closed, alert, credits still 15; repaired → 10 000 cents, credits 0."""
    await pays(book, "user:u", stripe_customer=None)
    await lump(book, "u", "145.25")
    await book.grant_credit("user:u", amount="15", grant_id="g")
    clock.now = AFTER
    for _ in range(2):
        swept = await book.sweep()
        assert (swept.closed, swept.deferred) == (0, 1)
    assert (await state_of(book, "user:u"), await balance(book, "user:u")) == ("closing", 1_500)
    assert [alert for alert in await alerts(book, "user:u") if not alert.startswith("limit")] == ["close_deferred"]
    await pays(book, "user:u", window=P2)
    await book.sweep()
    assert (await charged(book, "user:u"), await balance(book, "user:u")) == ([10_000], 0)
    assert await state_of(book, "user:u") == "closed"
    await check_books(book, database_url)


async def test_s68_deferred_without_an_owner(book: Book, clock: Clock, database_url: str) -> None:
    """An organization without an owner: not closed, credits untouched; repaired → closed with 10 000 cents."""
    await organization(book, "o")
    await lump(book, "boss", "145.25")
    await book.grant_credit("organization:o", amount="15", grant_id="g")
    query(database_url, "update meterbook.organization set owner_id = null")
    clock.now = AFTER
    await book.sweep()
    assert await state_of(book, "organization:o") == "closing"
    assert await balance(book, "organization:o") == 1_500
    query(database_url, "update meterbook.organization set owner_id = (select id from meterbook.actor limit 1)")
    await book.sweep()
    assert (await charged(book, "organization:o"), await balance(book, "organization:o")) == ([10_000], 0)
    await check_books(book, database_url)


async def test_s68_nothing_to_charge_needs_no_ids(book: Book, clock: Clock, database_url: str) -> None:
    """Overage 0 and ids missing → closed."""
    await pays(book, "user:u", stripe_customer=None, stripe_subscription=None)
    await lump(book, "u", "30.25")
    clock.now = AFTER
    assert (await book.sweep()).closed == 1
    await check_books(book, database_url)


async def test_s69_first_contact_with_a_running_subscription(book: Book, clock: Clock, database_url: str) -> None:
    """First heard of in P1 → P1 is opened and nothing before it; a period of history is never billed nor closed again."""
    await pays(book, "user:u")
    query(
        database_url,
        "insert into meterbook.billing_period"
        " (entity_id, kind, starts_at, ends_at, plan, seats, included, refresh_per_day, state, opened_at)"
        " select entity_id, 'history', %s, %s, plan, seats, included, refresh_per_day, 'closed', opened_at"
        " from meterbook.billing_period where kind = 'dated'",
        *P0,
    )
    await book.sweep()
    assert windows(database_url, "user:u") == [P1]
    clock.now = AFTER
    assert (await book.sweep()).closed == 1
    assert await invoices(book) == []


async def test_s71_a_period_that_is_cut_short(book: Book, clock: Clock, database_url: str) -> None:
    """8.00 on each of days 0–9; on 06-11 annual: the cut period has refresh 2.50, overage 47.50 → 4 750; the new one usage 0."""
    clock.now = utc(2026, 6, 10, 23)
    await pays(book, "user:u")
    for day in range(10):
        await lump(book, "u", "8.00", day)
    clock.now = utc(2026, 6, 11)
    await pays(book, "user:u", window=(utc(2026, 6, 11), utc(2027, 6, 11)), interval="year")
    clock.now = utc(2026, 6, 11, 1)
    await book.sweep()
    last, current = await book.usage("user:u", "last"), await book.usage("user:u")
    assert (last.refresh, last.overage, last.included) == (Decimal("2.50"), Decimal("47.50"), 30)
    assert await invoices(book) == [4_750]
    assert windows(database_url, "user:u") == [(P1[0], utc(2026, 6, 11)), (utc(2026, 6, 11), utc(2026, 7, 11))]
    assert (current.effective, current.billed_cents, current.included) == (0, 0, 30)
    await check_books(book, database_url)


async def test_s72_deletion_of_a_subscription(book: Book, clock: Clock, database_url: str) -> None:
    """Lump 100.25 (overage 70.00), credits 20.00, deleted → 5 000 cents, credits 0; told twice → once; the limit is 5 again."""
    await pays(book, "user:u")
    await lump(book, "u", "100.25")
    await book.grant_credit("user:u", amount="20", grant_id="g")
    for minutes in (0, 30, 90):
        clock.now = utc(2026, 6, 20, 12) + timedelta(minutes=minutes)
        await pays(book, "user:u", status="canceled")
        await book.sweep()
    assert (await charged(book, "user:u"), await invoices(book), await balance(book, "user:u")) == ([5_000], [5_000], 0)
    assert windows(database_url, "user:u") == [(P1[0], utc(2026, 6, 20, 12))]
    assert (await book.check("u")).limit == 5
    await check_books(book, database_url)


async def test_s74_bookkeeping_is_idempotent(book: Book, clock: Clock, database_url: str) -> None:
    """Baseline 18.40 + 3.10 closed → last period 21.50; again → 21.50, where the origin's second call gave 3.10."""
    await pays(book, "user:u")
    await book.set_baseline("user:u", "18.40")
    await lump(book, "u", "3.10")
    clock.now = AFTER
    for _ in range(2):
        await book.sweep()
        await book.close("user:u")
        last, current = await book.usage("user:u", "last"), await book.usage("user:u")
        assert (last.total, last.period.state) == (Decimal("21.50"), "closed")
        assert (current.total, current.baseline) == (0, 0)
    await check_books(book, database_url)


async def test_s74_a_replayed_subscription_leaves_what_was_billed(book: Book, clock: Clock) -> None:
    """A replayed "subscription created" leaves P2's billed 100.00 untouched."""
    await pays(book, "user:u")
    clock.now = utc(2026, 7, 20)
    await lump(book, "u", "130.25", window=P2)
    await book.sweep()
    for window in (P1, P2):
        await pays(book, "user:u", window=window)
        usage = await book.usage("user:u")
        assert (usage.billed_cents, usage.period.starts_at, usage.period.ends_at) == (10_000, *P2)
    await book.sweep()
    assert await invoices(book) == [10_000]
