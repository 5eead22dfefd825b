"""A subscription's life: periods on its items, renewals by the clock, changes, ends."""

from datetime import timedelta

import pytest
import stripe

from tests.stripe_server.playing import Shop, moment, plain
from tests.stripe_server.server import StripeServer
from tests.stripe_server.world import Thing


def bounds(item: Thing) -> tuple[int, int]:
    return item["current_period_start"], item["current_period_end"]


def test_a_new_subscription_is_paid_at_once(shop: Shop) -> None:
    """Active, its period on its item, its first invoice paid and named in both directions."""
    customer, price = shop.customer(), shop.price(3000)
    subscription = shop.subscription(customer, price, 4, metadata={"referenceId": "org_1"}, expand=["latest_invoice"])
    assert (subscription.status, subscription.start_date) == ("active", moment(6, 1))
    item = subscription["items"].data[0]
    assert (item.quantity, item.price.id) == (4, price.id)
    assert bounds(item) == (moment(6, 1), moment(7, 1))
    invoice = subscription.latest_invoice
    assert isinstance(invoice, stripe.Invoice)
    assert (invoice.status, invoice.amount_paid, invoice.billing_reason) == ("paid", 12000, "subscription_create")
    assert invoice.parent
    assert invoice.parent.subscription_details
    assert invoice.parent.subscription_details.subscription == subscription.id
    assert plain(invoice.parent.subscription_details.metadata) == {"referenceId": "org_1"}
    line = invoice.lines.data[0]
    assert line.parent
    assert line.parent.subscription_item_details
    assert line.parent.subscription_item_details.subscription == subscription.id
    assert (line.period.start, line.period.end) == (moment(6, 1), moment(7, 1))
    assert shop.told()[-1] == "customer.subscription.created"


def test_a_renewal_invoices_the_next_period(shop: Shop, stripe_server: StripeServer) -> None:
    """The invoice's own period is the one that ended, its line's the new one; draft for an hour, then finalized and paid."""
    customer, price = shop.customer(), shop.price(3000)
    subscription = shop.subscription(customer, price)
    shop.told()
    stripe_server.advance(timedelta(days=30))
    assert bounds(shop.item_of(subscription)) == (moment(7, 1), moment(8, 1))
    drafted = shop.client.v1.invoices.list({"customer": customer.id, "limit": 1}).data[0]
    assert (drafted.status, drafted.billing_reason) == ("draft", "subscription_cycle")
    assert (drafted.period_start, drafted.period_end) == (moment(6, 1), moment(7, 1))
    assert (drafted.lines.data[0].period.start, drafted.lines.data[0].period.end) == (moment(7, 1), moment(8, 1))
    assert shop.told() == ["customer.subscription.updated", "invoice.created"]
    stripe_server.advance(timedelta(hours=1))
    assert shop.client.v1.invoices.retrieve(drafted.id).status == "paid"
    told = shop.told()
    assert told.index("invoice.finalized") < told.index("invoice.paid") < told.index("invoice.payment_succeeded")


def test_the_event_of_a_renewal_says_what_was_before(shop: Shop, stripe_server: StripeServer) -> None:
    """previous_attributes: the items with the bounds they had, and nothing that stayed."""
    subscription = shop.subscription(shop.customer(), shop.price(3000))
    stripe_server.advance(timedelta(days=30))
    updated = next(each for each in stripe_server.deliveries if each.kind == "customer.subscription.updated")
    previous = updated.event["data"]["previous_attributes"]
    assert previous.keys() == {"items", "latest_invoice"}
    assert bounds(previous["items"]["data"][0]) == (moment(6, 1), moment(7, 1))
    assert bounds(updated.event["data"]["object"]["items"]["data"][0]) == (moment(7, 1), moment(8, 1))
    assert previous["latest_invoice"] == subscription.latest_invoice


def test_a_test_clock_has_its_own_time(shop: Shop) -> None:
    """Months counted from the 31st end on each month's last day; who has no test clock stays where he is."""
    v1, price = shop.client.v1, shop.price(3000)
    clock = v1.test_helpers.test_clocks.create({"frozen_time": moment(1, 31)})
    other = shop.subscription(shop.customer(), price)
    subscription = shop.subscription(shop.customer(test_clock=clock.id), price)
    assert bounds(shop.item_of(subscription)) == (moment(1, 31), moment(2, 28))
    v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": moment(4, 15)})
    assert bounds(shop.item_of(subscription)) == (moment(3, 31), moment(4, 30))
    created = v1.subscriptions.retrieve(subscription.id, {"expand": ["latest_invoice"]}).latest_invoice
    assert isinstance(created, stripe.Invoice)
    assert (created.status, created.created) == ("paid", moment(3, 31))
    assert bounds(shop.item_of(other)) == (moment(6, 1), moment(7, 1))


