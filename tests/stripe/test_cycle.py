"""A whole cycle over the tests' Stripe, end to end: what it does, its webhooks bring in; what the ledger charges, the relay bills there."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

import meterbook
from meterbook import load_catalog
from meterbook.stripe.gateway import StripeAccount
from tests.bills import alerts, check_books, lump
from tests.conftest import Clock
from tests.ledger import P1, P2, query, utc, windows
from tests.relay.test_invoices import OPEN_TRANSACTIONS
from tests.stripe.stage import Stage, with_price
from tests.stripe_server.conftest import shop, stripe_server
from tests.stripe_server.deliveries import SECRET
from tests.stripe_server.playing import Shop
from tests.stripe_server.server import API_KEY, StripeServer

__all__ = ["shop", "stripe_server"]


@pytest.fixture
async def stage(
    database_url: str,
    clock: Clock,
    stripe_server: StripeServer,
    shop: Shop,
) -> AsyncIterator[tuple[Stage, str]]:
    """A subscription of pro_6000 since the first of June, of `user:u`."""
    clock.now = P1[0]
    price = shop.price(2500)
    account = StripeAccount(API_KEY, (SECRET,), stripe_server.url)
    catalog = with_price(load_catalog(), "pro_6000", price.id)
    async with meterbook.open(database_url, clock=clock, catalog=catalog, stripe=account) as book:
        made = Stage(book, stripe_server, shop.client, clock)
        metadata = {"billing_entity": "user:u"}
        subscription = shop.subscription(shop.customer(), price, metadata=metadata)
        await made.hear()
        yield made, subscription.id


async def test_a_cycle_from_subscribing_to_the_end(stage: tuple[Stage, str], database_url: str) -> None:
    """Subscribe, use, threshold, renew, close, pay, fail, pay, dispute, win, cancel: each invoice of the right cents, once."""
    play, subscription = stage
    book, client = play.book, play.client
    assert windows(database_url, "user:u") == [P1]
    await play.go_to(utc(2026, 6, 2))
    await lump(book, "u", "130.25")
    await play.go_to(utc(2026, 6, 10))
    assert play.invoices() == [(10_000, "paid")]
    await lump(book, "u", "15.00", day=8)
    await play.go_to(P2[0] + timedelta(hours=2))
    assert play.invoices() == [(10_000, "paid"), (1_475, "paid")]
    assert windows(database_url, "user:u") == [P1, P2]

    (customer,) = play.server.things("customer")
    play.server.decline(customer["id"])
    await lump(book, "u", "130.25", window=P2)
    await play.go_to(utc(2026, 7, 10))
    assert play.invoices()[2:] == [(10_000, "open")]
    assert not (await book.check("u")).allowed
    assert (await alerts(book, "user:u")).count("payment_failed") == 1
    play.server.accept(customer["id"])
    (unpaid,) = [each["id"] for each in play.server.things("invoice") if each["status"] == "open"]
    client.v1.invoices.pay(unpaid)
    await play.hear()
    assert (await book.check("u")).code != "payment_failed"
    assert query(database_url, "select count(*) from meterbook.entity_block") == [(0,)]

    dispute = play.server.dispute(play.server.things("charge")[-1]["id"])
    await play.hear()
    assert (await book.check("u")).code == "dispute"
    play.server.close_dispute(dispute["id"], "won")
    await play.hear()
    assert query(database_url, "select count(*) from meterbook.entity_block") == [(0,)]

    client.v1.subscriptions.cancel(subscription)
    await play.hear()
    assert windows(database_url, "user:u")[-1] == (P2[0], utc(2026, 7, 10))
    await play.go_to(utc(2026, 7, 10, 2))
    assert [cents for cents, _ in play.invoices()] == [10_000, 1_475, 10_000]
    assert {state for _, state in play.states} <= {"applied", "ignored", "stale"}
    await check_books(book, database_url)


async def test_of_one_second_stripe_is_asked(stage: tuple[Stage, str], database_url: str) -> None:
    """Three changes within one second, told in reverse: what holds is what Stripe has now, and each event ends."""
    play, subscription = stage
    for quantity in (4, 9, 2):
        item = play.client.v1.subscriptions.retrieve(subscription)["items"].data[0].id
        params: Any = {"items": [{"id": item, "quantity": quantity}], "proration_behavior": "none"}
        play.client.v1.subscriptions.update(subscription, params)
    changes = play.server.deliveries[play.told :]
    asked = len([each for each in play.server.requests if each.method == "GET"])
    for each in reversed(changes):
        await play.book.apply_stripe_event(each.body, each.signature(at=int(time.time())))
    assert len([each for each in play.server.requests if each.method == "GET"]) > asked
    assert query(database_url, "select seats from meterbook.subscription") == [(2,)]


@pytest.mark.parametrize("is_late", [False, True])
async def test_what_changed_after_an_event_of_the_same_second_does_not_count_from_it(
    stage: tuple[Stage, str], database_url: str, is_late: bool
) -> None:
    """Two events of one second in June, heard at once or after seats were added in July: June's included is June's, and so is its bill."""
    play, subscription = stage
    for text in ("1", "2"):
        play.client.v1.subscriptions.update(subscription, {"metadata": {"said": text}})
    if not is_late:
        await play.hear()
    play.clock.now = utc(2026, 6, 2)
    await lump(play.book, "u", "100.25")
    play.clock.now = P2[0] + timedelta(minutes=10)
    play.server.advance(play.clock.now)
    item = play.client.v1.subscriptions.retrieve(subscription)["items"].data[0].id
    more: Any = {"items": [{"id": item, "quantity": 9}], "proration_behavior": "none"}
    play.client.v1.subscriptions.update(subscription, more)
    await play.hear()
    await play.go_to(P2[0] + timedelta(hours=2))
    assert play.invoices() == [(7_000, "paid")]
    periods = "select seats, state from meterbook.billing_period where kind = 'dated' order by starts_at"
    assert query(database_url, periods) == [(1, "closed"), (9, "open")]


async def test_a_stripe_that_does_not_answer_leaves_the_event_waiting(
    stage: tuple[Stage, str], database_url: str
) -> None:
    """A dispute whose payment can't be asked for is kept as failed, holds no transaction open, and is applied by its replay."""
    play, _ = stage
    dispute = play.server.dispute(play.server.things("charge")[-1]["id"])
    play.server.fails("unavailable_503", "GET", "/v1/charges/*")
    (told,) = [each for each in play.server.deliveries if each.kind == "charge.dispute.created"]
    with pytest.raises(meterbook.MeterbookError) as refused:
        await play.book.apply_stripe_event(told.body, told.signature(at=int(time.time())))
    assert (refused.value.code, refused.value.retryable) == ("stripe_unavailable", True)
    (applied,) = await play.book.replay_stripe_events()
    assert applied.state == "applied"
    assert query(database_url, "select reason, reference from meterbook.entity_block") == [("dispute", dispute["id"])]


