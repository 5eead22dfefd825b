"""How many seats a subscription has is told to Stripe through the outbox (BEHAVIOUR §7, §11): decision 0027."""

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import meterbook
from meterbook import Book, load_catalog
from meterbook.errors import InvalidUsage, SeatsRefused, UnknownEntity
from meterbook.stripe.gateway import StripeAccount
from tests.bills import alerts, pays
from tests.conftest import Clock
from tests.ledger import query
from tests.relay.shop import Shop
from tests.stripe_server.deliveries import SECRET
from tests.stripe_server.faults import Kind
from tests.stripe_server.server import StripeServer


class Team:
    """A team of 5 seats at Stripe and here, that hears its webhooks."""

    def __init__(self, book: Book, shop: Shop, subscription: str) -> None:
        self.book, self.shop, self.subscription = book, shop, subscription
        self.told = len(shop.stripe_server.deliveries)

    async def wants(self, seats: int) -> None:
        await self.book.set_seats("own", seats)
        await self.deliver()

    async def deliver(self) -> None:
        for _ in range(6):
            await self.book.relay()
            self.shop.pass_time(timedelta(seconds=30))
        await self.hear()

    async def hear(self) -> None:
        deliveries = self.shop.stripe_server.deliveries[self.told :]
        self.told += len(deliveries)
        for each in deliveries:
            await self.book.apply_stripe_event(each.body, each.signature(at=int(time.time())))

    @property
    def quantity(self) -> int:
        (item,) = self.shop.stripe_server.client().v1.subscriptions.retrieve(self.subscription)["items"].data
        return int(item.quantity)

    def changes_invoiced(self) -> list[int]:
        """Cents of the invoices that changes of the subscription made."""
        made = self.shop.stripe_server.things("invoice")
        return [each["subtotal"] for each in made if each["billing_reason"] == "subscription_update"]

    def sent(self) -> list[Any]:
        logged = self.shop.stripe_server.requests
        return [
            each for each in logged if (each.method, each.path) == ("POST", f"/v1/subscriptions/{self.subscription}")
        ]


@pytest.fixture
async def team(database_url: str, clock: Clock, stripe_server: StripeServer, account: StripeAccount) -> Any:
    client = stripe_server.client().v1
    recurring: Any = {"interval": "month"}
    price = client.prices.create(
        {"currency": "usd", "unit_amount": 2500, "recurring": recurring, "product_data": {"name": "team"}}
    )
    plans = [replace(plan, prices=(price.id,)) if plan.code == "team_6000" else plan for plan in load_catalog().plans]
    hears = replace(account, webhook_secrets=(SECRET,))
    catalog = replace(load_catalog(), plans=tuple(plans))
    async with meterbook.open(database_url, clock=clock, catalog=catalog, stripe=hears) as book:
        await book.put_organization("o", owner="boss")
        shop = Shop(book, clock, stripe_server)
        metadata = {"billing_entity": "organization:o", "billing_subscription": "own"}
        made = client.subscriptions.create(
            {"customer": shop.customer(), "items": [{"price": price.id, "quantity": 5}], "metadata": metadata}
        )
        found = Team(book, shop, made.id)
        found.told = 0
        await found.hear()
        shop.pass_time(timedelta(days=2))
        yield found


async def test_more_seats_help_when_stripe_has_asked_for_them(team: Team) -> None:
    """Charged at once for the rest of the period; the allowance rises by Stripe's own word."""
    assert (await team.book.usage("organization:o")).included == 150
    await team.book.set_seats("own", 7)
    assert (await team.book.usage("organization:o")).included == 150
    await team.deliver()
    (cents,) = team.changes_invoiced()
    assert (team.quantity, 0 < cents <= 5_000) == (7, True)
    assert (await team.book.usage("organization:o")).included == 210
    row = await team.shop.delivery("seats")
    assert (row.state, row.note) == ("delivered", f"{team.subscription} has 7 seats")


async def test_fewer_seats_wait_for_the_periods_end_without_proration(team: Team) -> None:
    """§7: nothing is given back, the allowance stays; the next invoice is of fewer, and no alert tells of a proration."""
    await team.wants(2)
    assert (team.quantity, team.changes_invoiced()) == (2, [])
    usage = await team.book.usage("organization:o")
    assert usage.included == 150
    assert usage.period.seats == 2
    team.shop.pass_time(timedelta(days=31))
    await team.hear()
    renewals = [
        each["subtotal"]
        for each in team.shop.stripe_server.things("invoice")
        if each["billing_reason"] == "subscription_cycle"
    ]
    assert renewals == [2 * 2_500]
    assert (await team.book.usage("organization:o")).included == 60
    assert "decrease_prorated" not in await alerts(team.book, "organization:o")


async def test_seats_given_up_and_taken_back_are_not_asked_for_twice(team: Team) -> None:
    """5 are paid until the period's end: 2 and then 5 again cost nothing, 6 cost one."""
    await team.wants(2)
    await team.wants(5)
    assert (team.quantity, team.changes_invoiced()) == (5, [])
    await team.wants(2)
    await team.wants(6)
    (cents,) = team.changes_invoiced()
    assert (team.quantity, 0 < cents <= 2_500) == (6, True)
    assert (await team.book.usage("organization:o")).included == 180


async def test_in_the_next_period_they_are_asked_for(team: Team) -> None:
    """What was paid was the period that is over."""
    await team.wants(2)
    team.shop.pass_time(timedelta(days=31))
    await team.hear()
    await team.wants(5)
    (cents,) = team.changes_invoiced()
    assert 0 < cents <= 3 * 2_500


