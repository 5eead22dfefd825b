"""Closing periods (BEHAVIOUR §10): when, in which order, what waits, what is kept."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

import meterbook
from meterbook import Book
from meterbook.core.ledgers import Billed
from meterbook.errors import UnsettledMoney
from tests.billing.test_given_back import fenced
from tests.bills import (
    alerts,
    balance,
    charged,
    check_books,
    invoices,
    lump,
    organization,
    pays,
    somebody_waits,
    state_of,
)
from tests.conftest import Clock
from tests.ledger import P1, P2, holding, query, use, utc, windows

AFTER = utc(2026, 7, 1, 2)
GRACE = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)


async def test_nothing_closes_before_the_end_and_the_grace(book: Book, clock: Clock) -> None:
    """A microsecond before: closing, and it takes its own rows; at the instant: closed."""
    await pays(book, "user:u")
    clock.now = P1[1] - INSTANT
    assert (await book.usage("user:u")).period.state == "open"
    clock.now = P1[1]
    assert await state_of(book, "user:u") == "closing"
    clock.now = P1[1] + GRACE - INSTANT
    await lump(book, "u", "1", 29)
    assert (await book.sweep()).closed == 0
    clock.now = P1[1] + GRACE
    assert (await book.sweep()).closed == 1
    assert (await book.usage("user:u", "last")).total == 1


async def test_no_threshold_while_a_period_is_closing(book: Book, clock: Clock) -> None:
    """Overage 150 that arrives at 00:30 waits for the close; limits look at the next period."""
    await pays(book, "user:u")
    clock.now = P1[1] + GRACE / 2
    await lump(book, "u", "180.25", 29)
    await book.sweep()
    assert await book.bill_threshold("user:u") == Billed(0, 0, "below_threshold")
    assert await invoices(book) == []
    assert (await book.check("u")).used == 0
    clock.now = P1[1] + GRACE
    await book.sweep()
    assert await invoices(book) == [15_000]


@pytest.mark.parametrize("at", [utc(2026, 7, 1), P2[1] - INSTANT])
async def test_who_pays_at_a_boundary_is_half_open(book: Book, clock: Clock, at: datetime) -> None:
    """At the exact end an entry is the next period's; a microsecond before it is still this one's."""
    await pays(book, "user:u")
    clock.now = at
    entry = (await use(book, "u", "1", occurred_at=at)).entries[0]
    assert entry.period == (await book.usage("user:u")).period.id
    assert (await book.usage("user:u")).period.starts_at == P2[0]


async def test_several_periods_behind_are_closed_one_by_one(book: Book, clock: Clock, database_url: str) -> None:
    """Overages 10, 20 and 30 of three months that nobody looked at: three charges, oldest first; credits pay the oldest."""
    await pays(book, "user:u")
    await book.grant_credit("user:u", amount="4", grant_id="g")
    for month, used in [(6, "40.25"), (7, "50.25"), (8, "60.25")]:
        clock.now = utc(2026, month, 20, 12)
        await use(book, "u", used)
    clock.now = utc(2026, 9, 10)
    assert (await book.sweep()).closed == 3
    assert await charged(book, "user:u") == [600, 2_000, 3_000]
    await check_books(book, database_url)


async def test_months_without_usage_are_opened_and_closed_too(book: Book, clock: Clock, database_url: str) -> None:
    """Nobody came by from June to December: six closed periods, no charge, the seventh is open."""
    await pays(book, "user:u")
    clock.now = utc(2026, 12, 10)
    assert (await book.sweep()).closed == 6
    assert len(windows(database_url, "user:u")) == 7
    assert await invoices(book) == []
    await check_books(book, database_url)


async def test_a_deferred_close_holds_back_the_later_ones_and_no_other_entity(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Ids missing: P1 and P2 wait, told once; another's closes; repaired, both close oldest first."""
    await pays(book, "user:u", stripe_subscription=None)
    await pays(book, "user:other")
    await use(book, "u", "40.25")
    clock.now = utc(2026, 7, 20)
    await use(book, "u", "50.25")
    clock.now = utc(2026, 8, 2)
    for closed in (2, 0):
        swept = await book.sweep()
        assert (swept.closed, swept.deferred) == (closed, 1)
    assert [one for one in await alerts(book, "user:u") if not one.startswith("limit")] == ["close_deferred"]
    assert (await state_of(book, "user:u"), await state_of(book, "user:u", P2)) == ("closing", "closing")
    await pays(book, "user:u", window=(P2[1], utc(2026, 9, 1)))
    assert (await book.sweep()).closed == 2
    assert await charged(book, "user:u") == [1_000, 2_000]
    await check_books(book, database_url)


