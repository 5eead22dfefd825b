"""A subscription that the application made known before Stripe told of it is one, if its metadata say which (`billing_subscription`)."""

import asyncio
from typing import Any

import pytest

from meterbook import Book
from meterbook.errors import AttributionUnavailable, BadEvent
from tests.bills import charged, check_books, lump, organization
from tests.conftest import Clock
from tests.ledger import P1, P2, query, utc, windows
from tests.stripe.hooks import Subscription, Thing, deliver

START = P1[0]


async def known(book: Book, **terms: Any) -> None:
    """As the application says it: no ids of Stripe."""
    said: Any = {"id": "own", "owner": "user:u", "plan": "pro_6000", "status": "active"} | terms
    await book.put_subscription(starts_at=P1[0], ends_at=P1[1], **said)


def at_stripe(stripe_id: str = "sub_1", owner: str | None = "user:u", named: str = "own", **terms: Any) -> Subscription:
    return Subscription(stripe_id, owner, metadata={"billing_subscription": named}, **terms)


def rows(database_url: str) -> list[tuple[Any, ...]]:
    return query(
        database_url,
        "select b.id, e.external_id, b.plan, b.stripe_customer, b.stripe_subscription from meterbook.subscription b"
        " join meterbook.billing_entity e on e.id = b.owner_id order by b.id",
    )


async def test_stripes_word_goes_on_in_the_row_of_the_application(book: Book, clock: Clock, database_url: str) -> None:
    """One subscription, one period, one close: the usage before and after the event is billed once, to Stripe's customer."""
    await known(book)
    await lump(book, "u", "100.25")
    (applied,) = await deliver(book, at_stripe().event("created", START))
    assert applied.state == "applied"
    assert rows(database_url) == [("own", "u", "pro_6000", "cus_sub_1", "sub_1")]
    assert windows(database_url, "user:u") == [P1]
    await lump(book, "u", "20.00", day=1)
    clock.now = utc(2026, 7, 1, 2)
    await book.sweep()
    assert await charged(book, "user:u") == [8_975]
    await check_books(book, database_url)


async def test_an_event_that_comes_first_makes_the_row_of_that_id(book: Book, database_url: str) -> None:
    """The application's word then finds it: in both orders one subscription."""
    await deliver(book, at_stripe().event("created", START))
    await known(book, plan="pro_25000")
    assert rows(database_url) == [("own", "u", "pro_25000", "cus_sub_1", "sub_1")]
    assert windows(database_url, "user:u") == [P1]


async def test_later_events_need_not_name_it(book: Book, clock: Clock, database_url: str) -> None:
    """Once adopted it is known by Stripe's id, to events with other metadata and to invoices."""
    await known(book)
    sub = at_stripe()
    await deliver(book, sub.event("created", START))
    clock.now = utc(2026, 7, 1, 0, 5)
    await deliver(book, sub.event("updated", P2[0], window=P2, metadata={}))
    assert [row[0] for row in rows(database_url)] == ["own"]
    assert windows(database_url, "user:u") == [P1, P2]


async def test_without_owner_in_the_metadata_the_known_owner_stays(book: Book, database_url: str) -> None:
    """Naming the subscription says whose it is."""
    await known(book)
    await deliver(book, at_stripe(owner=None).event("created", START))
    assert rows(database_url) == [("own", "u", "pro_6000", "cus_sub_1", "sub_1")]


async def test_another_owner_in_the_metadata_waits(book: Book, database_url: str) -> None:
    """Adopting would pass the subscription on, and its credits with it: nobody has said that it passes."""
    await known(book)
    with pytest.raises(AttributionUnavailable, match="user:u's"):
        await deliver(book, at_stripe(owner="user:v").event("created", START))
    assert rows(database_url) == [("own", "u", "pro_6000", None, None)]
    (waiting,) = await book.stripe_events()
    assert (waiting.state, "billing_subscription" in str(waiting.note) or "'own'" in str(waiting.note)) == (
        "failed",
        True,
    )


async def test_two_at_stripe_that_name_one_of_ours(book: Book, database_url: str) -> None:
    """The first has it, the second waits, also when both come at once: never two customers who pay for one row."""
    await known(book)

    async def told(event: Thing) -> bool:
        try:
            await deliver(book, event)
        except AttributionUnavailable:
            return False
        return True

    both = [at_stripe(name).event("created", START) for name in ("sub_1", "sub_2")]
    assert sorted(await asyncio.gather(*map(told, both))) == [False, True]
    assert len(rows(database_url)) == 1
    assert len(await book.stripe_events(state="failed")) == 1


async def test_one_that_is_known_by_another_name_waits(book: Book, database_url: str) -> None:
    """Two rows are not merged silently: Stripe's id is known, and its metadata name something else now."""
    sub = Subscription("sub_1", "user:u")
    await deliver(book, sub.event("created", START))
    with pytest.raises(AttributionUnavailable, match="known as 'sub_1'"):
        await deliver(book, sub.event("updated", utc(2026, 6, 5), metadata={"billing_subscription": "own"}))
    assert [row[0] for row in rows(database_url)] == ["sub_1"]


async def test_a_name_that_is_none_is_a_bad_event(book: Book) -> None:
    """An id has at most 255 characters here, and the like."""
    with pytest.raises(BadEvent, match="billing_subscription"):
        await deliver(book, at_stripe(named="x" * 300).event("created", START))


async def test_a_cancellation_of_ours_is_told_when_there_is_somebody_to_tell(book: Book, database_url: str) -> None:
    """The person joined an organization before Stripe's id was known: after the adoption Stripe hears that it is to end with its period."""
    await known(book)
    await organization(book, "o", "u")
    query(database_url, "update meterbook.outbox_delivery set state = 'delivered', settled_at = '2026-06-01'")
    await deliver(book, at_stripe().event("created", utc(2026, 6, 2)))
    state = query(
        database_url, "select cancel_at_period_end, cancelled_by_us from meterbook.subscription where id = 'own'"
    )
    assert state == [(True, True)]
    due = [row.payload for row in await book.deliveries("user:u", state="due")]
    assert due == [{"subscription": "own", "cancel_at_period_end": True}]


async def doctor_counts(book: Book) -> tuple[str, bool]:
    (finding,) = [each for each in await book.doctor() if each.name == "subscriptions twice"]
    return finding.value, finding.ok


async def test_the_doctor_finds_one_that_is_known_twice(book: Book) -> None:
    """Where metadata did not say which it is: the same plan of one owner with and without Stripe, or one of Stripe's ids on two rows."""
    await known(book)
    assert await doctor_counts(book) == ("0", True)
    await deliver(book, Subscription("sub_1", "user:u").event("created", START))
    assert await doctor_counts(book) == ("1", False)
    await known(book, status="canceled")
    assert await doctor_counts(book) == ("0", True)
    await known(book, id="again", owner="user:v", stripe_subscription="sub_1")
    assert await doctor_counts(book) == ("1", False)
