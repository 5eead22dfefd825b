"""Closing while recording (BEHAVIOUR §10, I8): recorders wait for no closer; what the seal did not see is late, entry by entry."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

import asyncio
import random
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from psycopg import IsolationLevel

from meterbook import load_catalog
from meterbook.book import Book
from meterbook.errors import TransactionConflict
from meterbook.operations.bill_threshold import bill_threshold, lock_running_period
from tests.bills import balance, check_books, invoices, pays, period_id, somebody_waits
from tests.conftest import Clock
from tests.ledger import P1, P2, query, use, utc
from tests.races.playing import LEVELS, connected, insist, said

AFTER = utc(2026, 7, 1, 2)
IMPATIENT = ("record_usage", "record_cumulative", "correct_entry")


@pytest.mark.parametrize("level", LEVELS)
async def test_what_becomes_visible_after_the_seal_is_late(
    book: Book, clock: Clock, database_url: str, level: IsolationLevel
) -> None:
    """Written before the fence, committed after the seal, at each isolation level: booked to P2, its stamp stays, none lost."""
    await pays(book, "user:u")
    await use(book, "u", "40.25")
    first = await period_id(book, "user:u")
    clock.now = utc(2026, 7, 1, 0, 30)
    await book.usage("user:u")
    async with connected(database_url, level) as caller:
        june = P1[1] - timedelta(hours=1)
        entries = [said(f"open {n}", "3", "u", occurred_at=june) for n in range(3)]
        recorded = await book.record_many(entries, conn=caller)
        assert {entry.period for entry in recorded.entries} == {first}
        clock.now = AFTER
        assert (await book.sweep()).closed == 1
        await caller.commit()
    assert ((await book.usage("user:u", first)).total, (await book.usage("user:u")).total) == (
        pytest.approx(40.25),
        9,
    )
    await book.sweep()
    late = query(database_url, "select stamped, booked from meterbook.late_entry")
    assert late == [(first, await period_id(book, "user:u", P2))] * 3
    assert ((await book.usage("user:u")).total, await invoices(book)) == (9, [1_000])
    assert query(database_url, "select distinct period_id from meterbook.usage_log") == [(first,)]
    await check_books(book, database_url)


async def test_recorders_wait_for_no_closer(book: Book, clock: Clock, database_url: str) -> None:
    """While a close, a threshold and a hold keep every row they lock, entries and running totals go through at once; so does a
    correction that adds. One that takes back waits for the close, or the close for it.
    """
    await pays(book, "user:u")
    await book.place_hold("u", amount="1")
    entry = (await use(book, "u", "180.25")).entries[0].id
    clock.now = AFTER
    await book.usage("user:u")
    for function in IMPATIENT:
        query(database_url, f"alter function meterbook.{function} set lock_timeout = '1ms'")
    async with connected(database_url) as closer:
        for statement in (
            "select meterbook.lock_fold()",
            "select meterbook.lock_period(entity_id, id) from meterbook.billing_period",
            "select 1 from meterbook.hold_gate for update",
            "update meterbook.billing_period set state = 'sealing' where kind = 'dated' and ends_at < now() + interval '100 years'",
        ):
            await closer.execute(statement.encode())
        assert (await book.record_many([said("k", "1", "u"), said("l", "1", "u")])).inserted == 2
        total = await book.record_cumulative("u", request="r", total="1", source="copilot", description="m")
        assert total.inserted == 1
        assert (await book.correct(entry, amount="1", reason="test", event_key="fix")).inserted == 1


@pytest.mark.parametrize("readers", [2])
async def test_recording_beside_closes_loses_nothing(
    book: Book, clock: Clock, database_url: str, seed: int, readers: int
) -> None:
    """Writers singly, in batches and in transactions held open, while months end and two sweepers close them: each entry in one period."""
    chance = random.Random(seed)
    await pays(book, "user:u")
    done = asyncio.Event()
    written = 0

    async def write(name: int) -> None:
        nonlocal written
        for n in range(25):
            stamp = clock.now - timedelta(hours=chance.choice([0, 0, 2, 30, 800]))
            entries = [said(f"{name}.{n}.{part}", "1", "u", occurred_at=stamp) for part in range(chance.choice([1, 5]))]
            if n % 3 == 0:
                async with connected(database_url, LEVELS[n % 3]) as caller:
                    await insist(partial(book.record_many, entries, conn=caller))
                    await asyncio.sleep(chance.random() / 20)
                    await caller.commit()
            else:
                await insist(partial(book.record_many, entries))
            written += len(entries)

    async def sweep() -> None:
        while not done.is_set():
            await book.sweep()
            clock.now += timedelta(days=3)

    sweepers = [asyncio.create_task(sweep()) for _ in range(readers)]
    await asyncio.gather(*(write(name) for name in range(6)))
    done.set()
    await asyncio.gather(*sweepers)
    clock.now += timedelta(days=60)
    await book.sweep()
    assert query(database_url, "select count(*), sum(amount) from meterbook.usage_log") == [(written, written)]
    periods = [await book.usage("user:u", period.id) for period in await book.periods("user:u")]
    assert sum(usage.total for usage in periods) == written
    await check_books(book, database_url)


async def test_a_close_waits_for_a_threshold_and_counts_what_it_billed(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Under the period's lock one after the other: 100.00 by the threshold, the rest by the close."""
    await pays(book, "user:u")
    await use(book, "u", "130.25")
    async with connected(database_url) as other:
        await other.execute(b"select meterbook.lock_period(entity_id, home_id) from meterbook.period_clock")
        billing = asyncio.create_task(book.bill_threshold("user:u"))
        await somebody_waits(database_url)
        await other.commit()
        assert (await billing).charged_cents == 10_000
    await use(book, "u", "20.00")
    clock.now = AFTER
    await book.sweep()
    assert await invoices(book) == [10_000, 2_000]
    await check_books(book, database_url)


