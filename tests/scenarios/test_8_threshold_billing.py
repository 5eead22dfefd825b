"""Section 8: threshold billing."""

import asyncio

import pytest

from meterbook import Book
from meterbook.core.ledgers import Billed
from tests.bills import balance, charged, check_books, invoices, lump, organization, pays
from tests.conftest import Clock
from tests.ledger import count, query, use, utc


async def test_s49_edge(book: Book) -> None:
    """Lump 130.24 → overage 99.99: nothing. 130.25 → 100.00: one charge of 10 000 cents, billed 100.00."""
    await pays(book, "user:u")
    await lump(book, "u", "130.24")
    assert await book.bill_threshold("user:u") == Billed(0, 0, "below_threshold")
    await lump(book, "u", "0.01")
    assert await book.bill_threshold("user:u") == Billed(10_000, 0, None)
    assert (await book.usage("user:u")).billed_cents == 10_000
    assert await charged(book, "user:u") == await invoices(book) == [10_000]


async def test_s51_credits_pay_first(book: Book, database_url: str) -> None:
    """Overage 130.456, credits 25.10 → one charge of 10 536 cents, credits 0; 25.10 + 105.36 = 130.46 is recorded."""
    await pays(book, "user:u")
    await book.grant_credit("user:u", amount="25.10", grant_id="g")
    await lump(book, "u", "160.706")
    assert await book.bill_threshold("user:u") == Billed(10_536, 2_510, None)
    usage = await book.usage("user:u")
    assert (usage.billed_cents, usage.charged_cents, usage.credits_cents) == (13_046, 10_536, 2_510)
    assert (await balance(book, "user:u"), await invoices(book)) == (0, [10_536])
    await check_books(book, database_url)


async def test_s51_credits_that_pay_it_all_make_no_event(book: Book) -> None:
    """Overage 120, credits 500 → no event, balance 380, billed 120."""
    await pays(book, "user:u")
    await book.grant_credit("user:u", amount="500", grant_id="g")
    await lump(book, "u", "150.25")
    assert await book.bill_threshold("user:u") == Billed(0, 12_000, None)
    assert (await balance(book, "user:u"), await invoices(book)) == (38_000, [])
    assert (await book.usage("user:u")).billed_cents == 12_000


async def test_s51_credits_wait_for_the_threshold(book: Book) -> None:
    """Overage 99.99, credits 500 → nothing changes."""
    await pays(book, "user:u")
    await book.grant_credit("user:u", amount="500", grant_id="g")
    await lump(book, "u", "130.24")
    assert await book.bill_threshold("user:u") == Billed(0, 0, "below_threshold")
    assert (await balance(book, "user:u"), (await book.usage("user:u")).billed_cents) == (50_000, 0)


async def test_s53_twenty_at_once_make_one_charge(book: Book) -> None:
    """Overage 150, 20 concurrent checks → exactly one charge of 15 000 cents, billed 150."""
    await pays(book, "user:u")
    await lump(book, "u", "180.25")
    await asyncio.gather(*(book.bill_threshold("user:u") for _ in range(20)))
    assert await charged(book, "user:u") == await invoices(book) == [15_000]
    assert (await book.usage("user:u")).billed_cents == 15_000


async def test_s54_nothing_happens_without_ids(book: Book) -> None:
    """Overage 150, credits 40, customer id missing → no charge, billed 0, credits 40; repaired → a charge of 11 000, credits 0."""
    await pays(book, "user:u", stripe_customer=None)
    await book.grant_credit("user:u", amount="40", grant_id="g")
    await lump(book, "u", "180.25")
    await book.sweep()
    assert await book.bill_threshold("user:u") == Billed(0, 0, "no_stripe_ids")
    assert (await balance(book, "user:u"), (await book.usage("user:u")).billed_cents) == (4_000, 0)
    await pays(book, "user:u")
    assert (await book.sweep()).billed == 1
    assert (await charged(book, "user:u"), await balance(book, "user:u")) == ([11_000], 0)


