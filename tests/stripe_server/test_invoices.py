"""An invoice's life, through the real SDK."""

from datetime import timedelta

import pytest
import stripe

from tests.stripe_server.playing import DAY_S, Shop, moment, plain
from tests.stripe_server.server import StripeServer


def test_a_charge_goes_from_draft_to_paid(shop: Shop) -> None:
    """Create, item, finalize, pay: what each step makes of the invoice, and what it tells."""
    v1, customer = shop.client.v1, shop.customer()
    shop.told()
    invoice = shop.draft(customer, 4750, metadata={"meterbook_charge": "7"}, auto_advance=False)
    assert (invoice.status, invoice.amount_due, invoice.attempt_count, invoice.number) == ("draft", 4750, 0, None)
    assert plain(invoice.metadata) == {"meterbook_charge": "7"}
    assert shop.told() == ["invoice.created", "invoiceitem.created", "invoice.updated"]
    finalized = v1.invoices.finalize_invoice(invoice.id)
    assert (finalized.status, finalized.status_transitions.finalized_at) == ("open", moment(6, 1))
    assert finalized.number
    assert shop.told() == ["payment_intent.created", "invoice.finalized"]
    paid = v1.invoices.pay(invoice.id, {"expand": ["payments"]})
    assert (paid.status, paid.amount_paid, paid.amount_remaining, paid.attempt_count) == ("paid", 4750, 0, 1)
    assert paid.payments
    assert [payment.amount_paid for payment in paid.payments.data] == [4750]
    assert shop.told() == [
        "charge.succeeded",
        "payment_intent.succeeded",
        "invoice_payment.paid",
        "invoice.updated",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]


def test_a_declined_card_leaves_the_invoice_open(shop: Shop, stripe_server: StripeServer) -> None:
    """402 with code and decline code, one attempt more, and the event; paid once the card is good again."""
    v1, customer = shop.client.v1, shop.customer("pm_card_chargeCustomerFail")
    invoice = shop.open(customer, 4750)
    shop.told()
    with pytest.raises(stripe.CardError) as refused:
        v1.invoices.pay(invoice.id)
    assert (refused.value.http_status, refused.value.code) == (402, "card_declined")
    assert refused.value.error
    assert refused.value.error.decline_code == "generic_decline"
    failed = v1.invoices.retrieve(invoice.id)
    assert (failed.status, failed.attempt_count, failed.attempted, failed.amount_remaining) == ("open", 1, True, 4750)
    assert shop.told() == ["charge.failed", "payment_intent.payment_failed", "invoice.payment_failed"]
    stripe_server.accept(customer.id)
    assert v1.invoices.pay(invoice.id).status == "paid"


def test_a_payment_method_may_be_named_for_one_payment(shop: Shop) -> None:
    """The customer's own stays as it was."""
    v1, customer = shop.client.v1, shop.customer("pm_card_chargeCustomerFail")
    other = v1.payment_methods.attach("pm_card_mastercard", {"customer": customer.id})
    assert v1.invoices.pay(shop.open(customer, 500).id, {"payment_method": other.id}).status == "paid"
    with pytest.raises(stripe.CardError):
        v1.invoices.pay(shop.open(customer, 500).id)


def test_nobody_to_charge_is_no_attempt(shop: Shop) -> None:
    """A customer without a payment method: 400, and nothing is told."""
    customer = shop.client.v1.customers.create({"name": "no card"})
    invoice = shop.open(customer, 500)
    shop.told()
    with pytest.raises(stripe.InvalidRequestError, match="default_payment_method"):
        shop.client.v1.invoices.pay(invoice.id)
    assert shop.client.v1.invoices.retrieve(invoice.id).attempt_count == 0
    assert shop.told() == []