def test_a_card_that_fails_at_renewal_makes_it_past_due(shop: Shop, stripe_server: StripeServer) -> None:
    """past_due with the failure; active again when that invoice is paid."""
    v1, customer = shop.client.v1, shop.customer()
    subscription = shop.subscription(customer, shop.price(3000))
    stripe_server.decline(customer.id)
    stripe_server.advance(timedelta(days=31))
    assert v1.subscriptions.retrieve(subscription.id).status == "past_due"
    assert "invoice.payment_failed" in shop.told()
    stripe_server.accept(customer.id)
    v1.invoices.pay(v1.invoices.list({"customer": customer.id, "status": "open"}).data[0].id)
    assert v1.subscriptions.retrieve(subscription.id).status == "active"


@pytest.mark.parametrize(
    ("setting", "status"), [("cancel", "canceled"), ("unpaid", "unpaid"), ("past_due", "past_due")]
)
def test_the_account_decides_what_the_last_failure_does(
    shop: Shop, stripe_server: StripeServer, setting: str, status: str
) -> None:
    """After the attempts at 0, 3, 8 and 15 days."""
    with stripe_server.acting() as world:
        world.after_retries = setting  # type: ignore[assignment]  # one of its three
    customer = shop.customer()
    subscription = shop.subscription(customer, shop.price(3000))
    stripe_server.decline(customer.id)
    stripe_server.advance(timedelta(days=30 + 14, hours=23))
    assert shop.client.v1.subscriptions.retrieve(subscription.id).status == "past_due"
    stripe_server.advance(timedelta(hours=3))
    assert shop.client.v1.subscriptions.retrieve(subscription.id).status == status


def test_a_first_payment_that_fails_leaves_it_incomplete(shop: Shop, stripe_server: StripeServer) -> None:
    """Or makes nothing, if asked so; unpaid for 23 hours it expires."""
    v1, customer, price = shop.client.v1, shop.customer("pm_card_chargeCustomerFail"), shop.price(3000)
    with pytest.raises(stripe.CardError):
        shop.subscription(customer, price, payment_behavior="error_if_incomplete")
    assert v1.subscriptions.list({"status": "all"}).data == []
    subscription = shop.subscription(customer, price)
    assert subscription.status == "incomplete"
    stripe_server.advance(timedelta(hours=23))
    assert v1.subscriptions.retrieve(subscription.id).status == "incomplete_expired"


def test_default_incomplete_waits_for_the_client(shop: Shop) -> None:
    """Created incomplete; active when its invoice is paid."""
    subscription = shop.subscription(shop.customer(), shop.price(3000), payment_behavior="default_incomplete")
    assert subscription.status == "incomplete"
    shop.client.v1.invoices.pay(str(subscription.latest_invoice))
    assert shop.client.v1.subscriptions.retrieve(subscription.id).status == "active"


def test_a_trial_ends_at_its_end(shop: Shop, stripe_server: StripeServer) -> None:
    """Its period is the trial, its invoice 0; warned of three days before; then active, the anchor at its end."""
    v1, customer = shop.client.v1, shop.customer()
    subscription = shop.subscription(customer, shop.price(3000), trial_end=moment(6, 15))
    assert (subscription.status, subscription.billing_cycle_anchor) == ("trialing", moment(6, 15))
    assert bounds(subscription["items"].data[0]) == (moment(6, 1), moment(6, 15))
    assert v1.invoices.list({"customer": customer.id}).data[0].total == 0
    stripe_server.advance(timedelta(days=11))
    assert shop.told()[-1] == "customer.subscription.trial_will_end"
    stripe_server.advance(timedelta(days=4))
    assert v1.subscriptions.retrieve(subscription.id).status == "active"
    assert bounds(shop.item_of(subscription)) == (moment(6, 15), moment(7, 15))
    assert v1.invoices.list({"customer": customer.id}).data[0].amount_paid == 3000


def test_a_trial_ended_early_begins_the_cycle_now(shop: Shop, stripe_server: StripeServer) -> None:
    """The anchor moves to now, and the whole period is invoiced."""
    subscription = shop.subscription(shop.customer(), shop.price(3000), trial_end=moment(6, 15))
    stripe_server.advance(timedelta(days=4))
    ended = shop.client.v1.subscriptions.update(subscription.id, {"trial_end": "now", "expand": ["latest_invoice"]})
    assert (ended.status, ended.billing_cycle_anchor) == ("active", moment(6, 5))
    assert bounds(ended["items"].data[0]) == (moment(6, 5), moment(7, 5))
    assert isinstance(ended.latest_invoice, stripe.Invoice)
    assert ended.latest_invoice.amount_paid == 3000