async def test_a_dispute_that_was_lost_goes_on_blocking(stage: tuple[Stage, str]) -> None:
    """And a payment unblocks nothing of it: a dispute outranks a failed payment, and survives payments."""
    play, _ = stage
    dispute = play.server.dispute(play.server.things("charge")[-1]["id"])
    await play.book.block("user:u", reason="payment_failed", reference="in_x")
    await play.hear()
    assert (await play.book.check("u")).code == "dispute"
    play.server.close_dispute(dispute["id"], "lost")
    await play.hear()
    await play.book.unblock("user:u", reason="payment_failed", reference="in_x")
    assert (await play.book.check("u")).code == "dispute"
    assert await play.book.unblock("user:u", reason="dispute", reference=dispute["id"])


async def test_losing_every_webhook_after_the_first_changes_no_amount(
    stage: tuple[Stage, str], database_url: str
) -> None:
    """The clock closes and the relay bills, though nobody tells that the cycle was renewed."""
    play, _ = stage
    play.clock.now = utc(2026, 6, 2)
    await lump(play.book, "u", "145.25")
    play.server.advance(P2[0] + timedelta(hours=2))
    play.clock.now = P2[0] + timedelta(hours=2)
    await play.book.sweep()
    await play.book.relay()
    assert play.invoices() == [(11_500, "paid")]
    assert windows(database_url, "user:u") == [P1, P2]
    await check_books(play.book, database_url)


async def test_nothing_is_asked_of_stripe_inside_a_transaction(stage: tuple[Stage, str], database_url: str) -> None:
    """While a disputed payment is looked up no session of the ledger has a transaction open: the event's was undone first."""
    play, _ = stage
    play.server.dispute(play.server.things("charge")[-1]["id"])
    held = play.server.fails("late", "GET", "/v1/charges/*")
    hearing = asyncio.create_task(play.hear())
    assert await asyncio.to_thread(held.arrived.wait, 10)
    assert query(database_url, OPEN_TRANSACTIONS) == []
    held.released.set()
    await hearing
    assert (await play.book.check("u")).code == "dispute"