@pytest.mark.parametrize(
    ("status", "act", "told"),
    [
        ("void", "void_invoice", "invoice.voided"),
        ("uncollectible", "mark_uncollectible", "invoice.marked_uncollectible"),
    ],
)
def test_an_open_invoice_can_be_given_up(shop: Shop, status: str, act: str, told: str) -> None:
    """Voided or forgiven, and told so; a voided one can't be paid any more."""
    v1, customer = shop.client.v1, shop.customer()
    invoice = shop.open(customer, 4750)
    assert getattr(v1.invoices, act)(invoice.id).status == status
    assert shop.told()[-1] == told
    if status == "void":
        with pytest.raises(stripe.InvalidRequestError, match="This invoice is void"):
            v1.invoices.pay(invoice.id)
    else:
        assert v1.invoices.pay(invoice.id).status == "paid"


def test_steps_out_of_their_order_are_refused(shop: Shop) -> None:
    """A draft can't be paid or voided, a finalized one not changed, finalized or deleted, a paid one not paid again."""
    v1, customer = shop.client.v1, shop.customer()
    draft = shop.draft(customer, 500)
    for act in (v1.invoices.pay, v1.invoices.void_invoice):
        with pytest.raises(stripe.InvalidRequestError, match="This invoice is draft"):
            act(draft.id)
    v1.invoices.finalize_invoice(draft.id)
    for attempt in (
        lambda: v1.invoices.finalize_invoice(draft.id),
        lambda: v1.invoices.delete(draft.id),
        lambda: v1.invoice_items.create({"customer": customer.id, "invoice": draft.id, "amount": 1, "currency": "usd"}),
    ):
        with pytest.raises(stripe.InvalidRequestError):
            attempt()
    v1.invoices.pay(draft.id)
    with pytest.raises(stripe.InvalidRequestError, match="Invoice is already paid"):
        v1.invoices.pay(draft.id)


def test_nothing_to_pay_is_paid_by_finalizing(shop: Shop) -> None:
    """An invoice finalized before its item was added is a paid invoice of nothing, and pay refuses it."""
    v1, customer = shop.client.v1, shop.customer()
    empty = v1.invoices.create({"customer": customer.id})
    assert v1.invoices.finalize_invoice(empty.id).status == "paid"
    with pytest.raises(stripe.InvalidRequestError, match="Invoice is already paid"):
        v1.invoices.pay(empty.id)


def test_less_than_half_a_dollar_goes_to_the_balance(shop: Shop) -> None:
    """49 cents are not charged but owed, and the next invoice asks for them; voiding that one gives them back to the balance."""
    v1, customer = shop.client.v1, shop.customer()
    small = shop.open(customer, 49)
    assert (small.status, small.amount_due, small.ending_balance) == ("paid", 0, 49)
    assert v1.customers.retrieve(customer.id).balance == 49
    following = shop.open(customer, 1000)
    assert (following.amount_due, following.starting_balance, following.ending_balance) == (1049, 49, 0)
    v1.invoices.void_invoice(following.id)
    assert v1.customers.retrieve(customer.id).balance == 49


def test_a_credit_on_the_balance_is_used_first(shop: Shop) -> None:
    """10.00 of credit: an invoice of 4.00 is paid by it, the next of 9.00 asks for 3.00."""
    customer = shop.customer(balance=-1000)
    assert shop.open(customer, 400).status == "paid"
    assert shop.open(customer, 900).amount_due == 300


def test_pending_items_are_taken_only_if_asked_for(shop: Shop) -> None:
    """The relay's invoices exclude them, as is the default."""
    v1, customer = shop.client.v1, shop.customer()
    v1.invoice_items.create({"customer": customer.id, "amount": 700, "currency": "usd"})
    assert v1.invoices.create({"customer": customer.id}).amount_due == 0
    taken = v1.invoices.create({"customer": customer.id, "pending_invoice_items_behavior": "include"})
    assert taken.amount_due == 700
    assert v1.invoices.create({"customer": customer.id, "pending_invoice_items_behavior": "include"}).amount_due == 0