def test_cancel_at_period_end_can_be_taken_back(shop: Shop, stripe_server: StripeServer) -> None:
    """true → false → true: what counts is the last; at the end it is canceled, and no invoice follows."""
    v1, customer = shop.client.v1, shop.customer()
    subscription = shop.subscription(customer, shop.price(3000))
    for cancels in (True, False, True):
        changed = v1.subscriptions.update(subscription.id, {"cancel_at_period_end": cancels})
        assert changed.cancel_at == (moment(7, 1) if cancels else None)
        assert changed.canceled_at == (moment(6, 1) if cancels else None)
    shop.told()
    stripe_server.advance(timedelta(days=40))
    ended = v1.subscriptions.retrieve(subscription.id)
    assert (ended.status, ended.ended_at) == ("canceled", moment(7, 1))
    assert shop.told() == ["customer.subscription.deleted"]
    assert len(v1.invoices.list({"customer": customer.id}).data) == 1


def test_saying_the_same_again_tells_nothing(shop: Shop) -> None:
    """An update that changes nothing makes no event."""
    subscription = shop.subscription(shop.customer(), shop.price(3000))
    shop.client.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    shop.told()
    shop.client.v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert shop.told() == []


def test_canceling_now_ends_it_now(shop: Shop) -> None:
    """And only once; then no change but of metadata is taken."""
    v1, subscription = shop.client.v1, shop.subscription(shop.customer(), shop.price(3000))
    assert v1.subscriptions.cancel(subscription.id).status == "canceled"
    assert shop.told()[-1] == "customer.subscription.deleted"
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        v1.subscriptions.cancel(subscription.id)
    with pytest.raises(stripe.InvalidRequestError, match="canceled subscription"):
        v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert plain(v1.subscriptions.update(subscription.id, {"metadata": {"a": "1"}}).metadata) == {"a": "1"}


def test_more_seats_are_prorated_into_the_next_invoice(shop: Shop, stripe_server: StripeServer) -> None:
    """4 → 6 seats at 30.00 after 10 of 30 days: 40.00 more, as two pending items, paid with the renewal."""
    v1, customer = shop.client.v1, shop.customer()
    subscription = shop.subscription(customer, shop.price(3000), 4)
    item = shop.item_of(subscription)
    stripe_server.advance(timedelta(days=10))
    v1.subscriptions.update(subscription.id, {"items": [{"id": item.id, "quantity": 6}]})
    pending = v1.invoice_items.list({"customer": customer.id, "pending": True}).data
    assert sorted(each.amount for each in pending) == [-8000, 12000]
    assert all(each.proration for each in pending)
    stripe_server.advance(timedelta(days=21))
    renewal = v1.invoices.list({"customer": customer.id}).data[0]
    assert renewal.amount_paid == 6 * 3000 + 4000
    of_subscription = [line.parent.subscription_item_details for line in renewal.lines.data if line.parent]
    assert [bool(details and details.proration) for details in of_subscription] == [True, True, False]


@pytest.mark.parametrize(("behavior", "invoiced"), [("none", 0), ("always_invoice", 4000)])
def test_proration_can_be_refused_or_asked_for_at_once(
    shop: Shop, stripe_server: StripeServer, behavior: str, invoiced: int
) -> None:
    """none: only the seats change. always_invoice: an invoice now."""
    v1, customer = shop.client.v1, shop.customer()
    subscription = shop.subscription(customer, shop.price(3000), 4)
    item = shop.item_of(subscription)
    stripe_server.advance(timedelta(days=10))
    v1.subscriptions.update(
        subscription.id, {"items": [{"id": item.id, "quantity": 6}], "proration_behavior": behavior}
    )
    assert shop.item_of(subscription).quantity == 6
    assert v1.invoice_items.list({"customer": customer.id, "pending": True}).data == []
    later = [
        each
        for each in v1.invoices.list({"customer": customer.id}).data
        if each.billing_reason == "subscription_update"
    ]
    assert sum(each.amount_paid for each in later) == invoiced


def test_another_interval_begins_the_cycle_anew(shop: Shop, stripe_server: StripeServer) -> None:
    """Month → year after 10 of 30 days: a year from now, its price less the 20.00 unused, invoiced at once."""
    v1, customer, yearly = shop.client.v1, shop.customer(), shop.price(30000, "year")
    subscription = shop.subscription(customer, shop.price(3000))
    stripe_server.advance(timedelta(days=10))
    item = shop.item_of(subscription)
    changed = v1.subscriptions.update(
        subscription.id, {"items": [{"id": item.id, "price": yearly.id}], "expand": ["latest_invoice"]}
    )
    assert changed.billing_cycle_anchor == moment(6, 11)
    assert bounds(changed["items"].data[0]) == (moment(6, 11), moment(6, 11, year=2027))
    assert isinstance(changed.latest_invoice, stripe.Invoice)
    assert changed.latest_invoice.amount_paid == 28000
    assert changed.latest_invoice.billing_reason == "subscription_update"


