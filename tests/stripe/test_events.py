"""What becomes of an event: kept raw, applied once, ignored, failed with the reason, replayed; and what of it counts."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

import asyncio
from collections.abc import Callable
from datetime import timedelta
from itertools import count as count_from
from typing import Any

import pytest

import meterbook
from meterbook import Book, MeterbookError
from meterbook.errors import AttributionUnavailable, BadEvent, UnknownEvent, UnknownInterval, UnknownPlan
from tests.bills import alerts, lump
from tests.conftest import Clock
from tests.ledger import P1, P2, count, query, utc, windows
from tests.postgres.test_roles import login
from tests.stripe.hooks import ACCOUNT, Subscription, Thing, body_of, deliver, event, invoice, line, priced, signed

START = P1[0]


def subscriptions(database_url: str, *columns: str) -> list[tuple[Any, ...]]:
    return query(database_url, f"select {', '.join(columns)} from meterbook.subscription order by id")


async def test_an_event_is_kept_as_it_came(book: Book, database_url: str) -> None:
    """Byte for byte, beside what became of it."""
    body = body_of(Subscription("sub_u", "user:u").event("created", START))
    await book.apply_stripe_event(body, signed(body))
    assert query(database_url, "select body, state, attempts, subject from meterbook.stripe_event") == [
        (body.decode(), "applied", 1, "sub_u")
    ]


async def test_kinds_that_mean_nothing_are_kept_and_ignored(book: Book) -> None:
    """Kept, settled, never an error: Stripe need not send them again."""
    said = [
        event("customer.created", {"id": "cus_1"}, START),
        event("customer.subscription.trial_will_end", {"id": "s"}, START),
    ]
    assert [each.state for each in await deliver(book, *said)] == ["ignored", "ignored"]
    assert [each.state for each in await book.stripe_events(state="ignored")] == ["ignored", "ignored"]


async def test_the_same_event_twenty_times_at_once_has_one_effect(book: Book, database_url: str) -> None:
    """One applies, nineteen are replayed."""
    metadata = {"type": "credit_purchase", "amount": "50", "billing_entity": "user:u"}
    body = body_of(event("invoice.paid", invoice("in_1", None, metadata=metadata), START))
    done = await asyncio.gather(*(book.apply_stripe_event(body, signed(body)) for _ in range(20)))
    assert sorted(each.replayed for each in done) == [False] + [True] * 19
    assert query(database_url, "select cents from meterbook.credit_grant") == [(5_000,)]


async def test_an_unknown_price_waits_and_is_no_free_plan(book: Book, database_url: str) -> None:
    """Failed with the price's name; nothing of it holds, and the replay fails again as long as the catalog lacks it."""
    with pytest.raises(UnknownPlan, match="price_gold") as refused:
        await deliver(book, Subscription("sub_u", "user:u", "gold").event("created", START, "evt_1"))
    assert refused.value.code == "unknown_plan"
    assert subscriptions(database_url, "id") == []
    (again,) = await book.replay_stripe_events()
    assert (again.state, "price_gold" in str(again.note)) == ("failed", True)
    assert [(each.state, each.attempts) for each in await book.stripe_events()] == [("failed", 2)]


async def test_the_item_whose_price_is_in_the_catalog_is_the_plan(book: Book, database_url: str) -> None:
    """Beside another item, of a period of its own and of more pieces."""
    sub = Subscription("sub_u", "user:u", "team_6000", seats=3)
    said = sub.event("created", START)
    other = Subscription("sub_u", plan="support", seats=9, window=P2).item
    said["data"]["object"]["items"]["data"].insert(0, other)
    await deliver(book, said)
    assert subscriptions(database_url, "plan", "seats") == [("team_6000", 3)]
    assert windows(database_url, "user:u") == [P1]


