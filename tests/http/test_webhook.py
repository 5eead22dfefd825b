"""Stripe's webhook over HTTP: the raw body and its signature, no key; each event applied once."""

from collections.abc import AsyncIterator, Callable

import pytest

import meterbook
from meterbook.book import Book
from meterbook.stripe.events import WEBHOOK_PATH
from tests.conftest import Clock
from tests.http.conftest import Service
from tests.ledger import P1, count
from tests.stripe.hooks import ACCOUNT, Subscription, body_of, priced, signed

BODY = body_of(Subscription("sub_u", "user:u").event("created", P1[0]))
KIND = {"Content-Type": "application/json; charset=utf-8"}


@pytest.fixture
async def book(database_url: str, clock: Clock) -> AsyncIterator[Book]:
    async with meterbook.open(database_url, clock=clock, catalog=priced(), stripe=ACCOUNT) as opened:
        yield opened


async def test_an_event_is_applied_once(service: Service, database_url: str) -> None:
    """By its signature, without a key; delivered again it is told to be known."""
    stripe = service.caller(None)
    told = [
        (await stripe.post(WEBHOOK_PATH, content=BODY, headers={**KIND, "Stripe-Signature": signed(BODY)})).json()
        for _ in range(2)
    ]
    assert [(each["state"], each["replayed"]) for each in told] == [("applied", False), ("applied", True)]
    assert (count(database_url, "stripe_event"), count(database_url, "subscription")) == (1, 1)


UNSIGNED: dict[str, Callable[[], str | None]] = {
    "none": lambda: None,
    "nonsense": lambda: "nonsense",
    "of another secret": lambda: signed(BODY, "whsec_other"),
    "of another body": lambda: signed(BODY[:-1] + b" }"),
}


@pytest.mark.parametrize("name", UNSIGNED)
async def test_nobody_but_stripe_is_heard(service: Service, name: str, database_url: str) -> None:
    """400, whatever key comes with it; nothing is stored."""
    signature = UNSIGNED[name]()
    admin = await service.with_scope("admin")
    headers = KIND if signature is None else {**KIND, "Stripe-Signature": signature}
    refused = await admin.post(WEBHOOK_PATH, content=BODY, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_signature")
    assert count(database_url, "stripe_event") == 0


async def test_an_event_that_fails_is_asked_for_again(service: Service, database_url: str) -> None:
    """Anything but 2xx makes Stripe send it again; it is kept as failed meanwhile, and shows in no log with its content."""
    body = body_of(Subscription("sub_o", "organization:nobody").event("created", P1[0]))
    answer = await service.caller(None).post(
        WEBHOOK_PATH, content=body, headers={**KIND, "Stripe-Signature": signed(body)}
    )
    assert answer.status_code >= 400
    assert [each.state for each in await service.book.stripe_events()] == ["failed"]
    assert count(database_url, "subscription") == 0
