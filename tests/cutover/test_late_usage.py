"""What old instances still count after the switch: never lost, never counted twice, whatever else happens beside it."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from meterbook import Book
from meterbook.book.cutover import Cutover
from meterbook.errors import CutoverRefused
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.cutover.test_shadow import JOINED, team
from tests.ledger import query, utc
from tests.legacy_product.history import Product

ORIGIN = load_mapping()
MANY = 20_001
_OLD_ROWS = (
    "insert into public.usage_log select 'old' || n, 'u', 'model', 's', 'd', 0.01, null, null, null, '2026-06-11'"
    " from generate_series(1, %s) n"
)
_BOTH_ROW = (
    "insert into public.usage_log values ('both', 'u', 'model', 's', 'd', 0.5, null, null, null, '2026-06-11 00:00:30')"
)
_COUNT = "update public.user_stats set current_period_cost = current_period_cost + %s where user_id = 'u'"


async def switched(cutover: Cutover, entity: str | None = None) -> None:
    await cutover.shadow()
    assert {one.outcome async for one in cutover.switch(entity)} == {"switched"}


@pytest.mark.usefixtures("product")
async def test_a_writer_of_both_is_counted_once_among_any_number_of_old_rows(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """More rows of old instances than one look takes: what is in the ledger under its own key is no late usage for all that."""
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        clock.now += timedelta(minutes=1)
        query(legacy_url, _OLD_ROWS, MANY)
        query(legacy_url, _BOTH_ROW)
        query(legacy_url, _COUNT, Decimal("0.01") * MANY + Decimal("0.5"))
        await book.record("u", source="s", description="d", amount="0.5", event_key="legacy:both")
        assert (await cutover.absorb()).recorded == Decimal("0.01") * MANY
        assert (await cutover.absorb()).recorded == 0
        assert await cutover.verify() == []
    assert (await book.usage("user:u")).total == Decimal("150.5") + Decimal("0.01") * MANY


@pytest.mark.usefixtures("product")
async def test_a_round_ends_where_the_application_feeds_and_has_recorded_nothing_yet(
    legacy_url: str, book: Book
) -> None:
    """Its rows are its own business, however many they are: the difference is said."""
    async with book.cutover(ORIGIN, feed="application") as cutover:
        await cutover.shadow()
        query(legacy_url, _OLD_ROWS, MANY)
        query(legacy_url, _COUNT, Decimal("0.01") * MANY)
        async with asyncio.timeout(60):
            done = await cutover.shadow()
        (said,) = [one async for one in cutover.compare()]
    assert (done.rows, said.difference) == (0, Decimal("0.01") * MANY)


@pytest.mark.usefixtures("product")
async def test_rows_beyond_one_look_are_fed_by_the_next(legacy_url: str, book: Book) -> None:
    """A shadow that was stopped for a day: all rows, each once, in one round."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        query(legacy_url, _OLD_ROWS, MANY)
        query(legacy_url, _COUNT, Decimal("0.01") * MANY)
        done = await cutover.shadow()
    assert (done.rows, done.differing) == (MANY, 0)


@pytest.mark.parametrize("goes_on", [False, True])
async def test_who_joins_an_organization_that_is_switched_is_its_late_usage(
    legacy_url: str, book: Book, clock: Clock, goes_on: bool
) -> None:
    """While others are compared still: what the counter says since is the organization's, which goes on being billed here."""
    await team(legacy_url, clock, "m")
    query(legacy_url, "insert into public.user_stats (user_id, current_period_cost) values ('u', 3)")
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert [one.outcome async for one in cutover.switch("organization:team")] == ["switched"]
        if not goes_on:
            query(legacy_url, JOINED)
        query(legacy_url, "insert into public.member values ('m2', 'u', 'team', 'member', '2026-06-11')")
        query(legacy_url, "insert into public.user_stats (user_id, current_period_cost) values ('new', 5)")
        query(legacy_url, "insert into public.member values ('m3', 'new', 'team', 'member', '2026-06-11')")
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        await cutover.absorb()
        assert (await cutover.absorb()).recorded == 0
        assert await cutover.verify() == []
        assert {one.outcome async for one in cutover.switch()} == {"switched", "before"}
    usage = await book.usage("organization:team")
    assert (usage.total, usage.baseline) == (Decimal(18) if goes_on else Decimal("15.75"), Decimal(10))
    assert query(legacy_url, "select count(*) from meterbook.shadowed_entity") == [(0,)]


@pytest.mark.usefixtures("product")
async def test_a_close_of_two_like_periods_is_a_close(legacy_url: str, book: Book) -> None:
    """The last period's value was 150.00 before and is after it: what the counter has since is late usage all the same."""
    query(legacy_url, "update public.user_stats set last_period_cost = 150")
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        query(legacy_url, "update public.user_stats set last_period_cost = 150, current_period_cost = 0.5")
        done = await cutover.absorb()
    assert (done.recorded, done.notes) == (Decimal("0.5"), ())


@pytest.mark.usefixtures("product")
async def test_old_instances_have_not_stopped_because_the_period_has(legacy_url: str, book: Book, clock: Clock) -> None:
    """After the first close a counter that moves is said as before it."""
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        clock.now = utc(2026, 7, 1, 3)
        await book.sweep()
        assert await cutover.retire() == 1
        query(legacy_url, _COUNT, Decimal(1))
        await cutover.absorb()
        late = await cutover.lateness()
    assert (late.moving, late.absorbed) == (1, Decimal(1))


