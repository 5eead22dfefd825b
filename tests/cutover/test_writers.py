"""Writers run in threads during every step; afterwards each entity has what they really charged, to the last digit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

import meterbook
from meterbook import Book
from meterbook.book.cutover import Cutover
from meterbook.mappings import load_mapping
from meterbook.operations.cutover_step import Feed
from tests.legacy_product.history import Product
from tests.legacy_product.writers import Style, Traffic

ORIGIN = load_mapping()
PEOPLE = [f"user_{number}" for number in range(12)]
POOLED = PEOPLE[:6]
THREADS = 6
ROUNDS_MAX = 60


@pytest.fixture
def product(legacy_url: str) -> Product:
    """Two thirds pay by themselves, the others in a team, in a period that runs now, by the real clock."""
    now = datetime.now(UTC)
    window = (now - timedelta(days=9), now + timedelta(days=20))
    made = Product()
    for number, name in enumerate(PEOPLE):
        made.user(name)
        for day in range(number % 5):
            made.charge(name, "1.5", window[0] + timedelta(days=day, hours=number))
    made.organization("team", POOLED[0], joined=window[0])
    made.subscription("team", "team_6000", window, seats=6)
    for name in POOLED[1:]:
        made.member("team", name, window[0])
    for name in PEOPLE[8:]:
        made.subscription(name, "pro_6000", window)
    made.write(legacy_url)
    return made


@asynccontextmanager
async def opened(url: str, feed: Feed = "audit") -> AsyncIterator[tuple[Book, Cutover]]:
    async with meterbook.open(url) as book, book.cutover(ORIGIN, feed=feed) as cutover:
        yield book, cutover


async def agreed(cutover: Cutover) -> None:
    """Shadow until every entity agrees while they write."""
    for _ in range(ROUNDS_MAX):
        round_ = await cutover.shadow()
        if not round_.differing and round_.agreed_since is not None:
            return
        await asyncio.sleep(0.05)
    raise AssertionError([one async for one in cutover.compare() if one.difference])


async def switched(cutover: Cutover) -> None:
    """Until everybody is: one whose writers are under way is refused, and tried again."""
    done = []
    for _ in range(ROUNDS_MAX):
        done = [one async for one in cutover.switch()]
        if all(one.outcome != "refused" for one in done):
            return
        await cutover.shadow()
    raise AssertionError([one for one in done if one.outcome == "refused"])


async def absorbed(cutover: Cutover) -> None:
    """Until a look finds nothing more."""
    round_ = None
    for _ in range(ROUNDS_MAX):
        round_ = await cutover.absorb()
        if not round_.counters and not round_.waiting:
            return
    raise AssertionError(round_)


async def check_truth(book: Book, product: Product, *traffic: Traffic) -> None:
    """Every entity's total is what the product's past and all writers charged its people."""
    truth = {name: product.users[name].running for name in PEOPLE}
    for one in traffic:
        for name, amount in one.charged.items():
            truth[name] += amount
    assert sum(len(one.failures) for one in traffic) == 0
    pool = sum((truth[name] for name in POOLED), Decimal(0))
    assert (await book.usage("organization:team")).total == pool
    for name in PEOPLE[6:]:
        assert (name, (await book.usage(f"user:{name}")).total) == (name, truth[name])
    assert await book.verify() == []


@pytest.mark.parametrize("styles", [("together",), ("together", "apart", "silent")], ids=["sound", "sloppy"])
async def test_shadow_and_switch_under_load_lose_and_double_nothing(
    legacy_url: str, product: Product, styles: tuple[Style, ...]
) -> None:
    """Old writers before, during and after the switch; new ones beside them after it: the ledger has the sum of all."""
    async with opened(legacy_url) as (book, cutover):
        with Traffic(legacy_url, PEOPLE, THREADS, styles) as old:
            if styles == ("together",):
                await agreed(cutover)
                assert [one async for one in cutover.compare() if one.difference] == []
                await switched(cutover)
            else:
                for _ in range(3):
                    await cutover.shadow()
                async for one in cutover.switch(despite_differences=True):
                    assert (one.entity, one.outcome) == (one.entity, "switched")
            with Traffic(legacy_url, PEOPLE, THREADS, ("ledger",), seed=2) as new:
                for _ in range(3):
                    await cutover.absorb()
                    await asyncio.sleep(0.2)
        await absorbed(cutover)
        await check_truth(book, product, old, new)
        assert await cutover.verify() == []
        assert (await cutover.lateness(quiet_s=0)).moving == 0
        assert old.writes > 50


async def test_writers_of_both_are_counted_once_before_and_after_the_switch(legacy_url: str, product: Product) -> None:
    """An application that feeds the ledger itself, under the audit row's key: what it goes on writing to both is no late usage."""
    async with opened(legacy_url, "application") as (book, cutover):
        await cutover.shadow()
        with Traffic(legacy_url, PEOPLE, THREADS, ("both",)) as both:
            for _ in range(3):
                await cutover.shadow()
            async for one in cutover.switch(despite_differences=True):
                assert (one.entity, one.outcome, one.reason) == (one.entity, "switched", "")
            await asyncio.sleep(0.3)
            await cutover.absorb()
        await absorbed(cutover)
        await check_truth(book, product, both)
        assert await cutover.verify() == []


async def test_the_feed_may_pass_from_the_log_to_the_application(legacy_url: str, product: Product) -> None:
    """The tail and writers of both use the same keys: a row that each of them records is one entry."""
    async with opened(legacy_url) as (book, cutover):
        with Traffic(legacy_url, PEOPLE, THREADS, ("both", "together")) as mixed:
            for _ in range(4):
                await cutover.shadow()
                await asyncio.sleep(0.1)
        assert (await cutover.shadow()).refused == 0
        assert [one async for one in cutover.compare() if one.difference or one.foreign] == []
        await switched(cutover)
        await absorbed(cutover)
        await check_truth(book, product, mixed)


async def test_rollback_under_load_gives_back_what_only_the_ledger_had(legacy_url: str, product: Product) -> None:
    """New instances wrote to the ledger alone, old ones go on counting: after the rollback the counters have the sum of both."""
    async with opened(legacy_url) as (_, cutover):
        with Traffic(legacy_url, PEOPLE, THREADS) as old:
            await agreed(cutover)
            await switched(cutover)
            with Traffic(legacy_url, PEOPLE, 2, ("ledger",), seed=2) as new:
                await asyncio.sleep(0.3)
                await cutover.absorb()
            done = [one async for one in cutover.roll_back()]
        assert {one.outcome for one in done} == {"rolled_back"}
    with psycopg.connect(legacy_url) as conn:
        counters: dict[str, Decimal] = dict(
            conn.execute("select user_id, current_period_cost from public.user_stats").fetchall()
        )
    for name in PEOPLE:
        total = product.users[name].running + old.charged.get(name, 0) + new.charged.get(name, 0)
        assert (name, counters[name]) == (name, total)
