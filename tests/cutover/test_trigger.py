"""Late usage that is fed by a trigger: whatever the product resets between two looks, nothing is lost and nothing counted twice."""

import random
import threading
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from meterbook import Book, mappings
from meterbook.book.cutover import Cutover
from meterbook.core.legacy_mapping import parse_mapping
from meterbook.errors import CutoverRefused, InProgress
from tests.conftest import Clock
from tests.cutover.test_shadow import JOINED, team
from tests.ledger import query

WITHOUT_LAST = parse_mapping(
    '[counter]\nfrom = "public.user_stats"\nuser_id = "user_id"\nrunning = "current_period_cost"\n'
    '[subscription]\nfrom = "public.subscription"\nid = "id"\nowner = "\'user:\' || reference_id"\nplan = "plan"\nstatus = "status"\n'
    "starts_at = \"period_start at time zone 'UTC'\"\nends_at = \"period_end at time zone 'UTC'\"\n"
)
ORIGIN_TEXT = (Path(mappings.__file__).parent / "origin.toml").read_text()
SET = "update public.user_stats set current_period_cost = %s where user_id = 'u'"
ADD = b"update public.user_stats set current_period_cost = current_period_cost + %s where user_id = 'u'"
RESET = b"update public.user_stats set current_period_cost = 0 where user_id = 'u'"
WRITERS, CHARGES = 4, 60


async def switched(cutover: Cutover) -> None:
    await cutover.shadow()
    assert {one.outcome async for one in cutover.switch()} == {"switched"}


@pytest.mark.usefixtures("product")
async def test_a_counter_that_is_reset_and_counts_on_between_two_looks_loses_nothing(
    legacy_url: str, book: Book
) -> None:
    """A product without a last period's value: 150 → 152 → 0 → 1 → 0 → 200 is 203 of late usage, and no trace of it in the counter."""
    async with book.cutover(WITHOUT_LAST) as cutover:
        await switched(cutover)
        assert await cutover.put_trigger()
        assert not await cutover.put_trigger()
        for value in (152, 0, 1, 0, 200):
            query(legacy_url, SET, value)
        done = await cutover.absorb()
        assert (done.recorded, done.notes) == (Decimal(203), ())
        query(legacy_url, SET, 201)
        assert (await cutover.absorb()).recorded == Decimal(1)
        assert await cutover.verify() == []
        assert await cutover.put_trigger(stands=False)
        assert not await cutover.has_trigger()
    assert (await book.usage("user:u")).total == Decimal(354)


@pytest.mark.usefixtures("product")
async def test_what_fell_before_the_switch_is_no_late_usage(legacy_url: str, book: Book) -> None:
    """The trigger may stand from the beginning: until the switch the counter is what is owed."""
    async with book.cutover(WITHOUT_LAST) as cutover:
        await cutover.shadow()
        await cutover.put_trigger()
        for value in (160, 3):
            query(legacy_url, SET, value)
        await cutover.shadow()
        await switched(cutover)
        assert (await cutover.absorb()).recorded == 0
    assert (await book.usage("user:u")).total == Decimal(3)


@pytest.mark.usefixtures("product")
async def test_a_row_that_is_deleted_and_made_again_counts_from_nothing(legacy_url: str, book: Book) -> None:
    """150 → 151, gone, again with 2: 3 of late usage."""
    async with book.cutover(WITHOUT_LAST) as cutover:
        await switched(cutover)
        await cutover.put_trigger()
        query(legacy_url, SET, 151)
        query(legacy_url, "delete from public.user_stats")
        query(legacy_url, "insert into public.user_stats (user_id, current_period_cost) values ('u', 2)")
        assert (await cutover.absorb()).recorded == Decimal(3)