async def test_a_deferred_period_goes_on_taking_its_own_rows(book: Book, clock: Clock, database_url: str) -> None:
    """5.00 more of P1, recorded a day later, is P1's and in its charge."""
    await pays(book, "user:u", stripe_customer=None)
    await use(book, "u", "40.25")
    clock.now = AFTER
    await book.sweep()
    clock.now = utc(2026, 7, 2)
    await lump(book, "u", "5", 19)
    await pays(book, "user:u", window=P2)
    await book.sweep()
    assert await charged(book, "user:u") == [1_500]
    await check_books(book, database_url)


@pytest.mark.parametrize("status", ["past_due", "active"])
async def test_blocked_or_past_due_defers_no_close(book: Book, clock: Clock, database_url: str, status: str) -> None:
    """Neither stops the final charge, where both stop a threshold."""
    await pays(book, "user:u", status=status)
    await use(book, "u", "180.25")
    await book.block("user:u", reason="payment_failed", reference="in_1")
    await book.sweep()
    assert await invoices(book) == []
    clock.now = AFTER
    await book.sweep()
    assert await invoices(book) == [15_000]
    await check_books(book, database_url)


async def test_credits_that_pay_it_all_need_no_ids(book: Book, clock: Clock, database_url: str) -> None:
    """Only a charge is deferred: 10.00 paid by credits closes without ids, and 0.40 of rest is written off without them."""
    await pays(book, "user:u", stripe_customer=None)
    await use(book, "u", "40.25")
    await book.grant_credit("user:u", amount="9.60", grant_id="g")
    clock.now = AFTER
    assert (await book.sweep()).closed == 1
    usage = await book.usage("user:u", "last")
    assert (usage.credits_cents, usage.facts.written_off_cents) == (960, 40)
    await check_books(book, database_url)


async def test_enterprise_is_closed_and_sealed_and_never_charged(book: Book, clock: Clock, database_url: str) -> None:
    """5 000 used: no charge, sealed figures all the same."""
    await organization(book, "o", plan="enterprise")
    await use(book, "boss", "5000")
    clock.now = AFTER
    assert (await book.sweep()).closed == 1
    assert query(database_url, "select amount, entries, overage, charged_cents from meterbook.sealed_period") == [
        (5000, 1, 0, 0)
    ]
    await check_books(book, database_url)


async def test_the_seal_keeps_the_final_figures(book: Book, clock: Clock, database_url: str) -> None:
    """Totals, row count, digest, actors; the digest is the ledger's, whatever was folded before."""
    await organization(book, "o", "a", "b", seats=2)
    await lump(book, "a", "60.50")
    await book.compact()
    await lump(book, "b", "60.00")
    await book.set_baseline("organization:o", "5.00")
    clock.now = AFTER
    await book.sweep()
    assert query(
        database_url,
        "select baseline, amount, entries, refresh, effective, overage, charged_cents from meterbook.sealed_period",
    ) == [(5, Decimal("120.50"), 2, Decimal("0.50"), 125, 65, 6_500)]
    assert query(
        database_url,
        "select a.external_id, s.amount, s.entries from meterbook.sealed_actor s join meterbook.actor a on a.id = s.actor_id order by 1",
    ) == [("a", Decimal("60.50"), 1), ("b", 60, 1)]
    ((sealed, of_ledger),) = query(
        database_url,
        "select s.digest, (select sum(meterbook.key_weight(l.key) * l.amount) from meterbook.usage_log l"
        " where l.entity_id = s.entity_id and l.period_id = s.period_id) from meterbook.sealed_period s",
    )
    assert sealed == of_ledger
    await check_books(book, database_url)


