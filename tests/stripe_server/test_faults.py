"""Faults come at the call they are scripted for, and leave what they say they leave."""

from datetime import timedelta

import pytest
import stripe

from tests.stripe_server.faults import Kind
from tests.stripe_server.playing import Shop
from tests.stripe_server.server import StripeServer

UNREACHABLE = ["timeout_before", "timeout_after", "reset_before", "reset_after"]


@pytest.mark.parametrize("kind", UNREACHABLE)
def test_no_answer_says_nothing_about_the_effect(shop: Shop, stripe_server: StripeServer, kind: Kind) -> None:
    """…_before: nothing was done. …_after: the invoice is there, and told, though the client saw a broken connection."""
    customer = shop.customer().id
    shop.told()
    hasty = stripe_server.client(timeout_s=0.2)
    fault = stripe_server.fails(kind, "POST", "/v1/invoices")
    with pytest.raises(stripe.APIConnectionError):
        hasty.v1.invoices.create({"customer": customer}, {"idempotency_key": "one"})
    assert fault.arrived.wait(10)
    stripe_server.wait_until_idle()
    assert len(stripe_server.things("invoice")) == (1 if kind.endswith("after") else 0)
    shop.client.v1.invoices.create({"customer": customer}, {"idempotency_key": "one"})
    assert len(stripe_server.things("invoice")) == 1
    assert shop.told() == ["invoice.created"]
    assert [(entry.fault, entry.replayed, entry.seen) for entry in stripe_server.requests[-2:]] == [
        (kind, False, False),
        (None, kind.endswith("after"), True),
    ]


@pytest.mark.parametrize(
    ("kind", "status", "error", "again"),
    [
        ("unavailable_503", 503, stripe.APIError, "false"),
        ("rate_limit_429", 429, stripe.RateLimitError, "false"),
        ("lock_timeout_429", 429, stripe.RateLimitError, "true"),
        ("conflict_409", 409, stripe.APIError, "true"),
    ],
)
def test_a_request_turned_away_does_nothing(
    shop: Shop, stripe_server: StripeServer, kind: Kind, status: int, error: type[stripe.StripeError], again: str
) -> None:
    """With its status, and whether asking again at once makes sense."""
    customer = shop.customer().id
    stripe_server.fails(kind, "POST", "/v1/invoices")
    with pytest.raises(error) as refused:
        shop.client.v1.invoices.create({"customer": customer})
    assert refused.value.http_status == status
    assert (refused.value.headers or {})["Stripe-Should-Retry"] == again
    assert stripe_server.things("invoice") == []
    assert shop.client.v1.invoices.create({"customer": customer}).status == "draft"


def test_a_fault_waits_for_its_call(shop: Shop, stripe_server: StripeServer) -> None:
    """The second payment of any invoice, and the third; other calls pass."""
    customer = shop.customer()
    fault = stripe_server.fails("lock_timeout_429", "POST", "/v1/invoices/*/pay", nth=2, times=2)
    refused = 0
    for _ in range(4):
        invoice = shop.open(customer, 500)
        try:
            shop.client.v1.invoices.pay(invoice.id)
        except stripe.RateLimitError:
            refused += 1
    assert (refused, fault.seen) == (2, 4)
    assert [invoice["status"] for invoice in stripe_server.things("invoice")] == ["paid", "open", "open", "paid"]


def test_an_outage_lasts_until_it_is_over(shop: Shop, stripe_server: StripeServer) -> None:
    """Every call is refused, however often; then all is as it was."""
    customer = shop.customer()
    outage = stripe_server.fails("unavailable_503", times=None)
    for _ in range(5):
        with pytest.raises(stripe.APIError):
            shop.client.v1.customers.retrieve(customer.id)
    stripe_server.advance(timedelta(hours=6))
    stripe_server.script.remove(outage)
    assert shop.client.v1.customers.retrieve(customer.id).id == customer.id


def test_a_card_can_be_declined_once(shop: Shop, stripe_server: StripeServer) -> None:
    """The bank refuses this payment whatever the card is; the next is taken."""
    invoice = shop.open(shop.customer(), 500)
    stripe_server.fails("declined", "POST", "/v1/invoices/*/pay")
    with pytest.raises(stripe.CardError):
        shop.client.v1.invoices.pay(invoice.id)
    assert shop.client.v1.invoices.pay(invoice.id).status == "paid"


def test_a_late_request_takes_effect_after_the_client_gave_up(shop: Shop, stripe_server: StripeServer) -> None:
    """The worst case for who believes that a time-out means nothing was done."""
    customer = shop.customer().id
    fault = stripe_server.fails("late", "POST", "/v1/invoices")
    with pytest.raises(stripe.APIConnectionError):
        stripe_server.client(timeout_s=0.2).v1.invoices.create({"customer": customer}, {"idempotency_key": "one"})
    assert fault.arrived.wait(10)
    assert stripe_server.things("invoice") == []
    fault.released.set()
    stripe_server.wait_until_idle()
    again = shop.client.v1.invoices.create({"customer": customer}, {"idempotency_key": "one"})
    assert [invoice["id"] for invoice in stripe_server.things("invoice")] == [again.id]