@pytest.mark.parametrize("kind", ["timeout_before", "timeout_after", "error_500_before", "reset_after"])
async def test_s85_rapid_changes_end_at_the_last(team: Team, kind: Kind) -> None:
    """7, 3, 9, 4 before any is delivered: Stripe is told 4 alone, also if the first calls fail; nothing was charged for 7 or 9."""
    for seats in (7, 3, 9, 4):
        await team.book.set_seats("own", seats)
    team.shop.stripe_server.fails(kind, "POST", f"/v1/subscriptions/{team.subscription}", times=2)
    await team.deliver()
    assert {row.state for row in await team.book.deliveries("organization:o") if row.kind == "seats"} == {"delivered"}
    assert (team.quantity, team.changes_invoiced()) == (4, [])


@pytest.mark.parametrize("kind", ["timeout_after", "reset_after", "error_500_after"])
async def test_a_call_whose_answer_is_lost_is_charged_once(team: Team, kind: Kind) -> None:
    """What Stripe has is looked at before it is told again."""
    team.shop.stripe_server.fails(kind, "POST", f"/v1/subscriptions/{team.subscription}")
    await team.wants(7)
    assert (team.quantity, len(team.changes_invoiced())) == (7, 1)


async def test_a_change_while_the_last_one_is_under_way_is_sent_too(team: Team, database_url: str) -> None:
    """What was sent no longer holds when it is answered: it is sent again, whoever comes first."""
    gateway = team.book._gateway
    assert gateway is not None
    send = gateway.set_quantity

    def sent_late(*said: Any, is_charged: bool) -> None:
        gateway.set_quantity = send  # type: ignore[method-assign]
        query(database_url, "select meterbook.set_seats('own', 3, '{}', %s)", team.shop.clock.now)
        send(*said, is_charged=is_charged)

    gateway.set_quantity = sent_late  # type: ignore[method-assign,assignment]
    await team.wants(2)
    assert team.quantity == 3
    assert {row.state for row in await team.book.deliveries("organization:o")} == {"delivered"}


async def test_a_card_that_refuses_more_seats_is_asked_again(team: Team) -> None:
    """The relay goes on: the row is put off with the reason, tried again, and delivered when the card pays."""
    team.shop.stripe_server.fails("card_error_402", "POST", "/v1/subscriptions/*")
    await team.book.set_seats("own", 7)
    assert (await team.book.relay()).postponed == 1
    row = await team.shop.delivery("seats")
    assert (row.state, row.note) == ("due", "card_declined: Your card was declined.")
    await team.deliver()
    assert (team.quantity, (await team.shop.delivery("seats")).state) == (7, "delivered")


async def test_what_stripe_has_already_is_not_sent(team: Team) -> None:
    """Nothing to say: no call that changes anything."""
    await team.wants(5)
    assert team.sent() == []
    assert (await team.shop.delivery("seats")).state == "delivered"


async def test_a_subscription_that_has_ended_at_stripe_needs_no_seats(team: Team) -> None:
    """Its end may not have been heard of yet."""
    await team.book.set_seats("own", 9)
    team.shop.stripe_server.client().v1.subscriptions.cancel(team.subscription)
    await team.deliver()
    row = await team.shop.delivery("seats")
    assert (row.state, row.note) == ("delivered", f"{team.subscription} has ended")
    with pytest.raises(SeatsRefused, match="has ended"):
        await team.book.set_seats("own", 3)


async def test_an_item_whose_price_no_plan_has_is_given_up_and_told(team: Team) -> None:
    """Which item has the seats is not guessed: tried for a day, then a dead letter."""
    client = team.shop.stripe_server.client().v1
    recurring: Any = {"interval": "month"}
    price = client.prices.create(
        {"currency": "usd", "unit_amount": 100, "recurring": recurring, "product_data": {"name": "other"}}
    )
    (item,) = client.subscriptions.retrieve(team.subscription)["items"].data
    client.subscriptions.update(
        team.subscription, {"items": [{"id": item.id, "price": price.id}], "proration_behavior": "none"}
    )
    await team.book.set_seats("own", 9)
    for _ in range(60):
        await team.book.relay()
        team.shop.pass_time(timedelta(hours=1))
    row = await team.shop.delivery("seats")
    assert (row.state, price.id in str(row.note), team.quantity) == ("dead", True, 5)
    assert (await alerts(team.book, "organization:o"))[-1] == "dead_letter"


async def test_what_stripe_can_not_be_told_is_refused(book: Book, database_url: str) -> None:
    """Unknown, without an id at Stripe, by contract: an error that says what to do; and no number of seats is no number."""
    await pays(book, "user:a", id="a", stripe_subscription=None)
    await pays(book, "user:b", "enterprise", id="b")
    with pytest.raises(SeatsRefused, match="put_subscription"):
        await book.set_seats("a", 2)
    with pytest.raises(SeatsRefused, match="metadata"):
        await book.set_seats("b", 2)
    with pytest.raises(UnknownEntity):
        await book.set_seats("none", 2)
    for seats in (0, -1, 1.0, True, 10**7):
        with pytest.raises(InvalidUsage):
            await book.set_seats("a", seats)  # type: ignore[arg-type]
    assert query(database_url, "select count(*) from meterbook.outbox") == [(0,)]