async def test_a_sealed_period_never_changes(book: Book, clock: Clock, database_url: str) -> None:
    """Late rows, new plans, other bounds and a second sweep leave every figure of it as it was."""
    await pays(book, "user:u")
    await use(book, "u", "40.25")
    clock.now = AFTER
    await book.sweep()
    before = query(database_url, "select * from meterbook.sealed_period")
    period = query(database_url, "select * from meterbook.billing_period where state = 'closed'")
    await lump(book, "u", "7", 3)
    await pays(book, "user:u", "pro_25000", effective_at=P1[0])
    await pays(book, "user:u", window=(P1[0], utc(2026, 7, 15)))
    await book.sweep()
    assert query(database_url, "select * from meterbook.sealed_period") == before
    assert query(database_url, "select * from meterbook.billing_period where state = 'closed'") == period
    assert (await book.usage("user:u", "last")).overage == 10
    await check_books(book, database_url)


async def test_many_sweepers_and_callers_charge_once(book: Book, clock: Clock, database_url: str) -> None:
    """Ten sweeps and five calls at once over five entities: one final charge each."""
    for n in range(5):
        await pays(book, f"user:u{n}")
        await use(book, f"u{n}", "40.25")
    clock.now = AFTER
    calling = asyncio.gather(*(book.close(f"user:u{n}") for n in range(5)))
    swept = await asyncio.gather(*(book.sweep() for _ in range(10)))
    assert sum(one.closed for one in swept) + sum(one.closed for one in await calling) == 5
    assert await invoices(book) == [1_000] * 5
    await check_books(book, database_url)


