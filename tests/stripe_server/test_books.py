"""Whatever happens in whatever order, the server's own books agree. Played on the pure world: METERBOOK_TEST_SEED repeats a run."""

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.stripe_server import clocks, customers, invoices, payments, subscriptions
from tests.stripe_server.cards import DECLINED, GOOD
from tests.stripe_server.playing import DAY_S, moment
from tests.stripe_server.refusals import Refused
from tests.stripe_server.sdk_types import differences
from tests.stripe_server.world import Thing, World, copied

PLAYS, STEPS = int(os.environ.get("METERBOOK_STRIPE_PLAYS", "3")), 40
Act = Callable[[World, random.Random], object]


def some(world: World, rng: random.Random, kind: str) -> Thing:
    """A random object, newer ones rather than old ones; a play begins with one of each kind that is asked for."""
    return rng.choice(list(world.of(kind))[-4:])


def new_world(rng: random.Random) -> World:
    world = World(moment(1, 31), "x", after_retries=rng.choice(["cancel", "unpaid", "past_due"]))
    for cents, interval in ((3000, "month"), (12500, "month"), (30000, "year"), (20, "month")):
        recurring = {"interval": interval}
        customers.create_price(
            world, {"currency": "usd", "unit_amount": cents, "recurring": recurring, "product_data": {"name": "x"}}
        )
    for token in ("pm_card_visa", "pm_card_chargeCustomerFail", "pm_card_createDispute"):
        settings = {"default_payment_method": token}
        customer = customers.create(
            world, {"payment_method": token, "invoice_settings": settings, "balance": rng.choice([0, -700])}
        )
        invoices.create(world, {"customer": customer["id"]})
        subscriptions.create(world, {"customer": customer["id"], "items": [{"price": some(world, rng, "price")["id"]}]})
    return world


def subscribe(world: World, rng: random.Random) -> object:
    more: dict[str, Any] = rng.choice(
        [
            {},
            {"trial_period_days": 10},
            {"billing_cycle_anchor": world.now + 9 * DAY_S},
            {"payment_behavior": "default_incomplete"},
            {"payment_behavior": "error_if_incomplete"},
            {"collection_method": "send_invoice", "days_until_due": 30},
        ]
    )
    items = [{"price": some(world, rng, "price")["id"], "quantity": rng.randint(1, 5)}]
    return subscriptions.create(world, {"customer": some(world, rng, "customer")["id"], "items": items, **more})


def change(world: World, rng: random.Random) -> object:
    subscription = some(world, rng, "subscription")
    item = {"id": subscription["items"]["data"][0]["id"]}
    more: dict[str, Any] = rng.choice(
        [
            {"items": [{**item, "quantity": rng.randint(1, 9)}]},
            {"items": [{**item, "price": some(world, rng, "price")["id"]}]},
            {"billing_cycle_anchor": {"type": "now"}},
            {"trial_end": "now"},
            {"trial_end": world.now + 5 * DAY_S},
            {"cancel_at_period_end": rng.random() < 0.7},
            {
                "pause_collection": {
                    "behavior": rng.choice(["void", "keep_as_draft"]),
                    "resumes_at": world.now + 20 * DAY_S,
                }
            },
            {"items": [{"id": "si_none", "quantity": 1}]},
        ]
    )
    behavior = rng.choice(["none", "create_prorations", "always_invoice"])
    return subscriptions.update(world, {**more, "proration_behavior": behavior}, subscription["id"])


def end(world: World, rng: random.Random) -> object:
    act = rng.choice([subscriptions.cancel, subscriptions.pause, subscriptions.resume])
    return act(world, {}, some(world, rng, "subscription")["id"])


def bill(world: World, rng: random.Random) -> object:
    invoice = some(world, rng, "invoice")
    asked = {"customer": invoice["customer"], "amount": rng.choice([-300, 20, 4750]), "currency": "usd"}
    steps: list[Callable[[], object]] = [
        lambda: invoices.create(world, {"customer": asked["customer"], "auto_advance": rng.random() < 0.5}),
        lambda: invoices.create(world, {"customer": asked["customer"], "pending_invoice_items_behavior": "include"}),
        lambda: invoices.create_item(world, {**asked, "invoice": invoice["id"]}),
        lambda: invoices.create_item(world, asked),
        lambda: invoices.buy(world, invoice["customer"], 5000, {}),
    ]
    return rng.choice(steps)()


def settle(world: World, rng: random.Random) -> object:
    steps: list[Callable[[World, Thing, str], object]] = [
        invoices.finalize,
        invoices.finalize,
        invoices.pay,
        invoices.pay,
        invoices.void,
        invoices.mark_uncollectible,
        invoices.delete,
    ]
    return rng.choice(steps)(world, {}, some(world, rng, "invoice")["id"])


