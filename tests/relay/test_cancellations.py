"""What Stripe is told about a subscription's end is what holds when it is told (BEHAVIOUR §11, §12, S85)."""

from datetime import timedelta

import pytest

from meterbook.book import Book
from tests.bills import organization, pays
from tests.ledger import query
from tests.relay.shop import Shop
from tests.stripe_server.faults import Kind


async def subscribed(shop: Shop) -> str:
    """A person with a subscription at Stripe, and an organization that pays for its members; gives the subscription's id."""
    client = shop.stripe_server.client().v1
    price = client.prices.create(
        {"currency": "usd", "unit_amount": 2500, "recurring": {"interval": "month"}, "product_data": {"name": "pro"}}
    )
    made = client.subscriptions.create({"customer": shop.customer(), "items": [{"price": price.id}]})
    await pays(shop.book, "user:u", stripe_subscription=made.id, stripe_customer=str(made.customer))
    await organization(shop.book, "o")
    return str(made.id)


def cancels(shop: Shop, subscription: str) -> bool:
    return bool(shop.stripe_server.client().v1.subscriptions.retrieve(subscription).cancel_at_period_end)


async def test_joining_and_leaving_are_told(shop: Shop, book: Book) -> None:
    """Set to cancel on joining, taken back on leaving."""
    subscription = await subscribed(shop)
    await book.add_member("o", "u")
    await book.relay()
    assert cancels(shop, subscription)
    await book.remove_member("o", "u")
    await book.relay()
    assert not cancels(shop, subscription)
    assert (await shop.delivery("cancel_at_period_end")).note == f"{subscription} goes on"


@pytest.mark.parametrize("kind", ["timeout_before", "timeout_after", "error_500_before", "reset_after"])
async def test_s85_toggles_before_delivery_end_at_the_last(shop: Shop, book: Book, kind: Kind) -> None:
    """S85: cancel true → false → true before delivery → Stripe ends at true, also if the first calls fail."""
    subscription = await subscribed(shop)
    await book.add_member("o", "u")
    await book.remove_member("o", "u")
    await book.add_member("o", "u")
    shop.stripe_server.fails(kind, "POST", f"/v1/subscriptions/{subscription}", times=2)
    for _ in range(6):
        await book.relay()
        shop.pass_time(timedelta(seconds=30))
    assert {row.state for row in await book.deliveries("user:u")} == {"delivered"}
    assert cancels(shop, subscription)


async def test_a_toggle_while_the_last_one_is_under_way_is_sent_too(shop: Shop, book: Book, database_url: str) -> None:
    """What was sent no longer holds when it is answered: it is sent again, whoever comes first."""
    subscription = await subscribed(shop)
    await book.add_member("o", "u")
    gateway = book._gateway
    assert gateway is not None
    send = gateway.set_cancel_at_period_end

    def sent_late(subscription: str, *, cancels: bool) -> None:
        gateway.set_cancel_at_period_end = send  # type: ignore[method-assign]
        query(database_url, "select meterbook.remove_member('o', 'u', %s)", shop.clock.now)
        send(subscription, cancels=cancels)

    gateway.set_cancel_at_period_end = sent_late  # type: ignore[method-assign]
    await book.relay()
    assert not cancels(shop, subscription)
    assert {row.state for row in await book.deliveries("user:u")} == {"delivered"}


async def test_a_subscription_that_has_ended_at_stripe_needs_no_toggle(shop: Shop, book: Book) -> None:
    """Stripe refuses to change it; that is what was wanted."""
    subscription = await subscribed(shop)
    await book.add_member("o", "u")
    shop.stripe_server.client().v1.subscriptions.cancel(subscription)
    await book.relay()
    row = await shop.delivery("cancel_at_period_end")
    assert (row.state, row.note) == ("delivered", f"{subscription} has ended")


async def test_a_subscription_without_an_id_at_stripe_is_not_told(shop: Shop, book: Book) -> None:
    """There is nobody to tell: the row is done, and says so."""
    await pays(book, "user:u", stripe_subscription=None, stripe_customer=None)
    await organization(book, "o", "u")
    await book.relay()
    assert (await shop.delivery("cancel_at_period_end")).note == "it has no subscription at Stripe"


async def test_a_deleted_customer_is_charged_no_more(shop: Shop, book: Book) -> None:
    """§12: deleting ends the subscription, at Stripe too."""
    subscription = await subscribed(shop)
    await book.delete_user("u")
    await book.relay()
    assert shop.stripe_server.client().v1.subscriptions.retrieve(subscription).status == "canceled"
    row = await shop.delivery("cancel_now")
    assert (row.state, row.note) == ("delivered", f"{subscription} has ended")


async def test_one_that_has_ended_at_stripe_already_needs_no_end(shop: Shop, book: Book) -> None:
    """Stripe refuses to end it twice; that is what was wanted."""
    subscription = await subscribed(shop)
    shop.stripe_server.client().v1.subscriptions.cancel(subscription)
    await book.delete_user("u")
    await book.relay()
    assert (await shop.delivery("cancel_now")).state == "delivered"