async def test_an_end_needs_no_plan(book: Book, database_url: str) -> None:
    """Its price has left the catalog and its contract's metadata are lost: deleted is deleted. Of one never heard of it waits."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    sub.metadata = {"plan": "enterprise"}
    end = utc(2026, 6, 11)
    gone = sub.event("deleted", utc(2026, 6, 11, 0, 1), plan="gold", status="canceled", ended_at=end)
    await deliver(book, gone, sub.event("updated", utc(2026, 6, 12), metadata={}, plan="pro_6000"))
    assert subscriptions(database_url, "plan", "status") == [("pro_6000", "canceled")]
    assert windows(database_url, "user:u") == [(START, end)]
    with pytest.raises(UnknownPlan):
        await deliver(book, Subscription("sub_x", "user:x", "gold").event("deleted", START))


@pytest.mark.parametrize("interval", ["week", "day"])
async def test_a_week_or_a_day_is_an_unknown_interval(book: Book, interval: str) -> None:
    """An error that waits."""
    with pytest.raises(UnknownInterval):
        await deliver(book, Subscription("sub_u", "user:u", interval=interval).event("created", START))


@pytest.mark.parametrize(("interval", "count_", "months"), [("month", 3, 3), ("year", 1, 12), ("year", 2, 24)])
async def test_intervals_of_months_and_years(
    book: Book, database_url: str, interval: str, count_: int, months: int
) -> None:
    """Each with monthly windows."""
    window = (START, utc(2026 + months // 12, 6 + months % 12, 1))
    sub = Subscription("sub_u", "user:u", interval=interval, interval_count=count_, window=window)
    await deliver(book, sub.event("created", START))
    assert subscriptions(database_url, "interval_months") == [(months,)]
    assert windows(database_url, "user:u") == [P1]


DAMAGED: dict[str, Callable[[Thing], Any]] = {
    "no items": lambda said: said.update(items={"data": []}),
    "no period": lambda said: said["items"]["data"][0].pop("current_period_start"),
    "a period in words": lambda said: said["items"]["data"][0].update(current_period_end="July"),
    "no customer": lambda said: said.pop("customer"),
    "no status": lambda said: said.update(status=None),
    "seats in words": lambda said: said["items"]["data"][0].update(quantity="two"),
    "an owner of no kind": lambda said: said["metadata"].update(billing_entity="team:acme"),
    "metadata that are a list": lambda said: said.update(metadata=[]),
}


@pytest.mark.parametrize("name", DAMAGED)
async def test_what_is_needed_must_be_there(book: Book, database_url: str, name: str) -> None:
    """`bad_event` names the field; the event is kept as failed, and nothing of it holds."""
    said = Subscription("sub_u", "user:u").event("created", START)
    DAMAGED[name](said["data"]["object"])
    with pytest.raises(BadEvent):
        await deliver(book, said)
    assert [each.state for each in await book.stripe_events()] == ["failed"]
    assert subscriptions(database_url, "id") == []


async def test_replaying_an_event_that_nobody_received(book: Book) -> None:
    """It is said."""
    with pytest.raises(UnknownEvent):
        await book.replay_stripe_event("evt_none")


async def test_an_older_event_does_not_regress_and_its_seats_still_count(book: Book, database_url: str) -> None:
    """Five seats from the 5th to the 8th, told after the two of the 8th: two now, and the allowance of five (§7)."""
    sub = Subscription("sub_u", "user:u", "team_6000", seats=1)
    created = sub.event("created", START)
    more, fewer = sub.event("updated", utc(2026, 6, 5), seats=5), sub.event("updated", utc(2026, 6, 8), seats=2)
    await deliver(book, created, fewer)
    (stale,) = await deliver(book, more)
    assert stale.state == "stale"
    assert subscriptions(database_url, "seats") == [(2,)]
    usage = await book.usage("user:u")
    assert (usage.included, usage.period.seats) == (150, 2)


async def test_deleted_is_final(book: Book, database_url: str) -> None:
    """An update that Stripe dates later than the deletion brings nothing back."""
    sub = Subscription("sub_u", "user:u")
    created, updated = sub.event("created", START), sub.event("updated", utc(2026, 6, 12), seats=2)
    deleted = sub.event("deleted", utc(2026, 6, 11), status="canceled", ended_at=utc(2026, 6, 11))
    await deliver(book, created, deleted, updated)
    assert subscriptions(database_url, "status") == [("canceled",)]
    assert windows(database_url, "user:u") == [(START, utc(2026, 6, 11))]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_of_one_second_the_answer_is_one(book: Book, database_url: str, order: tuple[int, int]) -> None:
    """Created incomplete and paid within one second: active, in both orders."""
    sub = Subscription("sub_u", "user:u", status="incomplete")
    both = [sub.event("created", START), sub.event("updated", START, status="active")]
    await deliver(book, *(both[place] for place in order))
    assert subscriptions(database_url, "status") == [("active",)]
    assert windows(database_url, "user:u") == [P1]


async def test_an_echo_does_not_undo_what_we_said_since(book: Book, clock: Clock, database_url: str) -> None:
    """Joining sets it to cancel and leaving takes that back; Stripe's echo of the first arrives after the second: it goes on."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await book.put_organization("acme", owner="boss")
    await deliver(book, Subscription("sub_o", "organization:acme", "team_6000").event("created", START))
    await book.add_member("acme", "u")
    assert subscriptions(database_url, "id", "cancel_at_period_end")[1] == ("sub_u", True)
    await book.remove_member("acme", "u")
    clock.now += timedelta(minutes=1)
    await deliver(book, sub.event("updated", clock.now - timedelta(seconds=30), cancel_at_period_end=True))
    assert subscriptions(database_url, "id", "cancel_at_period_end")[1] == ("sub_u", False)


