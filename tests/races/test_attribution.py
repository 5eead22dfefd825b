"""Who pays and where, while customers change: what is decided at the same moment is decided as if one came after the other."""

import asyncio
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest

from meterbook.book import Book
from tests.conftest import Clock
from tests.ledger import P1, P2, query
from tests.races.playing import Connection, connected, insist, rows, said
from tests.races.test_keys import deadlocks, until_blocked

PUT_SUBSCRIPTION = """
select meterbook.put_subscription(id => %s, owner => %s, plan => 'pro_6000', plan_rank => 10, seats => 1, included => 30,
  refresh_per_day => 0.25, status => 'active', starts_at => %s, ends_at => %s, interval_months => 1, at => %s)
"""


async def put_subscription(
    conn: Connection, clock: Clock, owner: str = "user:ada", window: tuple[object, object] = P1
) -> None:
    await conn.execute(PUT_SUBSCRIPTION.encode(), [f"sub_{owner}", owner, *window, clock.now])


async def test_a_subscription_that_begins_during_first_contact_is_not_overlooked(
    book: Book, database_url: str, clock: Clock
) -> None:
    """A user's first entry arrives while the transaction that makes the first subscription is open: what is recorded after both goes to
    the subscription's period, not to the free one for ever.
    """
    await book.put_workspace("w1", payer="user:ada")
    query(database_url, "update meterbook.actor set payer_id = null, payer_until = '-infinity'")
    clock.now = clock.now.replace(year=2027)
    async with connected(database_url) as conn:
        await put_subscription(conn, clock, window=(clock.now - timedelta(days=3), clock.now + timedelta(days=27)))
        first = asyncio.create_task(insist(lambda: book.record_many([said("during")])))
        await until_blocked(database_url, 1)
        await conn.commit()
    await first
    reply = await book.record_many([said("after")])
    assert (await book.usage("user:ada")).period.kind == "dated"
    assert reply.entries[0].period == (await book.usage("user:ada")).period.id


async def test_a_new_subscription_is_seen_by_who_opens_periods_at_the_same_moment(
    book: Book, database_url: str, clock: Clock
) -> None:
    """The entity is known, its clock is due, and somebody else decides where its entries go while a first subscription is being made:
    the later one to write decides from what both know.
    """
    await book.resolve("ada")
    async with connected(database_url) as conn:
        await conn.execute("update meterbook.period_clock set due_at = '-infinity'")
        await conn.commit()
        await put_subscription(conn, clock)
        attribution = asyncio.create_task(book.resolve("ada"))
        await until_blocked(database_url, 1)
        await conn.commit()
    await attribution
    assert (await book.usage("user:ada")).period.kind == "dated"
    assert (await book.resolve("ada")).period == (await book.usage("user:ada")).period.id


async def test_a_member_who_joins_during_first_contact_is_paid_for(book: Book, database_url: str, clock: Clock) -> None:
    """The payer is decided after the membership is committed, not beside it."""
    await book.put_organization("acme", owner="olga")
    await book.put_subscription(
        id="sub", owner="organization:acme", plan="team_6000", status="active", starts_at=P1[0], ends_at=P1[1]
    )
    async with connected(database_url) as conn:
        await conn.execute("select meterbook.add_member('acme', 'ada', 'member', %s)", [clock.now])
        first = asyncio.create_task(book.record_many([said("k")]))
        await until_blocked(database_url, 1)
        await conn.commit()
    assert (await first).entries[0].entity == "organization:acme"


async def test_twenty_first_contacts_open_one_period(book: Book, database_url: str) -> None:
    """An actor nobody has heard of, twenty callers at once, each with a key of its own: one surrogate, one period, twenty entries."""
    await asyncio.gather(*(book.record_many([said(f"key {n}", actor="new")]) for n in range(20)))
    assert (await book.usage("user:new")).count == 20
    async with connected(database_url) as conn:
        assert await rows(conn, "select count(*) from meterbook.billing_period") == [(1,)]
        assert await rows(conn, "select count(*) from meterbook.actor") == [(1,)]


async def test_a_period_is_opened_once_by_whoever_comes_first(book: Book, clock: Clock) -> None:
    """Three periods have passed unseen; recorders, readers and sweeping compactors come at once: each window is opened once, gapless."""
    await book.put_subscription(id="sub", owner="user:ada", plan="pro", status="active", starts_at=P1[0], ends_at=P1[1])
    clock.now = clock.now.replace(month=9)
    await asyncio.gather(
        *(book.record_many([said(f"key {n}")]) for n in range(10)),
        *(book.usage("user:ada") for _ in range(10)),
        *(book.compact() for _ in range(2)),
    )
    periods = [period for period in await book.periods("user:ada") if period.kind == "dated"]
    assert [period.starts_at.month for period in periods] == [9, 8, 7, 6]
    assert all(newer.starts_at == older.ends_at for newer, older in pairwise(periods))
    assert (await book.usage("user:ada")).total == 10


