"""Rollouts at random, forth and back: old, new and double-writing instances in any order, with looks, closes of the product and rollbacks
between; at every switch and every rollback each side has the sum of what was charged, to the last digit.
"""

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from meterbook import Book
from meterbook.book.cutover import Cutover
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.ledger import P1, query
from tests.legacy_product.history import Product

ORIGIN = load_mapping()
PEOPLE = ("alone", "free", "owner", "member")
PAYER = {
    "alone": "user:alone", "free": "user:free", "owner": "organization:team", "member": "organization:team",
}  # fmt: skip
COUNT = "update public.user_stats set current_period_cost = current_period_cost + %s where user_id = %s"
LOG = "insert into public.usage_log values (%s, %s, 'model', 's', 'd', %s, null, null, null, %s)"
CLOSE = (
    "update public.user_stats set last_period_cost = current_period_cost, current_period_cost = 0 where user_id = %s"
)


class Play:
    """A product with four people, and what each was really charged."""

    def __init__(self, url: str, book: Book, clock: Clock, seed: int) -> None:
        self.url, self.book, self.clock, self.rng = url, book, clock, random.Random(seed)
        self.truth = {name: Decimal(self.rng.randint(0, 9_000_000)).scaleb(-6) for name in PEOPLE}
        self.number = 0
        made = Product()
        for name in PEOPLE:
            made.user(name, running=self.truth[name], last=Decimal(self.rng.randint(0, 3)))
        made.organization("team", "owner", joined=P1[0])
        made.member("team", "member", P1[0])
        made.subscription("team", "team_6000", seats=2)
        made.subscription("alone", "pro_6000")
        made.write(url)

    async def charge(self, style: str) -> None:
        """Old: counter and log. Silent: the counter alone. New: the ledger alone. Both: all of it, in either order."""
        self.number += 1
        user, amount = self.rng.choice(PEOPLE), Decimal(self.rng.randint(1, 3_000_000)).scaleb(-6)
        name, at = f"row_{self.number}", self.clock.now
        self.truth[user] += amount
        record = style in ("new", "both")
        ledger_first = record and self.rng.random() < 0.5
        if ledger_first:
            await self._record(user, amount, name, style)
        if style != "new":
            query(self.url, COUNT, amount, user)
        if style in ("old", "both"):
            query(self.url, LOG, name, user, amount, at.replace(tzinfo=None))
        if record and not ledger_first:
            await self._record(user, amount, name, style)

    async def _record(self, user: str, amount: Decimal, name: str, style: str) -> None:
        key = f"legacy:{name}" if style == "both" else f"own:{name}"
        await self.book.record(user, source="s", description="d", amount=amount, event_key=key)

    async def some(self, cutover: Cutover, *styles: str, closes: bool = False) -> None:
        """Charges, looks and closes in any order."""
        for _ in range(self.rng.randint(4, 12)):
            self.clock.now += timedelta(seconds=self.rng.choice([1, 30, 900]))
            turn = self.rng.random()
            if turn < 0.2:
                await cutover.absorb()
            elif closes and turn < 0.35:
                query(self.url, CLOSE, self.rng.choice(PEOPLE))
            else:
                await self.charge(self.rng.choice(styles))

    async def check_ledger(self) -> None:
        wanted: dict[str, Decimal] = {}
        for name, amount in self.truth.items():
            wanted[PAYER[name]] = wanted.get(PAYER[name], Decimal(0)) + amount
        for entity, amount in wanted.items():
            assert (entity, (await self.book.usage(entity)).total) == (entity, amount)

    def check_counters(self) -> None:
        assert dict(query(self.url, "select user_id, current_period_cost from public.user_stats")) == self.truth


async def _absorbed(cutover: Cutover) -> None:
    while (done := await cutover.absorb()).recorded or done.taken_back:
        pass


@pytest.mark.parametrize("number", range(4))
async def test_forth_and_back_each_side_has_the_sum_of_all(
    legacy_url: str, book: Book, clock: Clock, seed: int, number: int
) -> None:
    """Two times shadow, switch, rollout, rollback."""
    clock.now = P1[0] + timedelta(days=8)
    play = Play(legacy_url, book, clock, seed + number)
    async with book.cutover(ORIGIN) as cutover:
        for _ in range(2):
            await cutover.shadow()
            for _ in range(3):
                await play.charge("old")
            clock.now += timedelta(seconds=40)
            await cutover.shadow()
            async for one in cutover.switch(despite_differences=True):
                assert (one.entity, one.outcome, one.reason) == (one.entity, "switched", "")
            await play.check_ledger()
            await play.some(cutover, "old", "silent", "new", "both")
            await _absorbed(cutover)
            await play.check_ledger()
            assert await cutover.verify() == []
            assert {one.outcome async for one in cutover.roll_back()} == {"rolled_back"}
            play.check_counters()
            await play.charge("new")
            assert {one.outcome async for one in cutover.roll_back()} == {"rolled_back", "before"}
            play.check_counters()
            clock.now += timedelta(seconds=40)
    assert await book.verify() == []


@pytest.mark.parametrize("has_trigger", [False, True], ids=["polled", "trigger"])
@pytest.mark.parametrize("number", range(2))
async def test_closes_of_the_product_lose_nothing_of_what_old_instances_count(
    legacy_url: str, book: Book, clock: Clock, seed: int, number: int, has_trigger: bool
) -> None:
    """Between two looks a counter may rise, be closed, and rise again; polled, by one close at most, and the last period's value."""
    clock.now = P1[0] + timedelta(days=8)
    play = Play(legacy_url, book, clock, seed + number)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
        if has_trigger:
            await cutover.put_trigger()
            await play.some(cutover, "old", "silent", "new", "both", closes=True)
        else:
            for _ in range(4):
                await play.some(cutover, "old", "silent", "new", "both")
                await cutover.absorb()
                await play.charge("silent")
                query(legacy_url, CLOSE, play.rng.choice(PEOPLE))
                await play.charge("silent")
                await cutover.absorb()
        await _absorbed(cutover)
        await play.check_ledger()
        assert await cutover.verify() == []
    assert await book.verify() == []
