"""What is billed waits while Stripe has told something of the subscription that could not be applied: decision 0028."""

from dataclasses import replace
from typing import Any

import pytest

import meterbook
from meterbook import Book, MeterbookError
from meterbook.core.ledgers import Billed
from meterbook.errors import UnknownEvent, UnsettledMoney
from tests.bills import alerts, charged, check_books, lump, state_of
from tests.conftest import Clock
from tests.ledger import P1, P2, utc
from tests.stripe.hooks import ACCOUNT, Subscription, Thing, deliver, priced

START = P1[0]
AFTER = utc(2026, 7, 1, 2)


async def fails(book: Book, said: Thing) -> None:
    with pytest.raises(MeterbookError):
        await deliver(book, said)


async def upgraded_to_gold(book: Book, usage: str = "100.25", **terms: Any) -> Subscription:
    """pro_6000 with an overage of 70.00, and an upgrade on the 10th to a price that the catalog lacks."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await lump(book, "u", usage)
    await fails(book, sub.event("updated", utc(2026, 6, 10), "evt_gold", plan="gold", **terms))
    return sub


async def test_a_close_waits_for_an_upgrade_that_could_not_be_applied(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Deferred and told, nothing billed; with the price in the catalog, its replay gives the greater allowance, and nothing is due."""
    await upgraded_to_gold(book)
    clock.now = AFTER
    swept = await book.sweep()
    assert (swept.closed, swept.deferred, await charged(book, "user:u")) == (0, 1, [])
    assert await alerts(book, "user:u") == ["close_deferred"]
    plans = [replace(plan, prices=("price_gold",)) if plan.code == "pro_25000" else plan for plan in priced().plans]
    mended = replace(priced(), plans=tuple(plans))
    async with meterbook.open(database_url, clock=clock, catalog=mended, stripe=ACCOUNT) as deployed:
        assert [each.state for each in await deployed.replay_stripe_events()] == ["applied"]
        assert (await deployed.sweep()).closed == 1
        assert (await charged(deployed, "user:u"), await state_of(deployed, "user:u")) == ([], "closed")
        await check_books(deployed, database_url)


async def test_a_threshold_waits_too(book: Book) -> None:
    """What is charged is not given back when the upgrade is known: nothing at all changes, and it says why."""
    await upgraded_to_gold(book, "150.25")
    assert await book.bill_threshold("user:u") == Billed(0, 0, "event_waits")
    assert (await book.sweep()).billed == 0
    assert await book.dismiss_stripe_event("evt_gold", reason="a mistake at Stripe")
    assert (await book.sweep()).billed == 1
    assert await charged(book, "user:u") == [12_000]


async def test_where_nothing_is_due_nothing_waits(book: Book, clock: Clock) -> None:
    """An allowance only rises within a period: what is nothing already can't become less."""
    await upgraded_to_gold(book, "30.25")
    clock.now = AFTER
    assert (await book.sweep()).closed == 1


async def test_what_was_told_after_the_end_holds_back_nothing_before_it(book: Book, clock: Clock) -> None:
    """A renewal to an unknown price concerns the new period alone; that one's threshold waits."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await lump(book, "u", "100.25")
    clock.now = AFTER
    await fails(book, sub.event("updated", P2[0], plan="gold", window=P2))
    await lump(book, "u", "150.25", window=P2)
    assert (await book.sweep()).closed == 1
    assert await charged(book, "user:u") == [7_000]
    assert (await book.bill_threshold("user:u")).reason == "event_waits"


async def test_the_later_periods_of_the_entity_wait_behind_it(book: Book, clock: Clock) -> None:
    """Oldest first, as with any close that waits."""
    await upgraded_to_gold(book)
    clock.now = utc(2026, 8, 1, 2)
    assert (await book.sweep()).closed == 0
    assert {await state_of(book, "user:u"), await state_of(book, "user:u", P2)} == {"closing"}


async def test_events_of_others_hold_back_nothing(book: Book, clock: Clock) -> None:
    """Another subscription's price, also one of the same customer, and events that are no subscription's."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await lump(book, "u", "100.25")
    await fails(book, Subscription("sub_x", "user:u", "gold", customer=sub.paying).event("created", START))
    clock.now = AFTER
    assert (await book.sweep()).closed == 1
    assert await charged(book, "user:u") == [7_000]


async def test_an_operator_dismisses_what_is_to_have_no_effect(book: Book, clock: Clock) -> None:
    """Kept, with the reason; Stripe's next delivery of it changes nothing; the close goes on at the sweep."""
    sub = await upgraded_to_gold(book)
    clock.now = AFTER
    await book.sweep()
    assert await book.dismiss_stripe_event("evt_gold", reason="gold was never sold")
    assert not await book.dismiss_stripe_event("evt_gold", reason="again")
    (again,) = await deliver(book, sub.event("updated", utc(2026, 6, 10), "evt_gold"))
    assert (again.state, again.replayed) == ("ignored", True)
    (kept, *_) = [each for each in await book.stripe_events() if each.id == "evt_gold"]
    assert (kept.state, kept.note) == ("ignored", "dismissed: gold was never sold")
    assert (await book.sweep()).closed == 1
    assert await charged(book, "user:u") == [7_000]


async def test_what_was_applied_is_not_dismissed(book: Book) -> None:
    """Only what waits; and one that nobody received is said to be unknown."""
    await deliver(book, Subscription("sub_u", "user:u").event("created", START, "evt_1"))
    assert not await book.dismiss_stripe_event("evt_1", reason="too late")
    with pytest.raises(UnknownEvent):
        await book.dismiss_stripe_event("evt_none", reason="?")


async def test_a_user_who_owes_what_is_not_known_yet_is_not_deleted(book: Book) -> None:
    """Deleting erases what Stripe told: then nobody would know."""
    await upgraded_to_gold(book)
    with pytest.raises(UnsettledMoney, match="event_waits"):
        await book.delete_user("u")


async def test_what_it_waits_for_next_is_told_too(book: Book, clock: Clock) -> None:
    """Without an address first; when that is there, for the event that failed: each is told once."""
    await book.put_subscription(
        id="own", owner="user:u", plan="pro_6000", status="active", starts_at=P1[0], ends_at=P1[1], stripe_subscription="sub_u"
    )  # fmt: skip
    await lump(book, "u", "100.25")
    await fails(book, Subscription("sub_u", "user:u", "gold").event("updated", utc(2026, 6, 10)))
    clock.now = AFTER
    for _ in range(2):
        await book.sweep()
    await book.put_subscription(
        id="own", owner="user:u", plan="pro_6000", status="active", starts_at=P1[0], ends_at=P1[1], stripe_customer="cus_u"
    )  # fmt: skip
    for _ in range(2):
        await book.sweep()
    told = [
        row.payload["reason"] for row in await book.outbox("user:u") if row.payload.get("alert") == "close_deferred"
    ]
    assert told == ["no_stripe_ids", "event_waits"]
