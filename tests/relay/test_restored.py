"""A ledger that was restored from a backup, and a Stripe that was not: nobody is asked twice for the same usage."""

from datetime import timedelta
from pathlib import Path

import pytest

import meterbook
from meterbook.book import Book
from meterbook.stripe.gateway import StripeAccount
from tests.backups import dump, restored
from tests.bills import pays
from tests.conftest import Clock
from tests.relay.shop import Shop

pytestmark = pytest.mark.parametrize("server", ["embedded18"], indirect=True)
PAID = ("paid", 15_000, 15_000)


@pytest.mark.parametrize("age", [timedelta(hours=1), timedelta(hours=25), timedelta(days=20)])
async def test_a_charge_that_was_sent_after_the_backup_is_found_at_stripe(
    shop: Shop, book: Book, clock: Clock, account: StripeAccount, database_url: str, tmp_path: Path, age: timedelta
) -> None:
    """While Stripe remembers the key by the key, afterwards by looking: an old row may have been sent by a ledger that is gone."""
    customer = await shop.charge(dollars=150)
    backup = dump(database_url, tmp_path / "backup")
    assert (await book.relay()).delivered == 1
    invoice = (await shop.delivery()).note
    shop.pass_time(age)
    with restored(backup, database_url) as url:
        async with meterbook.open(url, clock=clock, stripe=account) as older:
            assert (await older.relay()).delivered == 1
            assert [row.note for row in await older.deliveries() if row.kind == "charge"] == [invoice]
    assert shop.invoices(customer) == [PAID]


async def test_what_was_billed_after_the_backup_is_given_as_credit_and_not_billed_again(
    shop: Shop, book: Book, clock: Clock, account: StripeAccount, database_url: str, tmp_path: Path
) -> None:
    """As the page on backups says: for each invoice that the ledger has lost, a credit of its cents; what comes again is paid by it."""
    customer = shop.customer()
    await pays(book, "user:u", "pro_6000", stripe_customer=customer)
    backup = dump(database_url, tmp_path / "backup")
    said = {"actor": "u", "source": "workflow", "description": "gpt-4o", "amount": "180.25", "event_key": "k"}
    await book.record_many([said])
    assert (await book.bill_threshold("user:u")).charged_cents == 15_000
    await book.relay()
    (invoice,) = shop.stripe_server.things("invoice")
    shop.pass_time(timedelta(hours=2))
    with restored(backup, database_url) as url:
        async with meterbook.open(url, clock=clock, stripe=account) as older:
            await older.grant_credit("user:u", amount="150.00", grant_id=invoice["id"], source="goodwill", priority=0)
            await older.record_many([said])
            billed = await older.bill_threshold("user:u")
            assert (billed.charged_cents, billed.credits_cents) == (0, 15_000)
            await older.relay()
            assert await older.verify() == []
    assert shop.invoices(customer) == [PAID]
