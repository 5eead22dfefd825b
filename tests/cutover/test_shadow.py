"""While counters still count: what is compared, what differs and why, and that nothing is billed twice meanwhile."""

from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest

from meterbook import Book
from meterbook.book.cutover import Cutover
from meterbook.book.sweep import close_period
from meterbook.core.cutover import Compared
from meterbook.core.legacy_mapping import parse_mapping
from meterbook.errors import CutoverRefused
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.ledger import P1, P2, query, use, utc
from tests.legacy_product.history import Product

ORIGIN = load_mapping()
JOINED = (
    "update public.user_stats set pro_period_cost_snapshot = current_period_cost, current_period_cost = 0.75,"
    " pro_period_cost_snapshot_at = '2026-06-11' where user_id = 'u'"
)
START = P1[0]


async def compared(cutover: Cutover, entity: str) -> Compared:
    (found,) = [one async for one in cutover.compare(entity)]
    return found


@pytest.mark.usefixtures("product")
async def test_nothing_is_billed_or_told_here_while_the_product_does_it(legacy_url: str, book: Book) -> None:
    """An overage beyond the threshold, a limit that is crossed: not ours yet. From the switch on they are."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert ((await book.sweep()).billed, await book.outbox()) == (0, [])
        assert (await book.bill_threshold("user:u")).charged_cents == 0
        assert [one.outcome async for one in cutover.switch()] == ["switched"]
    assert (await book.sweep()).billed == 1
    assert query(legacy_url, "select count(*) from meterbook.shadowed_entity") == [(0,)]


@pytest.mark.usefixtures("product")
async def test_a_period_that_ends_in_shadow_is_not_closed_here(legacy_url: str, book: Book, clock: Clock) -> None:
    """Its final charge is the product's: neither a sweep, nor a close of this entity or of this period alone, does anything."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
    clock.now = utc(2026, 7, 1, 3)
    assert (await book.sweep()).closed == 0
    assert (await book.close("user:u")).closed == 0
    ((entity, period),) = query(
        legacy_url,
        "select entity_id, id from meterbook.billing_period where kind = 'dated' and ends_at <= %s",
        clock.now,
    )
    async with await psycopg.AsyncConnection.connect(legacy_url, autocommit=True) as conn:
        assert await close_period(conn, entity, period, book.catalog, clock.now) == "nothing_to_do"
    assert (await book.charges("user:u"), await book.outbox()) == ([], [])


@pytest.mark.usefixtures("product")
async def test_differences_are_explained(legacy_url: str, book: Book) -> None:
    """A counter that moves without rows, rows that can't be recorded, usage that no counter has: each by its amount."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        query(legacy_url, "update public.user_stats set current_period_cost = current_period_cost + 2.5")
        query(
            legacy_url,
            "insert into public.usage_log values ('odd', 'u', 'odd', 's', 'd', 0.5, null, null, null, '2026-06-11')",
        )
        await use(book, "u", "0.25")
        done = await cutover.shadow()
        said = await compared(cutover, "user:u")
    assert (done.rows_refused, done.differing, done.agreed_since) == (1, 1, None)
    assert (said.difference, said.refused) == (Decimal("2.25"), Decimal("0.5"))
    assert said.explanation == (
        "audit rows of 0.5 can't be recorded and go to the baseline; "
        "the counters moved by 2.0 without audit rows, or they are still on their way; 0.25 was recorded that no counter has"
    )


@pytest.mark.usefixtures("product")
async def test_an_entity_that_differs_is_switched_only_if_that_is_said(legacy_url: str, book: Book) -> None:
    """Then the counter is what is owed: the difference is baseline."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        query(legacy_url, "update public.user_stats set current_period_cost = current_period_cost + 2.5")
        await cutover.shadow()
        refused = [one async for one in cutover.switch()]
        assert [one.reason for one in refused] == ["counters and ledger differ by 2.5: run `shadow` until they agree"]
        assert [one.outcome async for one in cutover.switch(despite_differences=True)] == ["switched"]
    assert (await book.usage("user:u")).total == Decimal("152.5")