@pytest.mark.usefixtures("product")
async def test_writers_and_resets_under_way_are_absorbed_to_the_last_digit(
    legacy_url: str, book: Book, seed: int
) -> None:
    """Old instances in threads, the product resetting at random, looks in between: the ledger has the sum of what they charged."""
    charged: list[Decimal] = []
    async with book.cutover(WITHOUT_LAST) as cutover:
        await switched(cutover)
        await cutover.put_trigger()
        threads = [threading.Thread(target=_write, args=(legacy_url, seed + n, charged)) for n in range(WRITERS)]
        for one in threads:
            one.start()
        while any(one.is_alive() for one in threads):
            await cutover.absorb()
        await cutover.absorb()
        assert (await cutover.absorb()).recorded == 0
        assert await cutover.verify() == []
    assert len(charged) == WRITERS * CHARGES
    assert (await book.usage("user:u")).total == Decimal(150) + sum(charged)
    assert await book.verify() == []


def _write(url: str, seed: int, charged: list[Decimal]) -> None:
    rng = random.Random(seed)
    with psycopg.connect(url, autocommit=True) as conn:
        for _ in range(CHARGES):
            amount = Decimal(rng.randint(1, 20_000)).scaleb(-6)
            conn.execute(ADD, (amount,))
            charged.append(amount)
            if rng.random() < 0.1:
                conn.execute(RESET)


async def test_a_counter_that_is_kept_when_somebody_joins_is_late_usage_once(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """After the switch, with the trigger: what it rose by before it was kept, and what it has since."""
    await team(legacy_url, clock, "u")
    async with book.cutover(parse_mapping(ORIGIN_TEXT)) as cutover:
        await switched(cutover)
        await cutover.put_trigger()
        query(legacy_url, SET, 12)
        query(legacy_url, JOINED.replace("0.75", "0"))
        query(legacy_url, SET, Decimal("0.75"))
        assert (await cutover.absorb()).recorded == Decimal("2.75")


@pytest.mark.usefixtures("product")
async def test_a_trigger_needs_a_table_with_bare_columns(book: Book) -> None:
    """What it would not see is refused, with what stands in the way."""
    for source, running, reason in (
        ("public.user_stats", "round(current_period_cost, 2)", "counter.running is"),
        ("(select * from public.user_stats) as x", "current_period_cost", "counter.from is"),
    ):
        mapping = parse_mapping(f'[counter]\nfrom = "{source}"\nuser_id = "user_id"\nrunning = "{running}"\n')
        async with book.cutover(mapping) as cutover:
            with pytest.raises(CutoverRefused, match=reason):
                await cutover.put_trigger()
            assert not await cutover.has_trigger()


@pytest.mark.usefixtures("product")
async def test_a_trigger_gives_up_rather_than_make_writers_queue_behind_it(legacy_url: str, book: Book) -> None:
    """A transaction that never ends holds the table: after some short tries nothing is changed, and it may be tried again."""
    async with book.cutover(WITHOUT_LAST) as cutover:
        with psycopg.connect(legacy_url) as long:
            long.execute(SET.encode(), (151,))
            with pytest.raises(InProgress):
                await cutover.put_trigger()
        assert not await cutover.has_trigger()
        assert await cutover.put_trigger(dry_run=True)
        assert not await cutover.has_trigger()
        assert await cutover.put_trigger()


@pytest.mark.usefixtures("product")
async def test_writers_need_no_right_on_the_ledger(legacy_url: str, book: Book) -> None:
    """An application whose role knows nothing of the schema meterbook resets a counter as ever."""
    role = f"app_{uuid4().hex[:12]}"
    async with book.cutover(WITHOUT_LAST) as cutover:
        await switched(cutover)
        await cutover.put_trigger()
        query(legacy_url, f"create role {role}")
        try:
            with psycopg.connect(legacy_url) as conn:
                conn.execute(f"grant select, update on public.user_stats to {role}".encode())
                conn.execute(f"set local role {role}".encode())
                conn.execute(RESET)
                conn.execute(ADD, (2,))
            query(legacy_url, f"revoke all on public.user_stats from {role}")
        finally:
            query(legacy_url, f"drop role {role}")
        assert (await cutover.absorb()).recorded == Decimal(2)