async def test_customers_change_while_everybody_records(book: Book, database_url: str) -> None:
    """Memberships, subscriptions and workspaces change while six callers record: no deadlock among them, every call is answered,
    and every entry lies in a period of the entity that it names.
    """
    for organization in ("acme", "umbrella"):
        await book.put_organization(organization, owner=f"owner of {organization}")
    await book.put_workspace("w1")
    done = asyncio.Event()

    async def change() -> None:
        try:
            await change_customers()
        finally:
            done.set()

    async def change_customers() -> None:
        for n in range(12):
            organization = ("acme", "umbrella")[n % 2]
            await book.add_member(organization, "ada")
            await book.put_subscription(
                id=f"sub {organization}", owner=f"organization:{organization}", plan=("team", "team_6000")[n % 3 % 2],
                seats=n + 1, status="active", starts_at=P1[0], ends_at=P1[1],
            )  # fmt: skip
            await book.put_subscription(
                id="sub ada",
                owner="user:ada",
                plan="pro",
                status=("active", "unpaid")[n % 2],
                starts_at=P1[0],
                ends_at=P1[1],
            )
            await book.put_workspace("w1", payer=(None, "organization:acme", "user:ada")[n % 3])
            await book.transfer_ownership(organization, "ada")
            await book.transfer_ownership(organization, f"owner of {organization}")
            await book.remove_member(organization, "ada")

    async def write(number: int) -> int:
        calls = 0
        while not done.is_set():
            batch = [
                said(f"{number}.{calls}.{part}", workspace="w1" if part % 2 else None) for part in range(number + 1)
            ]
            await insist(partial(book.record_many, batch))
            calls += 1
        return calls * (number + 1)

    changing = asyncio.create_task(change())
    written = await asyncio.gather(*(write(number) for number in range(6)))
    await changing
    async with connected(database_url) as conn:
        stray = await rows(
            conn,
            "select * from meterbook.usage_log l where not exists (select from meterbook.billing_period p"
            " where p.entity_id = l.entity_id and p.id = l.period_id)",
        )
        ((stored,),) = await rows(conn, "select count(*) from meterbook.usage_log")
    assert stray == []
    assert stored == sum(written)
    assert await deadlocks(database_url) == 0
    await book.compact()
    assert await book.verify() == []


@pytest.mark.parametrize("status", ["active", "canceled"])
async def test_a_subscription_and_an_attribution_never_deadlock(book: Book, database_url: str, status: str) -> None:
    """put_subscription and first contacts of the members of one organization, again and again at the same time."""
    await book.put_organization("acme", owner="olga")
    for n in range(4):
        await book.add_member("acme", f"user {n}")

    async def contact(number: int) -> None:
        for _ in range(6):
            async with connected(database_url) as conn:
                await conn.execute(
                    "update meterbook.actor set payer_until = '-infinity' where external_id = %s", [f"user {number}"]
                )
                await conn.execute(
                    "update meterbook.period_clock set due_at = '-infinity' where entity_id = any (select payer_id from meterbook.actor)"
                )
                await conn.commit()
            await insist(lambda: book.record_many([said(f"{number}", actor=f"user {number}")]))

    async def put() -> None:
        for n in range(10):
            await book.put_subscription(
                id=f"sub {n % 2}", owner="organization:acme", plan="team", seats=n + 1,
                status=status if n % 3 else "active", starts_at=P1[0], ends_at=P2[0],
            )  # fmt: skip

    await asyncio.gather(put(), *(contact(number) for number in range(4)))
    assert await book.verify() == []


async def test_another_clock_that_is_ahead_moves_no_entry(book: Book, database_url: str, clock: Clock) -> None:
    """A process whose clock is ahead has opened the next period; an entry of this process's now is still placed by its own time (§3.8)."""
    await book.put_subscription(id="sub", owner="user:ada", plan="pro", status="active", starts_at=P1[0], ends_at=P1[1])
    june = (await book.resolve("ada")).period
    async with connected(database_url) as conn:
        await conn.execute("select meterbook.attribute('{}', '{user:ada}', '{}', %s)", [P2[0] + timedelta(seconds=2)])
        await conn.commit()
    clock.now = P1[1] - timedelta(seconds=1)
    single = await book.record_many([said("single")])
    batch = await book.record_many([said("of two"), said("of two as well")])
    assert {entry.period for entry in (*single.entries, *batch.entries)} == {june}
