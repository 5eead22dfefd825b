"""Stripe's rules of idempotency keys: what is replayed, what is refused, what is forgotten."""

import threading
from datetime import timedelta
from typing import Any

import pytest
import stripe
from stripe import Invoice

from tests.stripe_server.faults import Kind
from tests.stripe_server.playing import Shop
from tests.stripe_server.server import StripeServer

KEY = "charge-7-create"


def create(shop: Shop, customer: str, key: str = KEY, **given: str) -> Invoice:
    return shop.client.v1.invoices.create(
        {"customer": customer, "currency": "usd", "metadata": given}, {"idempotency_key": key}
    )


def invoices_of(server: StripeServer) -> int:
    return len(server.things("invoice"))


def test_the_same_request_again_has_the_same_answer(shop: Shop, stripe_server: StripeServer) -> None:
    """To the byte, and marked as replayed; one invoice, told once."""
    customer = shop.customer().id
    first, again = create(shop, customer), create(shop, customer)
    assert first.id == again.id
    assert first.last_response
    assert again.last_response
    assert first.last_response.body == again.last_response.body
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert again.last_response.headers["Original-Request"] == first.last_response.headers["Request-Id"]
    assert (invoices_of(stripe_server), shop.told().count("invoice.created")) == (1, 1)


def test_a_replay_is_the_answer_of_then(shop: Shop) -> None:
    """Not the object as it has become."""
    customer = shop.customer().id
    invoice = create(shop, customer)
    shop.client.v1.invoices.finalize_invoice(invoice.id)
    assert create(shop, customer).status == "draft"


def test_another_request_with_the_key_is_refused(shop: Shop, stripe_server: StripeServer) -> None:
    """Other parameters, or another endpoint: 400 idempotency_error, and nothing is done."""
    customer = shop.customer().id
    invoice = create(shop, customer)
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        create(shop, customer, other="metadata")
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        shop.client.v1.invoices.finalize_invoice(invoice.id, {}, {"idempotency_key": KEY})
    assert (invoices_of(stripe_server), shop.client.v1.invoices.retrieve(invoice.id).status) == (1, "draft")


def test_a_declined_card_sticks_to_its_key(shop: Shop, stripe_server: StripeServer) -> None:
    """The card is good again, and the same key still says 402; another key pays."""
    v1, customer = shop.client.v1, shop.customer("pm_card_chargeCustomerFail")
    invoice = shop.open(customer, 500)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            v1.invoices.pay(invoice.id, {}, {"idempotency_key": "pay-1"})
        stripe_server.accept(customer.id)
    assert v1.invoices.retrieve(invoice.id).attempt_count == 1
    assert v1.invoices.pay(invoice.id, {}, {"idempotency_key": "pay-2"}).status == "paid"


def test_what_was_refused_before_it_began_does_not_stick(shop: Shop, stripe_server: StripeServer) -> None:
    """Parameters that are none, 409 and 429: the same key serves the request that is right, or comes later."""
    v1, customer = shop.client.v1, shop.customer().id
    wrong: Any = {"customer": customer, "colour": "red"}
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter"):
        v1.invoices.create(wrong, {"idempotency_key": KEY})
    stripe_server.fails("rate_limit_429")
    with pytest.raises(stripe.RateLimitError):
        create(shop, customer)
    stripe_server.fails("conflict_409")
    with pytest.raises(stripe.APIError) as conflict:
        create(shop, customer)
    assert conflict.value.http_status == 409
    assert create(shop, customer).status == "draft"
    assert invoices_of(stripe_server) == 1


@pytest.mark.parametrize(("kind", "made"), [("error_500_before", 0), ("error_500_after", 1)])
def test_a_500_sticks_to_its_key(shop: Shop, stripe_server: StripeServer, kind: Kind, made: int) -> None:
    """Done or not done, the key says 500 for a day; only looking tells which it was."""
    customer = shop.customer().id
    stripe_server.fails(kind, "POST", "/v1/invoices")
    for _ in range(2):
        with pytest.raises(stripe.APIError) as broken:
            create(shop, customer)
        assert broken.value.http_status == 500
        assert (broken.value.headers or {})["Stripe-Should-Retry"] == "false"
    assert [entry.replayed for entry in stripe_server.requests if entry.key == KEY] == [False, True]
    assert len(shop.client.v1.invoices.list({"customer": customer}).data) == made


def test_a_request_still_under_way_holds_its_key(shop: Shop, stripe_server: StripeServer) -> None:
    """The second with the same key is refused with 409 until the first is done, then replayed."""
    customer = shop.customer().id
    fault = stripe_server.fails("late", "POST", "/v1/invoices")
    made: list[Invoice] = []
    slow = threading.Thread(target=lambda: made.append(create(shop, customer)))
    slow.start()
    assert fault.arrived.wait(10)
    with pytest.raises(stripe.APIError) as conflict:
        create(shop, customer)
    assert conflict.value.error
    assert (conflict.value.http_status, conflict.value.error.code) == (409, "idempotency_key_in_use")
    fault.released.set()
    slow.join()
    assert create(shop, customer).id == made[0].id
    assert invoices_of(stripe_server) == 1


def test_a_key_is_forgotten_after_a_day(shop: Shop, stripe_server: StripeServer) -> None:
    """Of the server's clock: from then on the same request is a new one."""
    customer = shop.customer().id
    first = create(shop, customer)
    stripe_server.advance(timedelta(hours=23, minutes=59))
    assert create(shop, customer).id == first.id
    stripe_server.advance(timedelta(minutes=1))
    assert create(shop, customer).id != first.id


def test_a_key_has_no_effect_on_what_is_no_post(shop: Shop) -> None:
    """A retrieval with a key that was used before is a retrieval."""
    customer = shop.customer().id
    create(shop, customer)
    assert shop.client.v1.customers.retrieve(customer, {}, {"idempotency_key": KEY}).id == customer


def test_the_sdks_own_retries_make_one_invoice(shop: Shop, stripe_server: StripeServer) -> None:
    """Which is what keys are for: the connection breaks after the effect, the SDK asks again by itself."""
    customer = shop.customer().id
    stripe_server.fails("reset_after", "POST", "/v1/invoices")
    patient = stripe_server.client(max_network_retries=2)
    assert patient.v1.invoices.create({"customer": customer}).status == "draft"
    assert invoices_of(stripe_server) == 1