JOIN_CROSSWISE = (
    "select 1 from meterbook.actor where external_id = 'a1' for update",
    "select meterbook.add_member('a', 'b1')",
    "select meterbook.add_member('b', 'a1')",
)
PASS_ON = (
    "select 1 from meterbook.billing_entity where external_id = 'b1' for update",
    "select meterbook.lock_members_of(array[meterbook.entity_id_of('user:b1')])",
    "select meterbook.lock_members_of(array[meterbook.entity_id_of('user:b1'), meterbook.entity_id_of('organization:b')])",
)


@pytest.mark.parametrize("calls", [JOIN_CROSSWISE, PASS_ON])
async def test_two_who_change_the_same_people_wait_for_each_other_in_one_order(
    book: Book, database_url: str, calls: tuple[str, str, str]
) -> None:
    """Joins across two organizations, a subscription that passes from a member to the organization: one waits, neither is refused."""
    for o in ("a", "b"):
        await book.put_organization(o, owner=f"{o}0")
        await book.add_member(o, f"{o}1")
    first, *others = calls

    async def call(statement: str) -> str:
        async with connected(database_url) as conn:
            try:
                await conn.execute(statement.encode())
            except psycopg.Error as error:
                return error.sqlstate or ""
            await conn.commit()
            return ""

    async with connected(database_url) as holder:
        await holder.execute(first.encode())
        waiting = []
        for statement in others:
            waiting.append(asyncio.create_task(call(statement)))
            await somebody_waits(database_url, len(waiting))
        await holder.rollback()
    assert "40P01" not in await asyncio.gather(*waiting)


async def test_a_grant_made_while_two_periods_are_billed_is_spent_once(
    book: Book, clock: Clock, database_url: str
) -> None:
    """The seal of P1 found no grant to lock; one is made; P2's threshold has spent it and not committed when the seal decides. The seal
    waits for it, is undone, and the next sweep charges what the grant no longer pays.
    """
    catalog = load_catalog()
    await pays(book, "user:u")
    await use(book, "u", "50.25")
    clock.now = AFTER
    await use(book, "u", "140.25")
    ((entity_id,),) = query(database_url, "select meterbook.entity_id_of('user:u')")
    async with connected(database_url) as holder, connected(database_url) as other:
        await holder.execute(
            "lock table meterbook.late_entry in access exclusive mode"
        )  # the fold of the seal stops there
        closing = asyncio.create_task(book.close("user:u"))
        await somebody_waits(database_url)
        await book.grant_credit("user:u", amount="20", grant_id="g")
        billed = await bill_threshold(other, await lock_running_period(other, entity_id, catalog, clock.now), catalog)
        assert (billed.charged_cents, billed.credits_cents) == (9_000, 2_000)
        await holder.rollback()
        await somebody_waits(database_url)
        await other.commit()
        with pytest.raises(TransactionConflict):
            await closing
    assert (await book.sweep()).closed == 1
    assert (await invoices(book), await balance(book, "user:u")) == ([9_000, 2_000], 0)
    await check_books(book, database_url)