async def test_a_crash_between_the_fence_and_the_seal_is_finished_by_the_next_sweep(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Behind the fence new rows are late; the next sweep seals what was there."""
    await pays(book, "user:u")
    await use(book, "u", "40.25")
    clock.now = AFTER
    await fenced(book)
    late = await lump(book, "u", "3", 29)
    assert late
    assert (await book.usage("user:u")).total == 3
    assert await invoices(book) == []
    assert (await book.sweep()).closed == 1
    assert await invoices(book) == [1_000]
    await check_books(book, database_url)


async def test_a_period_whose_end_moved_meanwhile_is_not_closed(book: Book, clock: Clock) -> None:
    """Listed as due, then moved by Stripe's word before its turn: it stays open (§10)."""
    await pays(book, "user:u", window=(P1[0], utc(2026, 6, 20, 13)))
    await use(book, "u", "40.25")
    await pays(book, "user:u", window=P1)
    clock.now = utc(2026, 6, 20, 15)
    assert (await book.sweep()).closed == 0
    assert (await book.usage("user:u")).period.ends_at == P1[1]


async def test_what_fails_for_one_entity_stops_no_other(database_url: str, clock: Clock) -> None:
    """A plan that is gone from the catalog: that entity is named and tried again, the other is closed and billed."""
    shipped = meterbook.load_catalog()
    async with meterbook.open(database_url, clock=clock) as book:
        for name, plan in [("a", "pro"), ("b", "pro_6000")]:
            await pays(book, f"user:{name}", plan)
            await use(book, name, "40.25")
    without = replace(shipped, plans=tuple(plan for plan in shipped.plans if plan.code != "pro"))
    clock.now = AFTER
    async with meterbook.open(database_url, clock=clock, catalog=without) as book:
        swept = await book.sweep()
        assert (swept.closed, await invoices(book)) == (1, [1_000])
        assert any("pro" in one for one in swept.failed)
    async with meterbook.open(database_url, clock=clock) as book:
        swept = await book.sweep()
        assert (swept.closed, swept.failed) == (1, ())
        await check_books(book, database_url)


async def test_a_move_that_comes_while_somebody_looks_is_not_forgotten(book: Book, database_url: str) -> None:
    """A sweep has read 26.00 and is about to tell; 130.00 more are recorded and folded before it ends: the next sweep bills them."""
    await pays(book, "user:u")
    await lump(book, "u", "26.25")
    await book.compact()
    claimed = (
        "insert into meterbook.alert_mark (entity_id, period_id, mark, claimed_at)"
        " select entity_id, home_id, 80, now() from meterbook.period_clock"
    )
    async with holding(database_url, claimed):
        looking = asyncio.create_task(book.sweep())
        await somebody_waits(database_url)
        await lump(book, "u", "130.00")
        await book.compact()
    await looking
    assert await invoices(book) == []
    await book.sweep()
    assert await invoices(book) == [12_600]


async def test_a_deleted_organization_still_pays_its_last_bill(book: Book, clock: Clock, database_url: str) -> None:
    """Overage 50.00 at its deletion → 5 000 cents after the grace, once."""
    await organization(book, "o", "a")
    await lump(book, "a", "80.25")
    await book.delete_organization("o")
    clock.now += timedelta(hours=2)
    assert (await book.sweep()).closed == 1
    assert await invoices(book) == [5_000]
    await check_books(book, database_url)


async def test_a_deleted_user_still_pays_the_last_bill(book: Book, clock: Clock, database_url: str) -> None:
    """Overage 50.00, credits 20.00 at the deletion → 3 000 cents; the same name later is somebody new."""
    await pays(book, "user:u")
    await lump(book, "u", "80.25")
    await book.grant_credit("user:u", amount="20", grant_id="g")
    await book.delete_user("u")
    clock.now += timedelta(hours=2)
    assert (await book.sweep()).closed == 1
    assert await invoices(book) == [3_000]
    assert (await book.usage("user:u")).total == 0
    assert await balance(book, "user:u") == 0
    await check_books(book, database_url)


async def test_deletion_is_refused_while_money_cant_be_addressed(book: Book) -> None:
    """Ids missing at overage 50.00: refused and nothing changes; at overage 0 it is deleted."""
    await pays(book, "user:u", stripe_customer=None)
    entry = await lump(book, "u", "80.25")
    with pytest.raises(UnsettledMoney):
        await book.delete_user("u")
    assert (await book.usage("user:u")).total == Decimal("80.25")
    await book.correct(entry, amount="-80", reason="test", event_key="fix")
    await book.delete_user("u")
    assert (await book.usage("user:u")).total == 0


async def test_deleting_counts_a_credit_once_and_the_days_that_are_left(book: Book, clock: Clock) -> None:
    """Two periods owe 5.00 each and a credit of 6.00 pays one: refused, and deleted with 10.00. What is used in the first moment of a day
    counts in the day before if it is cut there: 0.49 become 0.74.
    """
    for user in ("u", "v"):
        await pays(book, f"user:{user}", stripe_customer=None)
    await lump(book, "u", "35.25")
    clock.now = P1[1] + timedelta(minutes=1)
    await use(book, "u", "35.25")
    await book.grant_credit("user:u", amount="6", grant_id="six")
    with pytest.raises(UnsettledMoney):
        await book.delete_user("u")
    await book.grant_credit("user:u", amount="4", grant_id="four")
    await book.delete_user("u")
    clock.now = P1[1] + timedelta(days=1, microseconds=-1)
    await use(book, "v", "20")
    clock.now = P1[1] + timedelta(days=1)
    await use(book, "v", "10.99")
    assert (await book.usage("user:v")).overage == Decimal("0.49")
    with pytest.raises(UnsettledMoney):
        await book.delete_user("v")


async def test_deleting_judges_credits_at_the_cut(book: Book, clock: Clock, database_url: str) -> None:
    """§9, §10: the period ends now. A grant that runs out before its old end pays; one that has run out doesn't, and it is refused."""
    await pays(book, "user:u", stripe_customer=None)
    await lump(book, "u", "40.25")
    expiry = clock.now + timedelta(days=1)
    await book.grant_credit("user:u", amount="10", grant_id="g", expires_at=expiry)
    clock.now = expiry
    with pytest.raises(UnsettledMoney):
        await book.delete_user("u")
    clock.now = expiry - timedelta(microseconds=1)
    await book.delete_user("u")
    clock.now += timedelta(hours=2)
    await book.sweep()
    assert query(database_url, "select credits_cents, charged_cents from meterbook.charge") == [(1_000, 0)]
    assert query(database_url, "select reason from meterbook.deferred_close") == []
    assert await book.verify() == []


@pytest.mark.parametrize(("plan", "then"), [("pro_6000", "enterprise"), ("enterprise", "pro_6000")])
async def test_a_change_between_plans_with_and_without_overage_cuts(
    book: Book, clock: Clock, database_url: str, plan: str, then: str
) -> None:
    """The next period begins at that moment with the new plan; the cut one closes after the grace with its full allowance."""
    await pays(book, "user:u", plan)
    await lump(book, "u", "80.25")
    cut = clock.now
    await pays(book, "user:u", then)
    assert windows(database_url, "user:u") == [(P1[0], cut), (cut, P1[1])]
    usage = await book.usage("user:u")
    assert (usage.period.plan, usage.total) == (then, 0)
    clock.now += GRACE
    await book.sweep()
    assert await invoices(book) == ([5_000] if plan == "pro_6000" else [])
    await check_books(book, database_url)


async def test_a_seal_that_has_to_wait_after_all_takes_entries_again(
    book: Book, clock: Clock, database_url: str
) -> None:
    """The ids vanish between fence and seal: deferred; 3.00 that came behind the fence stay late, 4.00 after it are P1's."""
    await pays(book, "user:u")
    await lump(book, "u", "80.25")
    clock.now = AFTER
    await fenced(book)
    await lump(book, "u", "3", 29)
    query(database_url, "update meterbook.subscription set stripe_customer = null")
    swept = await book.sweep()
    assert (swept.closed, swept.deferred) == (0, 1)
    await lump(book, "u", "4", 29)
    await pays(book, "user:u", window=P2)
    await book.sweep()
    # 84.25 − 0.25 − 0.25 − 30
    assert (await charged(book, "user:u"), (await book.usage("user:u")).total) == ([5_375], 3)
    await check_books(book, database_url)


async def test_a_deletion_said_three_times_at_once_bills_once(book: Book, clock: Clock, database_url: str) -> None:
    """One ends the subscription and erases the name, the others find nobody."""
    await pays(book, "user:u")
    await lump(book, "u", "80.25")
    said = await asyncio.gather(*(book.delete_user("u") for _ in range(3)), return_exceptions=True)
    assert said.count(None) >= 1
    clock.now += timedelta(hours=2)
    await book.sweep()
    assert await invoices(book) == [5_000]
    await check_books(book, database_url)


async def test_a_segment_that_passed_on_is_billed_to_the_customer_it_was_used_by(
    book: Book, clock: Clock, database_url: str
) -> None:
    """The organization brings its own customer: the person's segment still goes to the person's, and what follows to its own."""
    await pays(book, "user:u", id="s")
    await lump(book, "u", "80.25")
    await book.put_organization("o", owner="u")
    await pays(book, "organization:o", "pro_6000", id="s")
    await use(book, "u", "50.25")
    clock.now = P1[1] + GRACE
    assert (await book.sweep()).closed == 2
    rows = [row for row in await book.outbox() if row.kind == "charge"]
    sent = [(row.entity, row.payload["stripe_customer"], row.payload["amount_cents"]) for row in rows]
    assert sorted(sent) == [("organization:o", "cus_organization:o", 2_000), ("user:u", "cus_user:u", 5_000)]
    await check_books(book, database_url)


async def test_a_segment_that_passed_on_without_ids_waits_for_the_subscriptions(book: Book, clock: Clock) -> None:
    """A subscription has one customer: ids that were missing when it passed on are its later ones."""
    await pays(book, "user:u", id="s", stripe_customer=None, stripe_subscription=None)
    await lump(book, "u", "80.25")
    await book.put_organization("o", owner="u")
    await pays(book, "organization:o", "pro_6000", id="s", stripe_customer=None, stripe_subscription=None)
    clock.now += 2 * GRACE
    assert (await book.sweep()).deferred == 1
    await pays(book, "organization:o", "pro_6000", id="s")
    assert (await book.sweep()).closed == 1
    assert await charged(book, "user:u") == [5_000]


async def test_months_in_which_nobody_was_entitled_are_not_opened_afterwards(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Unpaid from June 20 to September 10: June's period, then September's; what came meanwhile stays in the free one."""
    await pays(book, "user:u")
    await pays(book, "user:u", status="unpaid")
    clock.now = utc(2026, 8, 5)
    await use(book, "u", "1")
    clock.now = utc(2026, 9, 10)
    await pays(book, "user:u")
    assert windows(database_url, "user:u") == [P1, (utc(2026, 9, 1), utc(2026, 10, 1))]
    assert [(one.period.kind, one.total) for one in [await book.usage("user:u")]] == [("dated", 0)]


async def test_a_sealed_period_names_a_thousand_descriptions_and_sums_the_others(book: Book, clock: Clock) -> None:
    """1 100 that nobody folded before the close: 1 000 by name, 100 together, every figure exact."""
    await pays(book, "user:u")
    line = {"actor": "u", "source": "s", "amount": "0.01"}
    await book.record_many([line | {"description": f"m{n}", "event_key": f"k{n}"} for n in range(1100)])
    clock.now = P1[1] + GRACE
    await book.close("user:u")
    usage = await book.usage("user:u", "last")
    assert (len(usage.by_description), usage.by_description["s", "(other)"], usage.total) == (1001, 1, 11)
    assert await book.verify() == []