def test_the_anchor_can_be_set_to_now(shop: Shop, stripe_server: StripeServer) -> None:
    """The period begins anew; a cancellation at its end moves with it."""
    v1 = shop.client.v1
    subscription = shop.subscription(shop.customer(), shop.price(3000), cancel_at_period_end=True)
    stripe_server.advance(timedelta(days=10))
    changed = v1.subscriptions.update(
        subscription.id, {"billing_cycle_anchor": {"type": "now"}, "proration_behavior": "none"}
    )
    assert bounds(changed["items"].data[0]) == (moment(6, 11), moment(7, 11))
    assert changed.cancel_at == moment(7, 11)


def test_an_anchor_ahead_makes_the_first_period_shorter(shop: Shop) -> None:
    """15 of 30 days until the anchor: half the price."""
    subscription = shop.subscription(
        shop.customer(), shop.price(3000), billing_cycle_anchor=moment(6, 16), expand=["latest_invoice"]
    )
    assert bounds(subscription["items"].data[0]) == (moment(6, 1), moment(6, 16))
    assert isinstance(subscription.latest_invoice, stripe.Invoice)
    assert subscription.latest_invoice.amount_paid == 1452  # 15 of the 31 days from May 16 to June 16


@pytest.mark.parametrize(
    ("behavior", "status"), [("keep_as_draft", "draft"), ("void", "void"), ("mark_uncollectible", "uncollectible")]
)
def test_paused_collection_goes_on_without_being_paid(
    shop: Shop, stripe_server: StripeServer, behavior: str, status: str
) -> None:
    """The subscription stays active and renews; what its invoices become is as asked; it resumes at its time."""
    v1, customer = shop.client.v1, shop.customer()
    subscription = shop.subscription(customer, shop.price(3000))
    v1.subscriptions.update(subscription.id, {"pause_collection": {"behavior": behavior, "resumes_at": moment(7, 15)}})
    stripe_server.advance(timedelta(days=35))
    assert v1.subscriptions.retrieve(subscription.id).status == "active"
    assert v1.invoices.list({"customer": customer.id}).data[0].status == status
    stripe_server.advance(timedelta(days=30))
    assert v1.invoices.list({"customer": customer.id}).data[0].status == "paid"


def test_a_paused_subscription_rests_until_it_is_resumed(shop: Shop, stripe_server: StripeServer) -> None:
    """No period begins meanwhile; resumed, a new one begins, less what was unused before."""
    v1, customer = shop.client.v1, shop.customer()
    subscription = shop.subscription(customer, shop.price(3000))
    stripe_server.advance(timedelta(days=15))
    assert v1.subscriptions.pause(subscription.id).status == "paused"
    stripe_server.advance(timedelta(days=60))
    assert bounds(shop.item_of(subscription)) == (moment(6, 1), moment(7, 1))
    assert v1.subscriptions.resume(subscription.id).status == "active"
    assert bounds(shop.item_of(subscription)) == (moment(8, 15), moment(9, 15))
    assert v1.invoices.list({"customer": customer.id}).data[0].amount_paid == 1500


def test_an_invoice_to_be_sent_is_not_charged(shop: Shop, stripe_server: StripeServer) -> None:
    """collection_method send_invoice: active at once, its invoice open until somebody pays it."""
    v1, customer = shop.client.v1, shop.customer()
    shop.subscription(customer, shop.price(3000), collection_method="send_invoice", days_until_due=30)
    stripe_server.advance(timedelta(hours=2))
    invoice = v1.invoices.list({"customer": customer.id}).data[0]
    assert (invoice.status, invoice.attempt_count) == ("open", 0)
    assert v1.invoices.pay(invoice.id, {"paid_out_of_band": True}).status == "paid"


def test_an_item_can_be_changed_by_itself(shop: Shop) -> None:
    """The same as in an update of its subscription."""
    v1, subscription = shop.client.v1, shop.subscription(shop.customer(), shop.price(3000), 4)
    item = shop.item_of(subscription)
    changed = v1.subscription_items.update(item.id, {"quantity": 2, "proration_behavior": "none"})
    assert (changed.quantity, shop.item_of(subscription).quantity) == (2, 2)


def test_deleting_a_customer_ends_its_subscriptions(shop: Shop) -> None:
    """At once, and told."""
    v1, customer = shop.client.v1, shop.customer()
    subscription = shop.subscription(customer, shop.price(3000))
    assert v1.customers.delete(customer.id).deleted
    assert v1.subscriptions.retrieve(subscription.id).status == "canceled"
    assert shop.told()[-2:] == ["customer.subscription.deleted", "customer.deleted"]
