"""Events: raw bodies, Stripe's signatures, Stripe's order."""

from datetime import UTC, datetime, timedelta

import pytest
import stripe

from tests.stripe_server.deliveries import Delivery
from tests.stripe_server.playing import Shop, moment
from tests.stripe_server.server import StripeServer
from tests.stripe_server.version import API_VERSION

OLD, NEW = "whsec_old", "whsec_new"


@pytest.fixture
def delivery(shop: Shop, stripe_server: StripeServer) -> Delivery:
    shop.customer(name="Ada")
    return stripe_server.deliveries[-1]


def verify(delivery: Delivery, signature: str, secret: str, body: bytes | None = None) -> stripe.Event:
    tolerance = int(datetime.now(UTC).timestamp()) - delivery.at + 300
    event: stripe.Event = stripe.Webhook.construct_event(body or delivery.body, signature, secret, tolerance)
    return event


def test_the_sdk_accepts_the_signature(delivery: Delivery) -> None:
    """With the secret, and with either while two are live; with no other."""
    event = verify(delivery, delivery.signature(NEW), NEW)
    assert (event.type, event.api_version, event.created) == ("customer.created", API_VERSION, moment(6, 1))
    assert event.data.object["name"] == "Ada"
    both = delivery.signature(NEW, OLD)
    assert [verify(delivery, both, secret).id for secret in (OLD, NEW)] == [event.id, event.id]
    with pytest.raises(stripe.SignatureVerificationError):
        verify(delivery, both, "whsec_other")


def test_the_signature_is_of_the_very_bytes(delivery: Delivery) -> None:
    """A body that means the same and is written otherwise is not what was signed; nor is it at another time."""
    with pytest.raises(stripe.SignatureVerificationError):
        verify(delivery, delivery.signature(NEW), NEW, delivery.body.replace(b"  ", b" "))
    moved = delivery.signature(NEW).replace(f"t={delivery.at}", f"t={delivery.at + 1}")
    with pytest.raises(stripe.SignatureVerificationError):
        verify(delivery, moved, NEW)
    with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
        stripe.Webhook.construct_event(delivery.body, delivery.signature(NEW), NEW, 300)


def test_an_event_names_the_request_that_caused_it(shop: Shop, stripe_server: StripeServer) -> None:
    """And its key; what the clock caused names none."""
    customer = shop.customer()
    invoice = shop.client.v1.invoices.create({"customer": customer.id, "auto_advance": True}, {"idempotency_key": "k"})
    assert invoice.last_response
    created = stripe_server.deliveries[-1].event
    assert created["request"] == {"id": invoice.last_response.headers["Request-Id"], "idempotency_key": "k"}
    stripe_server.advance(timedelta(hours=1))
    assert stripe_server.deliveries[-1].event["request"] == {"id": None, "idempotency_key": None}


def test_events_can_be_read_back(shop: Shop, stripe_server: StripeServer) -> None:
    """Newest first, by kind; the same as was delivered."""
    shop.customer()
    shop.customer()
    found = shop.client.v1.events.list({"type": "customer.created"}).data
    assert len(found) == 2
    assert (
        shop.client.v1.events.retrieve(found[0].id).data.object["id"]
        == stripe_server.deliveries[-1].event["data"]["object"]["id"]
    )


def test_an_endpoint_is_called_in_order_and_may_call_stripe() -> None:
    """Each event before its request is answered; what the endpoint itself causes comes after what was first."""
    told: list[str] = []

    def endpoint(delivery: Delivery) -> None:
        told.append(delivery.kind)
        if delivery.kind == "customer.created":
            server.client().v1.customers.update(delivery.event["data"]["object"]["id"], {"name": "seen"})

    with StripeServer(datetime(2026, 6, 1, tzinfo=UTC), endpoint) as server:
        customer = server.client().v1.customers.create({"payment_method": "pm_card_visa"})
        assert told == ["payment_method.attached", "customer.created", "customer.updated"]
        assert server.client().v1.customers.retrieve(customer.id).name == "seen"


def test_an_endpoint_that_fails_keeps_nothing_from_happening() -> None:
    """As with Stripe: the delivery is kept to be tried again, the request goes on."""

    def endpoint(delivery: Delivery) -> None:
        raise ValueError(delivery.kind)

    with StripeServer(datetime(2026, 6, 1, tzinfo=UTC), endpoint) as server:
        assert server.client().v1.customers.create({}).id
        assert [(delivery.kind, str(error)) for delivery, error in server.post.refused] == [
            ("customer.created", "customer.created")
        ]
