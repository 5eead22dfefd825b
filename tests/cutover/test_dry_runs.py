"""A dry run of any step leaves the whole database as it was: the product's tables, the ledger, the steps' own."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from meterbook import Book
from meterbook.book.cutover import Cutover
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.ledger import P1, query, use
from tests.legacy_product.history import random_product

ORIGIN = load_mapping()
NOW = P1[0] + timedelta(days=17)
TABLES = (
    b"select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
    b" where n.nspname in ('public', 'meterbook') and c.relkind = 'r' order by 1, 2"
)


def database(url: str) -> dict[str, list[Any]]:
    """Every row of every table, and what triggers stand on the product's."""
    with psycopg.connect(url) as conn:
        found: dict[str, list[Any]] = {
            f"{schema}.{name}": sorted(
                str(row[0])
                for row in conn.execute(sql.SQL("select x::text from {} x").format(sql.Identifier(schema, name)))
            )
            for schema, name in conn.execute(TABLES).fetchall()
        }
        found["triggers"] = conn.execute("select tgname from pg_trigger where not tgisinternal order by 1").fetchall()
    return found


async def _shadow(cutover: Cutover) -> object:
    return await cutover.shadow(dry_run=True)


async def _switch(cutover: Cutover) -> object:
    return [one async for one in cutover.switch(dry_run=True)]


async def _absorb(cutover: Cutover) -> object:
    done = await cutover.absorb(dry_run=True)
    assert (done.recorded, done.billed_cents) == (Decimal("0.5"), 3_00)
    return done


async def _roll_back(cutover: Cutover) -> object:
    done = [one async for one in cutover.roll_back(dry_run=True)]
    assert sum(one.usage for one in done) == Decimal(2)
    return done


async def _history(cutover: Cutover) -> object:
    return await cutover.import_history(dry_run=True)


async def _retire(cutover: Cutover) -> object:
    return await cutover.retire(dry_run=True)


async def _trigger(cutover: Cutover) -> object:
    return await cutover.put_trigger(dry_run=True)


@pytest.mark.parametrize("step", [_shadow, _switch, _history, _trigger])
async def test_a_dry_run_before_the_switch_writes_nothing(
    legacy_url: str, book: Book, clock: Clock, step: Callable[[Cutover], Awaitable[object]]
) -> None:
    """With rows that are waiting to be fed and a member who has just joined."""
    clock.now = NOW
    product = random_product(11, NOW, people=10, organizations=2)
    product.write(legacy_url)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        clock.now += timedelta(minutes=1)
        user = next(iter(product.users))
        query(
            legacy_url,
            "update public.user_stats set current_period_cost = current_period_cost + 1 where user_id = %s",
            user,
        )
        query(
            legacy_url,
            "insert into public.usage_log values ('fresh', %s, 'model', 's', 'd', 1, null, null, null, '2026-06-18')",
            user,
        )
        query(legacy_url, "insert into public.user_stats (user_id) values ('new')")
        query(legacy_url, "insert into public.member values ('m_new', 'new', 'org_0', 'member', '2026-06-18')")
        before = database(legacy_url)
        await step(cutover)
        assert database(legacy_url) == before


@pytest.mark.parametrize("step", [_switch, _absorb, _roll_back, _retire, _trigger])
async def test_a_dry_run_after_the_switch_writes_nothing(
    legacy_url: str, book: Book, clock: Clock, step: Callable[[Cutover], Awaitable[object]]
) -> None:
    """With late usage, a bill of an old instance, and usage that only the ledger has."""
    clock.now = NOW
    product = random_product(11, NOW, people=10, organizations=2)
    product.write(legacy_url)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
        user = next(name for name in product.users if name not in {row[1] for row in product.members})
        query(
            legacy_url,
            "update public.user_stats set current_period_cost = current_period_cost + 0.5,"
            " billed_overage_this_period = billed_overage_this_period + 3 where user_id = %s",
            user,
        )
        await use(book, user, "2")
        before = database(legacy_url)
        await step(cutover)
        assert database(legacy_url) == before