@pytest.mark.usefixtures("product")
async def test_a_period_that_ends_in_shadow_was_billed_by_the_product(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """Until it has closed it, the entity waits; then that period is history, and the next begins with what the counter says."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        clock.now = utc(2026, 7, 1, 1)
        assert (await cutover.shadow()).waiting == 1
        assert [one.outcome async for one in cutover.switch()] == ["refused"]
        query(
            legacy_url, "update public.user_stats set last_period_cost = current_period_cost, current_period_cost = 0.5"
        )
        assert (await cutover.shadow()).waiting == 0
        assert [one.outcome async for one in cutover.switch()] == ["switched"]
    kinds = {
        (one.starts_at, one.ends_at): (one.kind, one.state)
        for one in await book.periods("user:u")
        if one.kind != "free"
    }
    assert kinds == {P1: ("history", "closed"), P2: ("dated", "open")}
    assert (await book.usage("user:u")).total == Decimal("0.5")
    clock.now = utc(2026, 7, 2)
    await book.sweep()
    assert await book.charges("user:u") == []
    assert await book.verify() == []


@pytest.mark.usefixtures("product")
async def test_who_joins_in_shadow_begins_again_with_the_organization(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """The product keeps what was used of the own plan and begins at 0: kept usage stays the person's, the rest is the pool's."""
    query(legacy_url, "insert into public.user_stats (user_id) values ('owner')")
    query(legacy_url, "insert into public.organization values ('team', 'Team', null, 0, 0)")
    query(legacy_url, "insert into public.member values ('m1', 'owner', 'team', 'owner', '2026-06-01')")
    query(
        legacy_url,
        "insert into public.subscription values ('s2', 'team_6000', 'team', 'active', '2026-06-01', '2026-07-01', false, 2, null, null)",
    )
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        query(legacy_url, JOINED)
        query(legacy_url, "insert into public.member values ('m2', 'u', 'team', 'member', '2026-06-11')")
        clock.now += timedelta(hours=1)
        await cutover.shadow()
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
    own, pool = await book.usage("user:u"), await book.usage("organization:team")
    assert (own.total, pool.total) == (Decimal(150), Decimal("0.75"))


async def test_what_cannot_be_taken_over_is_left_out_with_its_reason_until_it_is_mended(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """An unknown plan is never the free one; an organization waits for each of its members; the others go on."""
    product = Product()
    for name in ("gold", "fine", "owner", "odd"):
        product.user(name)
    product.subscription("gold", "gold")
    product.organization("team", "owner", joined=START)
    product.member("team", "odd", START)
    product.subscription("team", "team_6000", seats=2)
    product.users["odd"].running = Decimal(-1)
    product.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        refused = {one.subject: one.reason for one in await cutover.refusals()}
        assert set(refused) == {"user:gold", "user:odd", "organization:team"}
        assert "'gold' is not in the catalog" in refused["user:gold"]
        done = {one.entity: one.outcome async for one in cutover.switch()}
        assert (done["user:fine"], done["organization:team"]) == ("switched", "refused")
        assert "user:gold" not in done
        query(legacy_url, "update public.subscription set plan = 'pro' where plan = 'gold'")
        query(legacy_url, "update public.user_stats set current_period_cost = 1 where user_id = 'odd'")
        assert (await cutover.shadow()).refused == 0
        done = {one.entity: one.outcome async for one in cutover.switch()}
    assert (done["user:fine"], done["organization:team"], done["user:gold"]) == ("before", "switched", "switched")


@pytest.mark.usefixtures("product")
async def test_a_step_goes_on_only_with_the_mapping_that_the_steps_before_had(book: Book) -> None:
    """Another one would compare something else; after a rollback it may."""
    text = '[counter]\nfrom = "public.user_stats"\nuser_id = "user_id"\nrunning = "last_period_cost"\n'
    async with book.cutover(ORIGIN) as cutover:
        with pytest.raises(CutoverRefused, match="run `shadow` first"):
            await cutover.absorb()
        await cutover.shadow()
    async with book.cutover(parse_mapping(text)) as other:
        with pytest.raises(CutoverRefused, match="another one"):
            await other.shadow()
    async with book.cutover(ORIGIN) as cutover:
        assert [one.outcome async for one in cutover.roll_back()] == ["rolled_back"]
    async with book.cutover(parse_mapping(text)) as other:
        assert (await other.shadow()).entities == 1


@pytest.mark.usefixtures("product")
async def test_who_signs_up_with_an_old_instance_after_the_switch_is_late_usage_too(
    legacy_url: str, book: Book
) -> None:
    """A counter that nobody had compared: all of it, once; one that was left out is not touched."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        query(legacy_url, "insert into public.user_stats (user_id, current_period_cost) values ('odd', -1)")
        await cutover.shadow()
        assert [one.outcome async for one in cutover.switch()] == ["switched"]
        query(legacy_url, "insert into public.user_stats (user_id, current_period_cost) values ('new', 0.75)")
        assert (await cutover.absorb()).recorded == Decimal("0.75")
        query(
            legacy_url,
            "update public.user_stats set current_period_cost = current_period_cost + 1 where user_id = 'new'",
        )
        assert (await cutover.absorb()).recorded == 1
        assert await cutover.verify() == []
    assert (await book.usage("user:new")).total == Decimal("1.75")
    assert (await book.usage("user:odd")).total == 0


@pytest.mark.usefixtures("product")
async def test_after_the_first_close_there_is_no_way_back(legacy_url: str, book: Book, clock: Clock) -> None:
    """The seal has the baseline; what comes late from an old instance goes to the period that runs then."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert [one.outcome async for one in cutover.switch()] == ["switched"]
        clock.now = utc(2026, 7, 1, 3)
        await book.sweep()
        assert await cutover.retire() == 1
        refused = [one async for one in cutover.roll_back()]
        assert [one.reason for one in refused] == [
            "its first period has ended here: what was billed since can't go back to a counter"
        ]
        query(legacy_url, "update public.user_stats set current_period_cost = current_period_cost + 2.5")
        assert (await cutover.absorb()).recorded == Decimal("2.5")
        assert (await cutover.absorb()).recorded == 0
    last, now = await book.usage("user:u", "last"), await book.usage("user:u")
    assert (last.total, now.total) == (Decimal(150), Decimal("2.5"))


async def team(legacy_url: str, clock: Clock, *members: str, departed: str = "0") -> Product:
    """An organization that pays, with its owner and these members, on day ten."""
    made = Product()
    made.user("owner")
    made.organization("team", "owner", joined=START, departed=departed)
    made.subscription("team", "team_6000", seats=3)
    for name in members:
        made.user(name)
        made.member("team", name, START)
        made.charge(name, "10", START)
    made.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    return made


def write(legacy_url: str, user: str, amount: str, name: str, at: str = "2026-06-11") -> None:
    """As an old instance does: counter and log."""
    query(
        legacy_url,
        "update public.user_stats set current_period_cost = current_period_cost + %s where user_id = %s",
        Decimal(amount),
        user,
    )
    query(
        legacy_url,
        "insert into public.usage_log values (%s, %s, 'model', 's', 'd', %s, null, null, null, %s)",
        name,
        user,
        Decimal(amount),
        at,
    )


@pytest.mark.parametrize("sees_each_step", [True, False])
async def test_who_leaves_in_shadow_leaves_their_usage_to_the_organization(
    legacy_url: str, book: Book, clock: Clock, sees_each_step: bool
) -> None:
    """The product moves the counter to departed usage, of which the ledger has a part already: nothing is counted twice."""
    await team(legacy_url, clock, "leaver", "stayer", departed="7.5")
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        write(legacy_url, "leaver", "2", "row1")
        write(legacy_url, "stayer", "1", "row2")
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        query(legacy_url, "update public.organization set departed_member_usage = departed_member_usage + 12")
        query(legacy_url, "update public.user_stats set current_period_cost = 0 where user_id = 'leaver'")
        if sees_each_step:
            await cutover.shadow()
        query(legacy_url, "delete from public.member where user_id = 'leaver'")
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        assert [one.explanation async for one in cutover.compare() if one.difference] == []
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
    assert (await book.usage("organization:team")).total == Decimal("30.5")
    assert (await book.usage("user:leaver")).total == 0


async def test_kept_usage_that_was_fed_is_not_counted_twice(legacy_url: str, book: Book, clock: Clock) -> None:
    """Who joins with 150 on the counter, 2 of them recorded since shadow began: 152 is kept, of which the ledger has 2."""
    await team(legacy_url, clock)
    query(legacy_url, "insert into public.user_stats (user_id, current_period_cost) values ('u', 150)")
    query(
        legacy_url,
        "insert into public.subscription values ('s2', 'pro_6000', 'u', 'active', '2026-06-01', '2026-07-01', true, 1, null, null)",
    )
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        write(legacy_url, "u", "2", "row1")
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        query(legacy_url, JOINED)
        query(legacy_url, "insert into public.member values ('m2', 'u', 'team', 'member', '2026-06-11')")
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        assert [one.explanation async for one in cutover.compare() if one.difference] == []
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
    own, pool = await book.usage("user:u"), await book.usage("organization:team")
    assert (own.total, pool.total) == (Decimal(152), Decimal("0.75"))


async def test_a_counter_that_goes_on_elsewhere_is_counted_there_alone(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """A product that resets nothing when somebody joins: the whole counter is the pool's, less what the own period's ledger has of it."""
    await team(legacy_url, clock)
    query(legacy_url, "insert into public.user_stats (user_id, current_period_cost) values ('u', 150)")
    query(
        legacy_url,
        "insert into public.subscription values ('s2', 'pro_6000', 'u', 'active', '2026-06-01', '2026-07-01', true, 1, null, null)",
    )
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        write(legacy_url, "u", "2", "row1")
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        query(legacy_url, "insert into public.member values ('m2', 'u', 'team', 'member', '2026-06-11')")
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
    own, pool = await book.usage("user:u"), await book.usage("organization:team")
    assert (own.total, pool.total) == (Decimal(2), Decimal(150))


@pytest.mark.usefixtures("product")
async def test_one_step_runs_at_a_time(book: Book) -> None:
    """A second one is refused and writes nothing, until the first has ended, or has died."""
    async with book.cutover(ORIGIN) as one, book.cutover(ORIGIN) as other:
        await one.shadow()
        switching = one.switch()
        assert (await anext(switching)).outcome == "switched"
        for step in (other.shadow(), other.absorb(), other.retire(), other.import_history(), other.put_trigger()):
            with pytest.raises(CutoverRefused, match="another step"):
                await step
        with pytest.raises(CutoverRefused, match="another step"):
            await anext(other.roll_back())
        assert [done async for done in switching] == []
        assert (await other.absorb()).recorded == 0
