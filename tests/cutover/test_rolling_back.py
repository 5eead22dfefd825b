"""A rollback while new instances go on for a while: what only the ledger has goes back, once, or it is said why it can't."""

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import psycopg

from meterbook import Book
from meterbook.book.cutover import Cutover
from meterbook.core.cutover import RolledBack
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.cutover.test_shadow import JOINED, team, write
from tests.ledger import query, subscribe, use, utc
from tests.legacy_product.history import Product

ORIGIN = load_mapping()
CHARGE = "update public.user_stats set current_period_cost = current_period_cost + 0.001 where user_id = 'owner'"
CHARGES = 100


def person(legacy_url: str, clock: Clock, running: str, plan: str | None = "pro_6000") -> None:
    made = Product()
    made.user("u", running=Decimal(running))
    if plan is not None:
        made.subscription("u", plan)
    made.write(legacy_url)
    clock.now = utc(2026, 6, 11)


async def switched(cutover: Cutover) -> None:
    await cutover.shadow()
    assert {one.outcome async for one in cutover.switch()} == {"switched"}


async def rolled_back(cutover: Cutover) -> Sequence[RolledBack]:
    return [one async for one in cutover.roll_back()]


def counter(legacy_url: str, user: str = "u") -> Decimal:
    ((value,),) = query(legacy_url, "select current_period_cost from public.user_stats where user_id = %s", user)
    return Decimal(value)