def test_items_are_priced_by_quantity_too(shop: Shop) -> None:
    """Of a price, or of so much a unit."""
    v1, customer = shop.client.v1, shop.customer()
    price = v1.prices.create({"currency": "usd", "unit_amount": 250, "product_data": {"name": "unit"}})
    draft = v1.invoices.create({"customer": customer.id})
    item = v1.invoice_items.create(
        {"customer": customer.id, "invoice": draft.id, "pricing": {"price": price.id}, "quantity": 3}
    )
    assert (item.amount, item.quantity) == (750, 3)
    assert v1.invoices.retrieve(draft.id).amount_due == 750
    v1.invoice_items.delete(item.id)
    assert v1.invoices.retrieve(draft.id).amount_due == 0


def test_auto_advance_finalizes_and_pays_after_an_hour(shop: Shop, stripe_server: StripeServer) -> None:
    """Without it a draft stays one for ever."""
    v1, customer = shop.client.v1, shop.customer()
    left = shop.draft(customer, 500, auto_advance=False)
    driven = shop.draft(customer, 600, auto_advance=True)
    assert driven.automatically_finalizes_at == moment(6, 1, 1)
    stripe_server.advance(_hours(1))
    assert v1.invoices.retrieve(driven.id).status == "paid"
    stripe_server.advance(_hours(24 * 60))
    assert v1.invoices.retrieve(left.id).status == "draft"


def test_a_failing_invoice_is_tried_again_by_stripe(shop: Shop, stripe_server: StripeServer) -> None:
    """Finalized with auto_advance: an hour later, then after 3, 5 and 7 days; each failure is told; then no more."""
    v1, customer = shop.client.v1, shop.customer("pm_card_chargeCustomerFail")
    invoice = v1.invoices.finalize_invoice(shop.draft(customer, 500).id, {"auto_advance": True})
    assert invoice.next_payment_attempt == moment(6, 1, 1)
    stripe_server.advance(_hours(24 * 60))
    failed = [delivery for delivery in stripe_server.deliveries if delivery.kind == "invoice.payment_failed"]
    assert [each.event["created"] - moment(6, 1, 1) for each in failed] == [0, 3 * DAY_S, 8 * DAY_S, 15 * DAY_S]
    assert [each.event["data"]["object"]["attempt_count"] for each in failed] == [1, 2, 3, 4]
    assert v1.invoices.retrieve(invoice.id).next_payment_attempt is None


def test_metadata_is_merged_and_a_draft_can_be_deleted(shop: Shop) -> None:
    """Keys are added, an empty value takes one away; the deleted draft is gone."""
    v1, customer = shop.client.v1, shop.customer()
    draft = shop.draft(customer, 500, metadata={"a": "1", "b": "2"})
    changed = v1.invoices.update(draft.id, {"metadata": {"a": "", "c": "3"}})
    assert plain(changed.metadata) == {"b": "2", "c": "3"}
    assert v1.invoices.delete(draft.id).deleted
    with pytest.raises(stripe.InvalidRequestError) as gone:
        v1.invoices.retrieve(draft.id)
    assert (gone.value.http_status, gone.value.code) == (404, "resource_missing")


def test_a_dispute_is_opened_and_closed(shop: Shop, stripe_server: StripeServer) -> None:
    """By the test, or by the card that does so by itself; the events say which charge."""
    v1, customer = shop.client.v1, shop.customer()
    v1.invoices.pay(shop.open(customer, 4750).id)
    charge = v1.charges.list({"customer": customer.id}).data[0]
    shop.told()
    dispute = stripe_server.dispute(charge.id)
    assert (dispute["charge"], dispute["amount"]) == (charge.id, 4750)
    assert v1.charges.retrieve(charge.id).disputed
    stripe_server.close_dispute(dispute["id"], "won")
    assert shop.told() == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]
    inquiry = shop.customer("pm_card_createDisputeInquiry")
    v1.invoices.pay(shop.open(inquiry, 900).id)
    found = v1.disputes.list({"limit": 1}).data[0]
    assert (found.status, found.amount) == ("warning_needs_response", 900)
    assert v1.disputes.close(found.id).status == "lost"


def _hours(count: int) -> timedelta:
    return timedelta(hours=count)