@pytest.mark.parametrize("plan", [None, "enterprise"])
async def test_s55_no_threshold_without_overage(book: Book, plan: str | None) -> None:
    """Free, enterprise → no charge at 500."""
    if plan:
        await pays(book, "user:u", plan)
    await use(book, "u", "530.25") if plan is None else await lump(book, "u", "530.25")
    await book.sweep()
    assert (await book.bill_threshold("user:u")).charged_cents == 0
    assert await invoices(book) == []


async def test_s55_no_threshold_while_past_due_or_blocked(book: Book) -> None:
    """past_due, entity blocked → no charge at overage 500; then it is."""
    await pays(book, "user:u", status="past_due")
    await lump(book, "u", "530.25")
    assert await book.bill_threshold("user:u") == Billed(0, 0, "not_active")
    await pays(book, "user:u")
    await book.block("user:u", reason="payment_failed", reference="in_1")
    assert await book.bill_threshold("user:u") == Billed(0, 0, "blocked")
    await book.unblock("user:u", reason="payment_failed", reference="in_1")
    assert await book.bill_threshold("user:u") == Billed(50_000, 0, None)


async def test_s55_no_threshold_without_an_owner(book: Book, database_url: str) -> None:
    """An organization without an owner → no charge at overage 500."""
    await organization(book, "o")
    await lump(book, "boss", "530.25")
    query(database_url, "update meterbook.organization set owner_id = null")
    assert await book.bill_threshold("organization:o") == Billed(0, 0, "no_owner")


async def test_s55_an_owners_personal_block_does_not_stop_the_organizations(book: Book) -> None:
    """An owner whose personal entity is blocked: the organization is charged all the same."""
    await organization(book, "o")
    await lump(book, "boss", "530.25")
    await book.block("user:boss", reason="payment_failed", reference="in_1")
    assert await book.bill_threshold("organization:o") == Billed(50_000, 0, None)


async def test_s56_a_pool_is_billed_to_the_organization(book: Book) -> None:
    """team_6000 × 2; same bucket A 60.50, B 130.00 → refresh 0.50, overage 130.00, one charge of 13 000, nothing in person."""
    await organization(book, "o", "a", "b", seats=2)
    await lump(book, "a", "60.50")
    await lump(book, "b", "130.00")
    usage = await book.usage("organization:o")
    assert (usage.refresh, str(usage.overage)) == (type(usage.overage)("0.50"), "130.00")
    await book.sweep()
    assert await charged(book, "organization:o") == await invoices(book) == [13_000]
    assert (await charged(book, "user:a"), await charged(book, "user:b")) == ([], [])


async def test_s59_order_of_deductions(book: Book, clock: Clock, database_url: str) -> None:
    """Lump 160.25, billed 100, credits 12.50 at the close → 160.25 − 0.25 − 30 − 100 − 12.50 = 17.50 → 1 750 cents."""
    await pays(book, "user:u")
    await lump(book, "u", "130.25")
    await book.bill_threshold("user:u")
    await lump(book, "u", "30.00")
    await book.grant_credit("user:u", amount="12.50", grant_id="g")
    clock.now = utc(2026, 7, 1, 2)
    await book.sweep()
    assert await charged(book, "user:u") == await invoices(book) == [10_000, 1_750]
    assert await balance(book, "user:u") == 0
    await check_books(book, database_url)


async def test_s61_the_sweep_finds_what_no_other_event_shows(book: Book, database_url: str) -> None:
    """130.25 arrives only through voice input → the sweep charges 10 000; and looks at nobody else the next time."""
    await pays(book, "user:u")
    await lump(book, "u", "130.25", source="voice-input")
    assert (await book.sweep()).billed == 1
    assert await charged(book, "user:u") == [10_000]
    assert count(database_url, "moved_entity") == 0
    assert (await book.sweep()).billed == 0