def bank(world: World, rng: random.Random) -> object:
    world.cards[rng.choice(list(world.cards))] = rng.choice([GOOD, DECLINED])
    return None


def dispute(world: World, rng: random.Random) -> object:
    return (
        payments.close_dispute(world, some(world, rng, "dispute")["id"], "won") if list(world.of("dispute")) else None
    )


def pass_time(world: World, rng: random.Random) -> object:
    clocks.advance(world, None, world.now + rng.choice([3600, DAY_S, 8 * DAY_S, 33 * DAY_S]))
    return None


ACTS: list[Act] = [
    subscribe,
    change,
    change,
    end,
    bill,
    bill,
    settle,
    settle,
    settle,
    bank,
    dispute,
    pass_time,
    pass_time,
]


def play(seed: int) -> Iterator[World]:
    """The world after each act. What is refused as wrong has changed nothing."""
    rng = random.Random(seed)
    world = new_world(rng)
    for _ in range(STEPS):
        before, told = objects(world), len(list(world.of("event")))
        refused = refusal_of(rng.choice(ACTS), world, rng)
        if refused and refused.status != 402:
            assert what_differs(objects(world), before) == [], refused
            assert len(list(world.of("event"))) == told
        yield world


def refusal_of(act: Act, world: World, rng: random.Random) -> Refused | None:
    try:
        act(world, rng)
    except Refused as refused:
        return refused
    return None


def objects(world: World) -> dict[str, Thing]:
    """As they are now; events never change."""
    return {name: copied(thing) for name, thing in world.things.items() if thing["object"] != "event"}


def what_differs(now: dict[str, Thing], before: dict[str, Thing]) -> list[str]:
    return [name for name in now.keys() | before.keys() if now.get(name) != before.get(name)]


@pytest.fixture
def seeds(seed: int) -> list[int]:
    return [seed + number for number in range(PLAYS)]


def test_every_cent_is_accounted_for(seeds: list[int]) -> None:
    """What invoices say was paid is what cards were charged; what they ask for and leave is in the balances; lines add up."""
    for seed in seeds:
        for world in play(seed):
            check_invoices(world)
            check_balances(world)
            check_charges(world)


def check_invoices(world: World) -> None:
    for invoice in world.of("invoice"):
        assert invoice["total"] == sum(line["amount"] for line in invoice["lines"]["data"])
        assert invoice["amount_remaining"] == (0 if invoice["status"] == "paid" else invoice["amount_due"])
        if invoice["status"] != "draft":
            assert invoice["total"] + invoice["starting_balance"] == invoice["amount_due"] + invoice["ending_balance"]


def check_balances(world: World) -> None:
    for customer in world.of("customer"):
        begun = next(
            event for event in world.events("customer.created") if event["data"]["object"]["id"] == customer["id"]
        )
        counted = [
            invoice["ending_balance"] - invoice["starting_balance"]
            for invoice in world.of("invoice")
            if invoice["customer"] == customer["id"] and invoice["status"] not in {"draft", "void"}
        ]
        assert customer["balance"] == begun["data"]["object"]["balance"] + sum(counted)


def check_charges(world: World) -> None:
    """One intent an invoice, one charge that succeeded for each that is paid by card."""
    charged = [charge["amount"] for charge in world.of("charge") if charge["paid"]]
    assert sorted(charged) == sorted(
        invoice["amount_paid"] for invoice in world.of("invoice") if invoice["amount_paid"]
    )


def test_the_newest_event_shows_the_object_as_it_is(seeds: list[int]) -> None:
    """Nothing about an invoice or a subscription changes untold; and whatever is told is what the SDK's types say."""
    for seed in seeds:
        for world in play(seed):
            newest = {event["data"]["object"]["id"]: event["data"]["object"] for event in world.of("event")}
            for kind in ("invoice", "subscription"):
                stale = [thing for thing in world.of(kind) if newest[thing["id"]] != thing]
                assert [(thing["id"], what_differs(thing, newest[thing["id"]])) for thing in stale] == []
        assert {
            difference
            for thing in world.things.values()
            if not thing.get("deleted")
            for difference in differences(thing)
        } == set()


def test_periods_follow_one_another(seeds: list[int]) -> None:
    """A period begins where the one before ended, or at the moment of a change that begins the cycle anew."""
    for seed in seeds:
        *_, world = play(seed)
        for event in world.events("customer.subscription.updated"):
            previous = event["data"]["previous_attributes"].get("items")
            item = event["data"]["object"]["items"]["data"][0]
            if previous and previous["data"][0]["current_period_start"] != item["current_period_start"]:
                assert item["current_period_start"] in {previous["data"][0]["current_period_end"], event["created"]}
            assert item["current_period_start"] < item["current_period_end"]