async def test_what_an_owner_takes_back_at_stripe_is_their_own_doing(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Ours was delivered, and the person un-cancels there: it goes on, though the organization pays."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await book.put_organization("acme", owner="boss")
    await deliver(book, Subscription("sub_o", "organization:acme", "team_6000").event("created", START))
    await book.add_member("acme", "u")
    query(database_url, "update meterbook.outbox_delivery set state = 'delivered', settled_at = %s", clock.now)
    clock.now += timedelta(hours=1)
    await deliver(book, sub.event("updated", clock.now, seats=2))
    row = subscriptions(database_url, "id", "cancel_at_period_end", "cancelled_by_us", "ended_at")[1]
    assert row == ("sub_u", False, False, None)


async def test_cancel_at_ends_it_at_that_moment(book: Book, database_url: str) -> None:
    """Not at the period's end; and taken back, the period is whole again."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START), sub.event("updated", utc(2026, 6, 2), cancel_at=utc(2026, 6, 25)))
    assert windows(database_url, "user:u") == [(START, utc(2026, 6, 25))]
    await deliver(book, sub.event("updated", utc(2026, 6, 3), cancel_at=None))
    assert windows(database_url, "user:u") == [P1]


async def test_a_renewal_that_is_a_downgrade_counts_from_the_periods_start(book: Book, clock: Clock) -> None:
    """Told 40 seconds after it began: the new period has the lesser plan's allowance, not the largest of both."""
    sub = Subscription("sub_u", "user:u", "pro_25000")
    await deliver(book, sub.event("created", START))
    clock.now = P2[0] + timedelta(minutes=5)
    assert (await book.usage("user:u")).included == 125
    await deliver(book, sub.event("updated", P2[0] + timedelta(seconds=40), plan="pro_6000", window=P2))
    assert (await book.usage("user:u")).included == 30


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_what_is_told_of_a_later_instant_does_not_outlive_the_newest_word(
    book: Book, clock: Clock, order: tuple[int, int]
) -> None:
    """A downgrade from 07-01 told at 40 s, the old plan told at 10 s: both were in force in July, in August the newer word's alone."""
    sub = Subscription("sub_u", "user:u", "pro_25000")
    await deliver(book, sub.event("created", START))
    clock.now = P2[0] + timedelta(minutes=5)
    told = [
        sub.event("updated", P2[0] + timedelta(seconds=10), metadata={"seen": "yes"}),
        sub.event("updated", P2[0] + timedelta(seconds=40), plan="pro_6000", window=P2),
    ]
    await deliver(book, *(told[place] for place in order))
    assert (await book.usage("user:u")).included == 125
    clock.now = P2[1] + timedelta(minutes=5)
    assert (await book.usage("user:u")).included == 30


async def test_an_upgrade_in_the_period_helps_at_once_and_stays(book: Book) -> None:
    """The largest that was in force (§7)."""
    sub = Subscription("sub_u", "user:u", "pro_6000")
    up, down = (
        sub.event("updated", utc(2026, 6, 5), plan="pro_25000"),
        sub.event("updated", utc(2026, 6, 6), plan="pro_6000"),
    )
    await deliver(book, Subscription("sub_u", "user:u").event("created", START), up, down)
    assert (await book.usage("user:u")).included == 125


async def test_the_owner_by_the_origins_reference(book: Book) -> None:
    """An organization if one of that id is known, else a user; both → error; with the user who subscribed beside it, no doubt is left."""
    await book.put_organization("acme", owner="boss")
    asked = count_from(1)

    async def payer(reference: str, **more: str) -> str:
        sub = Subscription(f"sub_{next(asked)}", metadata={"referenceId": reference, **more})
        (applied,) = await deliver(book, sub.event("created", START))
        return str(applied.note).partition(": ")[0]

    assert await payer("acme") == "organization:acme"
    assert await payer("ada") == "user:ada"
    await book.resolve("acme")
    with pytest.raises(AttributionUnavailable, match="billing_entity"):
        await payer("acme")
    assert await payer("acme", userId="boss") == "organization:acme"
    assert await payer("cy", userId="cy") == "user:cy"


async def test_a_subscription_passes_to_another_owner_when_its_metadata_change(book: Book, database_url: str) -> None:
    """From the user to the organization, from Stripe's own time on; what the metadata said before changes nothing more."""
    await book.put_organization("acme", owner="u")
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await deliver(book, sub.event("updated", utc(2026, 6, 11), owner="organization:acme", plan="team_6000", seats=2))
    assert windows(database_url, "user:u") == [(START, utc(2026, 6, 11))]
    assert windows(database_url, "organization:acme") == [(utc(2026, 6, 11), P1[1])]


async def test_what_the_application_passed_on_stays_passed_on(book: Book) -> None:
    """put_subscription gave it to the organization; Stripe's metadata still name the user who began it."""
    await book.put_organization("acme", owner="u")
    sub = Subscription("sub_u", metadata={"referenceId": "u"})
    await deliver(book, sub.event("created", START))
    at = {"starts_at": START, "ends_at": P1[1], "status": "active"}
    await book.put_subscription(id="sub_u", owner="organization:acme", plan="pro_6000", **at)  # type: ignore[arg-type]
    (applied,) = await deliver(book, sub.event("updated", utc(2026, 6, 21), seats=2))
    assert str(applied.note).startswith("organization:acme")


async def test_events_of_a_deleted_customer_concern_nobody(book: Book, database_url: str) -> None:
    """Its end at Stripe, told after the user was deleted here, makes no new user of that id."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    await book.delete_user("u")
    (applied,) = await deliver(book, sub.event("deleted", utc(2026, 6, 20, 12), status="canceled"))
    assert applied.state == "ignored"
    assert query(database_url, "select count(*) from meterbook.billing_entity where external_id = 'u'") == [(0,)]


async def test_deleting_a_user_erases_what_stripe_wrote_of_them(book: Book, database_url: str) -> None:
    """Also what failed, and what comes afterwards; the events of others stay as they came."""
    sub, other = Subscription("sub_u", "user:u"), Subscription("sub_v", "user:v")
    await deliver(book, sub.event("created", START), other.event("created", START))
    await deliver(book, event("invoice.paid", invoice("in_1", sub, customer_email="u@example.org"), START))
    with pytest.raises(UnknownPlan):
        await deliver(book, Subscription("sub_w", "user:u", "gold").event("created", START))
    await book.delete_user("u")
    await deliver(book, sub.event("deleted", utc(2026, 6, 20, 12), status="canceled"))
    assert query(
        database_url, "select subject from meterbook.stripe_event where body || coalesce(note, '') ~ 'user:|cus_'"
    ) == [("sub_v",)]
    assert query(database_url, "select count(*) from meterbook.stripe_event where body ~ 'example.org'") == [(0,)]
    assert await book.replay_stripe_events() == []
    assert [(await book.replay_stripe_event(each.id)).replayed for each in await book.stripe_events()] == [True] * 5


async def test_an_invoice_of_a_subscription_that_is_not_known_waits(book: Book) -> None:
    """The failure arrived before its subscription: an error, so that Stripe sends it again; then it blocks."""
    sub = Subscription("sub_u", "user:u")
    failed = event("invoice.payment_failed", invoice("in_1", sub, "open"), utc(2026, 6, 20))
    with pytest.raises(AttributionUnavailable):
        await deliver(book, failed)
    await deliver(book, sub.event("created", START), failed)
    assert not (await book.check("u")).allowed
    assert await alerts(book, "user:u") == ["payment_failed"]


async def test_an_invoice_of_no_subscription_blocks_nobody(book: Book) -> None:
    """A one-off purchase that failed is no debt for usage."""
    (applied,) = await deliver(book, event("invoice.payment_failed", invoice("in_1", None, "open"), START))
    assert applied.state == "ignored"


async def test_prorations_name_no_period(book: Book, clock: Clock, database_url: str) -> None:
    """A proration's line runs from the change to the end; it opens nothing."""
    sub = Subscription("sub_u", "user:u")
    await deliver(book, sub.event("created", START))
    said = invoice("in_1", sub, "open")
    said["lines"]["data"][1]["parent"]["subscription_item_details"]["proration"] = True
    said["lines"]["data"][1]["period"]["start"] = int(utc(2026, 6, 15).timestamp())
    await deliver(book, event("invoice.finalized", said, clock.now))
    assert windows(database_url, "user:u") == [P1]


async def test_an_add_on_by_the_year_makes_no_period_of_a_year(book: Book, clock: Clock, database_url: str) -> None:
    """One subscription, two lines in its renewal's invoice: the plan's by the month, an add-on's by the year. The period is the month."""
    clock.now = P1[0]
    subscription = Subscription("sub_u", "user:u")
    await deliver(book, subscription.event("created", P1[0]))
    clock.now, subscription.window = P2[0], P2
    renewal = invoice("in_renewal", subscription)
    renewal["lines"]["data"].append(line("il_add_on", subscription, (P2[0], utc(2027, 7, 1)), 9_900))
    await deliver(book, event("invoice.finalized", renewal, P2[0]))
    assert windows(database_url, "user:u") == [P1, P2]


async def test_a_trial_that_ends_is_followed_by_its_own_period(book: Book, clock: Clock, database_url: str) -> None:
    """The clock opens what the anchor says before Stripe has told; what was used in the trial stays there."""
    trial = (START, utc(2026, 6, 15))
    sub = Subscription("sub_u", "user:u", status="trialing", window=trial, anchor=trial[1])
    clock.now = utc(2026, 6, 14)
    await deliver(book, sub.event("created", START))
    await lump(book, "u", "3.00")
    clock.now = utc(2026, 6, 15, 0, 5)
    assert (await book.usage("user:u")).period.ends_at == utc(2026, 7, 15)
    await deliver(book, sub.event("updated", trial[1], status="active", window=(trial[1], utc(2026, 7, 15))))
    assert windows(database_url, "user:u") == [trial, (trial[1], utc(2026, 7, 15))]


async def test_what_fails_leaves_nothing_behind(book: Book, database_url: str) -> None:
    """An effect that is refused takes the ones before it back: the invoice is not noted as paid, and blocks on."""
    sub = Subscription("sub_u", "user:u")
    await deliver(
        book, sub.event("created", START), event("invoice.payment_failed", invoice("in_1", sub, "open"), START)
    )
    bad = {"type": "credit_purchase", "amount": "9.99", "billing_entity": "user:u"}
    with pytest.raises(MeterbookError):
        await deliver(book, event("invoice.paid", invoice("in_1", sub, metadata=bad), utc(2026, 6, 2)))
    assert (count(database_url, "stripe_settled"), count(database_url, "entity_block")) == (0, 1)


async def test_least_privilege_is_enough(database_url: str, clock: Clock) -> None:
    """A login with the writer's and the reader's role takes webhooks, sees them and replays them."""
    with login(database_url, "meterbook_writer", "meterbook_reader") as url:
        async with meterbook.open(url, clock=clock, catalog=priced(), stripe=ACCOUNT) as book:
            sub = Subscription("sub_u", "user:u")
            await deliver(book, sub.event("created", START), sub.event("updated", utc(2026, 6, 5), seats=2))
            metadata = {"type": "credit_purchase", "amount": "50", "billing_entity": "user:u"}
            paid = invoice("in_1", sub, metadata=metadata)
            await deliver(
                book,
                event("invoice.payment_failed", invoice("in_1", sub, "open"), START),
                event("invoice.paid", paid, START),
            )
            with pytest.raises(UnknownPlan):
                await deliver(book, Subscription("sub_x", "user:x", "gold").event("created", START))
            assert [each.state for each in await book.replay_stripe_events()] == ["failed"]
            assert {each.state for each in await book.stripe_events()} == {"applied", "failed"}


REFUSE_THE_END = """
create function meterbook.refuse_the_end() returns trigger language plpgsql as $$ begin raise exception 'the server goes down'; end $$;
create trigger refuse_the_end before update on meterbook.stripe_event for each row when (new.state = 'applied')
  execute function meterbook.refuse_the_end();
"""


async def test_s83_a_crash_at_any_point_grants_once(
    book: Book, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S83: between keeping and applying, after the grant and before its commit, after the commit and before the answer: 50, once."""
    metadata = {"type": "credit_purchase", "amount": "50", "billing_entity": "user:u"}
    paid = event("invoice.paid", invoice("in_1", None, metadata=metadata), START)

    async def balance() -> int:
        return (await book.credits("user:u")).balance_cents

    class Died(BaseException):
        """The process is gone: nobody notes anything any more."""

    async def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as at_once:
        at_once.setattr(book, "_apply_event", die)
        with pytest.raises(Died):
            await deliver(book, paid)
    assert [each.state for each in await book.stripe_events()] == ["pending"]
    query(database_url, REFUSE_THE_END)
    with pytest.raises(Exception, match="the server goes down"):
        await deliver(book, paid)
    assert await balance() == 0
    query(database_url, "drop function meterbook.refuse_the_end cascade")
    with monkeypatch.context() as afterwards:
        afterwards.setattr(book, "_look_at_closes", die)
        with pytest.raises(Died):
            await deliver(book, paid)
    assert await balance() == 5_000
    (again,) = await deliver(book, paid)
    assert (again.replayed, await balance()) == (True, 5_000)