@pytest.mark.usefixtures("product")
async def test_nobodys_counter_is_late_usage_because_shadow_was_stopped(legacy_url: str, book: Book) -> None:
    """A round that did not come to its end has left counters out: neither a switch nor an absorb takes them for new ones."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        query(legacy_url, "update meterbook.cutover set is_whole = false")
        query(legacy_url, "delete from meterbook.cutover_counter")
        query(legacy_url, "delete from meterbook.cutover_entity")
        assert (await cutover.absorb()).recorded == 0
        with pytest.raises(CutoverRefused, match="did not come to its end"):
            await anext(cutover.switch())
        await switched(cutover)
    assert (await book.usage("user:u")).baseline == Decimal(150)


@pytest.mark.usefixtures("product")
async def test_after_a_rollback_of_all_nobody_new_is_taken_over(legacy_url: str, book: Book) -> None:
    """The product counts again, also for those who sign up then."""
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        assert [one.outcome async for one in cutover.roll_back()] == ["rolled_back"]
        query(legacy_url, "insert into public.user_stats (user_id, current_period_cost) values ('new', 5)")
        assert (await cutover.absorb()).recorded == 0


@pytest.mark.usefixtures("product")
async def test_what_is_smaller_than_money_is_not_waited_for(legacy_url: str, book: Book) -> None:
    """A counter of more places than an amount may have: the rest of it keeps no absorb from ending."""
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        query(legacy_url, _COUNT, Decimal("0.12345678901234"))
        done = await cutover.absorb()
    assert (done.recorded, done.waiting) == (Decimal("0.123456789012"), Decimal(0))


async def test_what_an_old_instance_bills_after_the_switch_is_billed_once(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """Its own threshold, 20.00 of it paid by credit: not billed again here, and the credit is spent; a purchase it took is granted."""
    made = Product()
    made.user("u", running=Decimal(350), credits=Decimal(25))
    made.subscription("u", "pro_6000")
    made.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        query(legacy_url, "update public.user_stats set billed_overage_this_period = 320, credit_balance = 5")
        done = await cutover.absorb()
        assert (done.billed_cents, done.granted_cents, done.notes) == (320_00, 0, ())
        assert (await cutover.absorb()).billed_cents == 0
        assert ((await book.sweep()).billed, (await book.usage("user:u")).billed_cents) == (0, 320_00)
        assert (await book.credits("user:u")).balance_cents == 5_00
        query(legacy_url, "update public.user_stats set credit_balance = 55")
        assert (await cutover.absorb()).granted_cents == 50_00
        assert (await book.credits("user:u")).balance_cents == 55_00
        query(legacy_url, "update public.user_stats set credit_balance = 50")
        assert (await cutover.absorb()).notes == (
            "user:u: its credits fell by 5.00 beyond what was billed: they are here still",
        )
        assert await cutover.verify() == []
        assert await book.verify() == []
        (back,) = [one async for one in cutover.roll_back()]
    assert (back.billed, back.credits) == (Decimal(0), Decimal(5))


async def test_an_organizations_bill_by_an_old_instance_is_the_organizations(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """It stands on the row of the owner, who is billed for nothing; once the period is closed here it is said, not counted."""
    await team(legacy_url, clock, "m")
    query(legacy_url, "update public.user_stats set current_period_cost = 250 where user_id = 'm'")
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        bill = "update public.user_stats set billed_overage_this_period = billed_overage_this_period + 100 where user_id = 'owner'"
        query(legacy_url, bill)
        assert (await cutover.absorb()).billed_cents == 100_00
        assert (await book.usage("organization:team")).billed_cents == 100_00
        assert (await book.usage("user:owner")).billed_cents == 0
        clock.now = utc(2026, 7, 1, 3)
        await book.sweep()
        query(legacy_url, bill)
        assert (await cutover.absorb()).notes == (
            "organization:team: an old instance billed 100.00 of a period that is closed here",
        )
        assert await book.verify() == []


@pytest.mark.usefixtures("product")
async def test_a_close_is_one_also_where_the_counter_is_higher_than_it_was_seen(legacy_url: str, book: Book) -> None:
    """Seen at 0.50, then 0.75, closed, and 0.60 since: 0.85 of late usage, which only the last period's value tells."""
    query(legacy_url, "update public.user_stats set current_period_cost = 0.5")
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        query(legacy_url, "update public.user_stats set last_period_cost = 0.75, current_period_cost = 0.6")
        assert (await cutover.absorb()).recorded == Decimal("0.85")


@pytest.mark.parametrize("running", [Decimal(0), Decimal("0.3"), Decimal(150)], ids=str)
async def test_who_counts_first_and_records_after_a_look_is_counted_once(
    legacy_url: str, book: Book, clock: Clock, running: Decimal
) -> None:
    """Absorbed as late usage, then recorded by its writer: the baseline gives way, and where there is none, the late usage does."""
    made = Product()
    made.user("u", running=running)
    made.subscription("u", "pro_6000")
    made.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        query(legacy_url, _BOTH_ROW)
        query(legacy_url, _COUNT, Decimal("0.5"))
        assert (await cutover.absorb()).recorded == Decimal("0.5")
        await book.record("u", source="s", description="d", amount="0.5", event_key="legacy:both")
        assert (await cutover.absorb()).waiting == 0
        assert (await book.usage("user:u")).total == running + Decimal("0.5")
        query(legacy_url, _COUNT, Decimal("0.25"))
        await cutover.absorb()
        assert (await cutover.absorb()).recorded == 0
        assert (await book.usage("user:u")).total == running + Decimal("0.75")
        assert await cutover.verify() == []
        assert await book.verify() == []
        assert [one.usage async for one in cutover.roll_back()] == [Decimal(0)]
