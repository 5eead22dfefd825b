"""What the server sends is what Stripe's types say and what Stripe's own examples show."""

import json
import os
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.stripe_server.playing import Shop, moment
from tests.stripe_server.sdk_types import SDK_CLASSES, differences, fields_of
from tests.stripe_server.server import StripeServer
from tests.stripe_server.version import API_VERSION
from tests.stripe_server.world import Thing

ROOT = Path(__file__).resolve().parents[2]
# Stripe's example objects (https://github.com/stripe/openapi, MIT): too many to be copied here for the few that are looked at.
EXAMPLES = Path(os.environ.get("METERBOOK_DATA", ROOT.parent / "shared" / "data")) / "stripe_fixtures3.json"
KINDS = sorted(SDK_CLASSES)
BY_EXPANSION = {"refunds"}
"""What Stripe sends only to those who ask for it, though its examples have it."""


def test_the_version_is_the_sdks_own() -> None:
    """Whoever raises the SDK is told here to look at the shapes again."""
    assert stripe.api_version == API_VERSION


@pytest.fixture(scope="module")
def history() -> list[Thing]:
    """Objects of every kind, in many of their states."""
    with StripeServer(datetime(2026, 6, 1, tzinfo=UTC)) as stripe_server:
        play(Shop(stripe_server, stripe_server.client()), stripe_server)
        return list(stripe_server.world.things.values())


def play(shop: Shop, stripe_server: StripeServer) -> None:
    v1, customer, bad = shop.client.v1, shop.customer(name="A", email="a@example.com"), shop.customer()
    price, dearer = shop.price(3000), shop.price(12500)
    subscription = shop.subscription(customer, price, 4)
    shop.subscription(bad, price, trial_period_days=10)
    v1.subscriptions.update(subscription.id, {"items": [{"id": shop.item_of(subscription).id, "price": dearer.id}]})
    v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    stripe_server.decline(bad.id)
    for status in ("paid", "void", "uncollectible"):
        invoice = shop.open(customer, 4750, metadata={"kind": status})
        act = {
            "paid": v1.invoices.pay,
            "void": v1.invoices.void_invoice,
            "uncollectible": v1.invoices.mark_uncollectible,
        }
        act[status](invoice.id)
    shop.draft(customer, 30)
    with pytest.raises(stripe.CardError):
        v1.invoices.pay(shop.open(bad, 500).id)
    paid = v1.charges.list({"customer": customer.id}).data[0]
    stripe_server.close_dispute(stripe_server.dispute(paid.id)["id"], "won")
    clock = v1.test_helpers.test_clocks.create({"frozen_time": moment(1, 31)})
    shop.subscription(shop.customer(test_clock=clock.id), price)
    v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": moment(4, 1)})
    stripe_server.advance(timedelta(days=40))


def test_each_object_is_what_the_sdks_types_say(history: list[Thing]) -> None:
    """Every field known to the SDK, none missing, each of its type; in events too, as they were then."""
    found = {difference for thing in history for difference in differences(thing)}
    found |= {
        difference
        for event in history
        if event["object"] == "event"
        for difference in differences(event["data"]["object"])
    }
    assert sorted(found) == []


def test_the_history_has_objects_of_every_kind(history: list[Thing]) -> None:
    """So that the comparison leaves none out; lines, items and plans are inside of others."""
    inside = {"line_item", "subscription_item", "plan"}
    assert {thing["object"] for thing in history} == SDK_CLASSES.keys() - inside
    assert {thing["status"] for thing in history if thing["object"] == "invoice"} == {
        "draft",
        "open",
        "paid",
        "void",
        "uncollectible",
    }


@cache
def examples() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(EXAMPLES.read_text())["resources"]
    return found


@pytest.mark.skipif(not EXAMPLES.exists(), reason=f"Stripe's example objects are not there: {EXAMPLES}")
@pytest.mark.parametrize("kind", KINDS)
def test_each_object_is_like_stripes_example(history: list[Thing], kind: str) -> None:
    """Every field of ours is one of the example's or newer than it, with the same kind of value; what the example always has, we have."""
    example = _inside(examples()["subscription"], "plan") if kind == "plan" else examples()[kind]
    found = {difference for thing in _of_kind(history, kind) for difference in _unlike(kind, thing, example)}
    assert sorted(found) == []


def _of_kind(history: list[Thing], kind: str) -> list[Thing]:
    """Of lines, items and plans those inside of others."""
    if kind == "line_item":
        return [line for thing in history if thing["object"] == "invoice" for line in thing["lines"]["data"]]
    items = [item for thing in history if thing["object"] == "subscription" for item in thing["items"]["data"]]
    if kind in {"subscription_item", "plan"}:
        return items if kind == "subscription_item" else [item["plan"] for item in items]
    return [thing for thing in history if thing["object"] == kind]


def _inside(subscription: Thing, name: str) -> Thing:
    found: Thing = subscription["items"]["data"][0][name]
    return found


def _unlike(kind: str, ours: Thing, example: Thing) -> list[str]:
    known = fields_of(SDK_CLASSES[kind])
    unknown = [f"{kind}.{name}: not in the example" for name in ours.keys() - example.keys() - known.keys()]
    missing = [
        f"{kind}.{name}: only in the example" for name in (example.keys() & known.keys()) - ours.keys() - BY_EXPANSION
    ]
    return [
        *unknown,
        *missing,
        *(
            f"{kind}.{name}: {ours[name]!r}, in the example {example[name]!r}"
            for name in ours.keys() & example.keys()
            if not _alike(ours[name], example[name])
        ),
    ]


def _alike(ours: Any, example: Any) -> bool:
    """The same kind of JSON; null says nothing about a kind. Numbers that are flags would be told apart."""
    return ours is None or example is None or type(ours) is type(example)