def kinds_of(play: Stage) -> set[str]:
    return {kind for kind, _ in play.states}


async def test_a_first_checkout_that_fails_blocks_until_stripe_voids_it(stage: tuple[Stage, str]) -> None:
    """§11, literally: the invoice failed, so a person on the free plan is stopped; after 23 hours Stripe voids it: the block ends."""
    play, _ = stage
    shop = Shop(play.server, play.client)
    price = play.client.v1.prices.retrieve(play.server.things("price")[0]["id"])
    shop.subscription(shop.customer("pm_card_chargeCustomerFail"), price, metadata={"billing_entity": "user:new"})
    await play.hear()
    assert (await play.book.check("new")).code == "payment_failed"
    assert (await play.book.usage("user:new")).period.kind == "free"
    await play.go_to(P1[0] + timedelta(hours=24))
    assert (await play.book.check("new")).allowed
    assert "invoice.voided" in kinds_of(play)
    assert await alerts(play.book, "user:new") == ["payment_failed"]


async def test_a_trial_that_ends_begins_a_period_that_is_paid(stage: tuple[Stage, str], database_url: str) -> None:
    """A trial's period is an ordinary one, closed by itself; the paid one begins where it ends."""
    play, _ = stage
    shop = Shop(play.server, play.client)
    price, ends = play.client.v1.prices.retrieve(play.server.things("price")[0]["id"]), utc(2026, 6, 8)
    metadata = {"billing_entity": "user:try"}
    shop.subscription(shop.customer(), price, metadata=metadata, trial_end=int(ends.timestamp()))
    await play.hear()
    assert windows(database_url, "user:try") == [(P1[0], ends)]
    await play.go_to(utc(2026, 6, 2))
    await lump(play.book, "try", "41.00")
    await play.go_to(ends + timedelta(hours=2))
    assert windows(database_url, "user:try") == [(P1[0], ends), (ends, utc(2026, 7, 8))]
    assert play.invoices() == [(1_075, "paid")]
    await check_books(play.book, database_url)


async def test_dunning_to_the_end(stage: tuple[Stage, str], database_url: str) -> None:
    """A renewal that is never paid: no threshold while past_due, blocked; when Stripe gives up it is canceled, closed, and asked for."""
    play, _ = stage
    (customer,) = play.server.things("customer")
    play.server.decline(customer["id"])
    await play.go_to(P2[0] + timedelta(hours=2))
    assert query(database_url, "select status from meterbook.subscription") == [("past_due",)]
    await lump(play.book, "u", "150.25", window=P2)
    assert (await play.book.bill_threshold("user:u")).reason == "not_active"
    await play.go_to(utc(2026, 7, 20))
    assert query(database_url, "select status from meterbook.subscription") == [("canceled",)]
    (_, cut) = windows(database_url, "user:u")
    assert P2[0] == cut[0] < cut[1] < utc(2026, 7, 20)
    assert play.invoices() == [(12_000, "open")]
    assert (await play.book.check("u")).code == "payment_failed"
    await check_books(play.book, database_url)


async def test_an_invoice_that_is_not_paid_blocks_who_was_charged(stage: tuple[Stage, str], database_url: str) -> None:
    """I1, §11: the subscription has passed to the organization; the person's last charge is declined, and the person is blocked."""
    play, subscription = stage
    await play.book.put_organization("acme", owner="boss")
    await play.go_to(utc(2026, 6, 2))
    await lump(play.book, "u", "100.25")
    await play.go_to(utc(2026, 6, 10))
    passed_on = {"billing_entity": "organization:acme"}
    play.client.v1.subscriptions.update(subscription, {"metadata": passed_on})
    await play.hear()
    play.server.fails("declined", "POST", "/v1/invoices/*/pay")
    await play.go_to(utc(2026, 6, 10, 2))
    blocked = (
        "select e.kind, b.reason from meterbook.entity_block b join meterbook.billing_entity e on e.id = b.entity_id"
    )
    assert query(database_url, blocked) == [("user", "payment_failed")]
    assert (await play.book.check("boss")).allowed
    await check_books(play.book, database_url)
