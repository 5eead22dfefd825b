"""Section 12: holds, deletion, deadlocks and snapshots."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

import meterbook
from meterbook import Book
from meterbook.errors import Denied, MembershipRefused
from tests.bills import check_books, lump, organization, pays
from tests.conftest import Clock
from tests.ledger import P1, query, total, use, utc

STRESS_S = float(os.environ.get("METERBOOK_STRESS_S", "6"))
READS = int(os.environ.get("METERBOOK_SNAPSHOT_READS", "1000"))


async def held(book: Book, actor: str, amount: str, hold_id: str | None = None) -> bool:
    """Whether a hold was granted; asked again while the machine is too busy to say."""
    try:
        await book.place_hold(actor, amount=amount, hold_id=hold_id)
    except Denied as denied:
        if denied.retryable:
            return await held(book, actor, amount, hold_id)
        assert denied.admission.code == "limit_reached"  # noqa: PT017  any other denial is a mistake
        return False
    return True


async def test_s87_holds(book: Book) -> None:
    """Limit 5, usage 4.985: three holds of 0.005, the fourth denied; the same id is one hold; a release frees; settled at 0.011 →
    4.996 and the next is denied.
    """
    await use(book, "u", "4.985")
    assert [await held(book, "u", "0.005", f"h{n}") for n in range(4)] == [True, True, True, False]
    assert await held(book, "u", "0.005", "h1")
    assert (await book.usage("user:u")).held == Decimal("0.015")
    assert await book.release("h2")
    assert await held(book, "u", "0.005", "h4")
    assert await book.release("h4")
    assert await book.release("h1")
    settled = await book.settle("h0", amount="0.011", source="workflow", description="m")
    assert (settled.state, settled.recorded.amount) == ("settled", Decimal("0.011"))
    assert await total(book, "user:u") == Decimal("4.996")
    assert not await held(book, "u", "0.005")


async def test_s87_two_thousand_at_once(book: Book) -> None:
    """2 000 concurrent holds of 0.005 on an unused free account (limit 5) → exactly 1 000 are granted."""
    granted = await asyncio.gather(*(held(book, "u", "0.005") for _ in range(2000)))
    assert sum(granted) == 1000
    assert (await book.usage("user:u")).held == 5


async def test_s87_an_unreachable_database_denies(book: Book, database_url: str) -> None:
    """Denied, retryable."""
    await use(book, "u", "1.00")
    query(database_url, "alter function meterbook.lock_and_read_gate rename to gone")
    with pytest.raises(Denied) as denied:
        await book.place_hold("u", amount="0.005")
    assert (denied.value.retryable, denied.value.admission.code) == (True, "check_failed")
    assert (denied.value.admission.used, denied.value.admission.limit) == (None, None)


async def test_s93_deletion_of_a_user(book: Book, clock: Clock, database_url: str) -> None:
    """A member with 12.00 in P1 is deleted → the organization's P1 is unchanged, the actor anonymised."""
    await organization(book, "o", "u")
    await lump(book, "u", "12.00")
    await book.delete_user("u")
    usage = await book.usage("organization:o")
    assert usage.total == Decimal("12.00")
    ((actor, amount),) = usage.by_actor.items()
    assert (actor.startswith("#"), amount) == (True, Decimal("12.00"))
    assert query(database_url, "select 1 from meterbook.actor where external_id = 'u'") == []
    clock.now = utc(2026, 7, 2)
    await book.sweep()
    await check_books(book, database_url)


async def two_organizations(book: Book) -> None:
    for o in range(2):
        await book.put_organization(f"o{o}", owner=f"u{o}.0")
        await pays(book, f"organization:o{o}", seats=5, plan="team_6000")
        for u in range(5):
            await pays(book, f"user:u{o}.{u}")
            if u:
                await book.add_member(f"o{o}", f"u{o}.{u}")


def deeds(book: Book, clock: Clock, chance: random.Random) -> list[Callable[[], Awaitable[Any]]]:
    """What the stress does, each to an organization, a member, or all."""

    def org() -> str:
        return f"o{chance.randrange(2)}"

    def user() -> str:
        return f"u{chance.randrange(2)}.{chance.randrange(5)}"

    async def passes() -> None:
        clock.now += timedelta(hours=chance.choice([1, 20]))

    return [
        book.sweep,
        lambda: book.bill_threshold(f"organization:{org()}"),
        lambda: book.bill_threshold(f"user:{user()}"),
        lambda: book.close(f"organization:{org()}"),
        lambda: book.add_member(org(), user()),
        lambda: book.remove_member(org(), user()),
        lambda: book.transfer_ownership(org(), user()),
        lambda: put_seats(book, org(), chance.randrange(1, 6)),
        lambda: use(book, user(), str(chance.randrange(1, 60))),
        lambda: use(book, user(), str(chance.randrange(1, 60))),
        lambda: pays(book, f"user:{user()}"),
        passes,
    ]


async def put_seats(book: Book, name: str, seats: int) -> None:
    window = (await book.usage(f"organization:{name}")).period
    await pays(book, f"organization:{name}", "team_6000", (window.starts_at, window.ends_at), seats=seats)


async def test_s94_deadlock_stress(database_url: str, clock: Clock, seed: int) -> None:
    """Thresholds, closes, joins, leaves, transfers and seat changes on 2 organizations × 5 users with 4 connections: no deadlock, no
    starved pool, and the books balance.
    """
    chance, until = random.Random(seed), time.monotonic() + STRESS_S
    async with meterbook.open(database_url, clock=clock, connections_max=4) as book:
        await two_organizations(book)
        choices = deeds(book, clock, chance)

        async def player() -> int:
            done = 0
            while time.monotonic() < until:
                with contextlib.suppress(MembershipRefused):
                    await chance.choice(choices)()
                done += 1
            return done

        assert sum(await asyncio.gather(*(player() for _ in range(12)))) > 0
        clock.now += timedelta(days=40)
        await book.sweep()
        await check_books(book, database_url)
    ((deadlocks,),) = query(database_url, "select deadlocks from pg_stat_database where datname = current_database()")
    assert deadlocks == 0


LEGAL = {
    ("last", "closing", Decimal("40.25"), 0),
    ("last", "closed", Decimal("40.25"), 1_000),
    ("current", "open", Decimal(0), 0),
    ("current", "open", Decimal("40.25"), 0),
}


async def test_s95_snapshot_reads(book: Book, clock: Clock) -> None:
    """While periods are closed and opened, each read of the last one is either before its close or after it, and of the running one before
    or after its only entry; never a mixture.
    """
    await pays(book, "user:u")
    await lump(book, "u", "40.25")
    clock.now = P1[1] + timedelta(hours=1)
    done = asyncio.Event()

    async def turn_months() -> int:
        months = 0
        while not done.is_set():
            await book.sweep()
            start = (await book.usage("user:u")).period.starts_at
            await use(book, "u", "40.25", occurred_at=start)
            end = (await book.usage("user:u")).period.ends_at
            clock.now = end + timedelta(hours=1)
            months += 1
        return months

    async def read() -> set[Any]:
        seen = set()
        for n in range(READS // 4):
            period = "last" if n % 4 else "current"
            usage = await book.usage("user:u", period)
            seen.add((period, usage.period.state, usage.total, usage.billed_cents))
        return seen

    turning = asyncio.create_task(turn_months())
    found = await asyncio.gather(*(read() for _ in range(4)))
    done.set()
    assert await turning > 0
    seen = set[Any]().union(*found)
    assert seen <= LEGAL
    assert ("last", "closed", Decimal("40.25"), 1_000) in seen