async def test_what_new_instances_record_after_a_rollback_goes_back_by_the_next(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """Until the last of them has stopped: each amount once; and nobody is compared again before that."""
    person(legacy_url, clock, "150")
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        clock.now += timedelta(minutes=1)
        await use(book, "u", "2")
        assert [(one.outcome, one.usage) for one in await rolled_back(cutover)] == [("rolled_back", Decimal(2))]
        await use(book, "u", "1")
        assert (await cutover.shadow()).refused == 1
        assert "1 in the ledger that is on no counter" in (await cutover.refusals())[0].reason
        assert [(one.outcome, one.usage) for one in await rolled_back(cutover)] == [("rolled_back", Decimal(1))]
        assert [(one.outcome, one.usage) for one in await rolled_back(cutover)] == [("before", Decimal(0))]
        assert counter(legacy_url) == Decimal(153)
        clock.now += timedelta(minutes=1)
        await switched(cutover)
        await use(book, "u", "4")
        assert [one.usage for one in await rolled_back(cutover)] == [Decimal(4)]
    assert (counter(legacy_url), (await book.usage("user:u")).total) == (Decimal(157), Decimal(157))


async def test_usage_of_another_period_is_not_given_back_to_a_counter_without_a_word(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """Switched on the free plan, upgraded here, 20.00 used of the plan: the counter has no place for it."""
    person(legacy_url, clock, "3", None)
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        clock.now = utc(2026, 6, 12)
        await subscribe(book, "user:u", window=(utc(2026, 6, 12), utc(2026, 7, 12)))
        await use(book, "u", "20")
        (done,) = await rolled_back(cutover)
    assert done.outcome == "refused"
    assert done.reason.startswith("20 were used in another period")
    assert counter(legacy_url) == Decimal(3)


async def test_what_was_billed_before_a_rollback_is_still_sent(legacy_url: str, book: Book, clock: Clock) -> None:
    """The product's row says that it is billed, so somebody has to be asked for it; what is billed elsewhere later is not sent."""
    person(legacy_url, clock, "350")
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        assert (await book.sweep()).billed == 1
        clock.now += timedelta(minutes=1)
        assert [one.billed > 0 for one in await rolled_back(cutover)] == [True]
    due = "select kind from meterbook.claim_deliveries(array[]::text[], 10, interval '1 minute', %s)"
    assert ("charge",) in query(legacy_url, due, clock.now)


async def test_what_was_fed_before_somebody_joined_is_kept_and_does_not_go_back_again(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """2.00 that the ledger has from the log are part of the kept 152.00: a rollback adds nothing."""
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
        await switched(cutover)
        assert {one.usage for one in await rolled_back(cutover)} == {Decimal(0)}
    assert counter(legacy_url) == Decimal("0.75")


async def test_a_counter_that_is_null_takes_what_goes_back(legacy_url: str, book: Book, clock: Clock) -> None:
    """Null and 2.00 are 2.00."""
    person(legacy_url, clock, "0")
    query(legacy_url, "alter table public.user_stats alter current_period_cost drop not null")
    query(legacy_url, "update public.user_stats set current_period_cost = null")
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        await use(book, "u", "2")
        assert [one.usage for one in await rolled_back(cutover)] == [Decimal(2)]
    assert counter(legacy_url) == Decimal(2)


async def test_a_rollback_that_waits_for_one_row_holds_no_other(legacy_url: str, book: Book, clock: Clock) -> None:
    """A writer keeps one member's row: meanwhile those of all others are free, and the rollback ends when it lets go."""
    members = [f"m{number}" for number in range(30)]
    await team(legacy_url, clock, *members)
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        for name in ["owner", *members]:
            await use(book, name, "0.5")
        with psycopg.connect(legacy_url) as slow:
            slow.execute("update public.user_stats set last_active = now() where user_id = 'm7'")
            failures: list[str] = []
            other = threading.Thread(target=_charge_the_owner, args=(legacy_url, slow, failures))
            other.start()
            done = {one.outcome for one in await rolled_back(cutover)}
            other.join()
    assert (done, failures) == ({"rolled_back"}, [])
    assert counter(legacy_url, "m7") == Decimal("10.5")
    assert counter(legacy_url, "owner") == Decimal("0.5") + Decimal("0.001") * CHARGES


def _charge_the_owner(url: str, slow: psycopg.Connection, failures: list[str]) -> None:
    """Meanwhile; the slow writer commits when these are through. Whoever waits for the rollback waits for ever, or fails."""
    try:
        with psycopg.connect(url, autocommit=True, options="-c lock_timeout=5s") as conn:
            for _ in range(CHARGES):
                conn.execute(CHARGE.encode())
                time.sleep(0.005)
    except psycopg.Error as error:
        failures.append(str(error))
    slow.commit()


async def test_a_limit_and_a_block_that_were_edited_here_are_said(legacy_url: str, book: Book, clock: Clock) -> None:
    """They are not money, and the product's words for them are its own: who rolls back is told what to mend there."""
    person(legacy_url, clock, "3")
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        assert [one.left async for one in cutover.roll_back(dry_run=True)] == [""]
        await book.set_limit("user:u", "200")
        await book.block("user:u", reason="dispute")
        assert [one.left for one in await rolled_back(cutover)] == [
            "its limit is 200.00 here and 5.00 there; its block is dispute here and none there"
        ]


async def test_an_organization_of_any_size_is_compared_again_from_the_beginning(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """More members than one page takes, late usage of the last of them: after a rollback it is on the counter, and in the ledger, once."""
    members = [f"m{number:03}" for number in range(205)]
    await team(legacy_url, clock, *members, departed="7.5")
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert [one.outcome async for one in cutover.switch("organization:team")] == ["switched"]
        late = "update public.user_stats set current_period_cost = current_period_cost + 1.5 where user_id = 'm204'"
        query(legacy_url, late)
        assert (await cutover.absorb()).recorded == Decimal("1.5")
        assert [one.outcome async for one in cutover.roll_back("organization:team")] == ["rolled_back"]
        clock.now += timedelta(hours=1)
        assert (await cutover.shadow()).differing == 0
        assert [one.outcome async for one in cutover.switch("organization:team")] == ["switched"]
        assert await cutover.verify() == []
    assert (await book.usage("organization:team")).total == Decimal(2050) + Decimal("7.5") + Decimal("1.5")
