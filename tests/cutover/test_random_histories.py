"""Random consistent histories with the known inconsistencies, judged by an auditor that shares nothing with the cutover."""

from datetime import timedelta
from decimal import Decimal

import pytest

from meterbook import Book
from meterbook.core.cutover import PlannedEntity
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.cutover.auditor import expected, tables
from tests.ledger import P1, use
from tests.legacy_product.history import PLANS, Product, random_product

ORIGIN = load_mapping()
NOW = P1[0] + timedelta(days=17, hours=5)


@pytest.mark.parametrize("number", range(3))
async def test_every_baseline_and_refresh_is_what_the_auditor_says(
    legacy_url: str, book: Book, clock: Clock, seed: int, number: int
) -> None:
    """For each entity: the counters to the last digit, the days by the oldest rows, so the refresh; their tables stay as they are."""
    clock.now = NOW
    random_product(seed + number, NOW).write(legacy_url)
    before = tables(legacy_url)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        done = [one async for one in cutover.switch()]
        assert await cutover.verify() == []
    assert {one.outcome for one in done} == {"switched"}
    assert tables(legacy_url) == before
    for entity, wanted in expected(legacy_url, NOW).items():
        usage = await book.usage(entity)
        assert (entity, usage.baseline, usage.refresh) == (entity, wanted.baseline, wanted.refresh)
    assert await book.verify() == []


async def test_the_plan_says_what_the_switch_does_and_writes_nothing(
    legacy_url: str, book: Book, clock: Clock, seed: int
) -> None:
    """Baseline and dated part of each entity, beforehand; the ledger and the product's tables stay as they are."""
    clock.now = NOW
    product = random_product(seed, NOW)
    for name, known_to in (("above", {"logged": False}), ("below", {"counted": False})):
        product.user(name)
        product.subscription(name, PLANS[0], P1)
        product.charge(name, "5", P1[0] + timedelta(days=1), **known_to)
    product.write(legacy_url)
    async with book.cutover(ORIGIN) as cutover:
        planned: dict[str, PlannedEntity] = {one.entity: one async for one in cutover.plan()}
        assert (await cutover.states()).shadow == 0
        assert {"counter_above_audit", "counter_below_audit", "rows_without_counter"} <= {
            one.code for one in cutover.findings
        }
        await cutover.shadow()
        switched = {one.entity: one async for one in cutover.switch()}
    for entity, plan in planned.items():
        assert (entity, plan.baseline) == (entity, switched[entity].baseline)
        if plan.starts_at is not None:
            assert (entity, plan.dated) == (entity, switched[entity].dated)


async def test_a_dry_run_changes_nothing(legacy_url: str, book: Book, clock: Clock, seed: int) -> None:
    """Neither here nor there; and says what the real round then does."""
    clock.now = NOW
    random_product(seed, NOW, people=12, organizations=2).write(legacy_url)
    before = tables(legacy_url)
    async with book.cutover(ORIGIN) as cutover:
        dry = await cutover.shadow(dry_run=True)
        assert (await cutover.states()).shadow == 0
        real = await cutover.shadow()
        assert (dry.entities, dry.begun, dry.mirrored) == (real.entities, real.begun, real.mirrored)
        tried = [one async for one in cutover.switch(dry_run=True)]
        assert (await cutover.states()).switched == 0
        assert tried == [one async for one in cutover.switch()]
    assert tables(legacy_url) == before


async def test_rolled_back_from_every_step_the_tables_are_as_they_were(
    legacy_url: str, book: Book, clock: Clock, seed: int
) -> None:
    """From shadow and from the switch, byte for byte; and forward again, to the same baselines."""
    clock.now = NOW
    random_product(seed, NOW, people=16, organizations=2).write(legacy_url)
    before = tables(legacy_url)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert {one.outcome async for one in cutover.roll_back()} == {"rolled_back"}
        assert tables(legacy_url) == before
        await cutover.shadow()
        first = [one async for one in cutover.switch()]
        assert {one.outcome for one in first} == {"switched"}
        assert {one.usage async for one in cutover.roll_back()} == {Decimal(0)}
        assert tables(legacy_url) == before
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        again = [one async for one in cutover.switch()]
    assert [(one.entity, one.outcome, one.baseline) for one in again] == [
        (one.entity, "switched", one.baseline) for one in first
    ]


async def test_what_was_used_and_billed_since_goes_back_to_the_counters_to_the_cent(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """Usage of two members, a threshold charge and the credits that it spent: on their rows, once; the next switch begins from there."""
    clock.now = NOW
    product = Product()
    product.user("owner", running=Decimal(150), credits=Decimal("25.10"))
    product.user("member", running=Decimal("1.5"))
    product.organization("team", "owner", joined=P1[0], balance="30")
    product.member("team", "member", P1[0])
    product.subscription("team", "team_6000", seats=2)
    product.write(legacy_url)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
        clock.now += timedelta(minutes=1)
        await use(book, "owner", "100.123456")
        await use(book, "member", "0.5")
        assert (await book.sweep()).billed == 1
        usage = await book.usage("organization:team")
        back = {one.entity: one async for one in cutover.roll_back()}
        assert back["organization:team"].usage == Decimal("100.623456")
        assert {one.outcome async for one in cutover.roll_back()} == {"before"}
        rows = tables(legacy_url)["user_stats"].decode().splitlines()
        assert rows[0].split("\t")[:2] == ["member", "2.0"]
        assert rows[1].split("\t")[:2] == ["owner", "250.123456"]
        assert rows[1].split("\t")[3] == str(Decimal(usage.billed_cents).scaleb(-2))
        assert tables(legacy_url)["organization"].split(b"\t")[3] == b"0.00"
        clock.now += timedelta(minutes=1)
        await cutover.shadow()
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
    again = await book.usage("organization:team")
    assert (again.total, again.billed_cents, again.credits_cents) == (
        usage.total,
        usage.billed_cents,
        usage.credits_cents,
    )
