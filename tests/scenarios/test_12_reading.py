"""Section 12: infrastructure, as far as the ledger."""

import asyncio
from decimal import Decimal
from random import Random
from typing import Any

import psycopg
import pytest

from meterbook import Book
from meterbook.errors import CorrectionRefused
from meterbook.postgres.reading import SQL
from tests.ledger import amounts, count, query, sums, use

FILL = """
select count(*) from meterbook.record_usage(
  (select array_agg(meterbook.event_key(%(who)s || n)) from generate_series(1, %(entries)s) n),
  (select array_agg(meterbook.event_key('print ' || n)) from generate_series(1, %(entries)s) n),
  array_fill(%(who)s::text, array[%(entries)s]), array_fill('workflow'::text, array[%(entries)s]),
  (select array_agg('model ' || n %% 5) from generate_series(1, %(entries)s) n),
  array_fill(0.01::numeric, array[%(entries)s]),
  occurred_ats => (select array_agg('2026-06-20 12:00Z'::timestamptz - make_interval(days => n %% 10))
                   from generate_series(1, %(entries)s) n),
  at => '2026-06-20 12:00Z')
"""


async def test_s95_each_read_is_one_snapshot(book: Book) -> None:
    """While writers and a compactor run, every read adds up in each breakdown, and what was seen is never unseen."""
    done = False

    async def write(actor: str) -> None:
        for n in range(60):
            await use(book, actor, "0.25", description=f"m{n % 3}", entity="user:payer")

    async def compact() -> None:
        while not done:
            await book.compact()

    async def read() -> int:
        seen, reads = Decimal(0), 0
        while not done:
            usage = await book.usage("user:payer")
            breakdowns = (usage.by_actor, usage.by_day, usage.by_source, usage.by_description)
            assert {sum(one.values(), Decimal(0)) for one in breakdowns} == {usage.total}
            assert (usage.total, usage.count * Decimal("0.25")) >= (seen, usage.total)
            seen, reads = usage.total, reads + 1
        return reads

    readers = [asyncio.create_task(read()) for _ in range(2)]
    compactor = asyncio.create_task(compact())
    await asyncio.gather(*(write(f"a{n}") for n in range(4)))
    done = True
    assert min(await asyncio.gather(*readers)) > 5
    await compactor
    assert (await book.usage("user:payer")).total == 60


async def test_s96_a_read_costs_the_same_whatever_a_period_holds(book: Book, database_url: str) -> None:
    """30 000 rows read no more buffers than 300, both in a ledger of 60 000."""
    sizes = {"small": 300, "large": 30_000, "rest": 30_000}
    for who in sizes:
        await use(book, who, "0.01")
    with psycopg.connect(database_url, autocommit=True, cursor_factory=psycopg.ClientCursor) as conn:
        for who, entries in sizes.items():
            conn.execute(FILL.encode(), {"who": who, "entries": entries})
        await book.compact()
        conn.execute("vacuum analyze")
        buffers = {who: read_buffers(conn, who) for who in ("small", "large")}
    assert buffers["large"] <= buffers["small"] < 200


def read_buffers(conn: psycopg.Connection[Any], who: str) -> int:
    said = {"kind": "user", "external_id": who, "period": "current", "period_id": None, "at": "2026-06-20 12:00Z"}
    statement = "explain (analyze, buffers, format json) " + SQL["read_period"]
    plans = []
    for _ in range(2):  # the first fills the catalog's caches
        row = conn.execute(statement.encode(), said).fetchone()
        assert row is not None
        plans.append(row[0][0]["Plan"])
    return int(plans[1]["Shared Hit Blocks"]) + int(plans[1]["Shared Read Blocks"])


async def test_s97_rollups_are_the_ledger(book: Book, database_url: str, seed: int) -> None:
    """1 000 random entries and corrections, some rolled back, folded now and then → rollups and deltas say what the entries say."""
    dice = Random(seed)
    kept: list[str] = []
    for batch in range(50):
        lines = [
            {
                "actor": f"a{dice.randrange(3)}",
                "entity": f"user:e{dice.randrange(2)}",
                "source": "workflow",
                "description": f"m{dice.randrange(4)}",
                "amount": Decimal(dice.randrange(1, 10**6)).scaleb(-6),
                "event_key": f"{batch} {n}",
            }
            for n in range(18)
        ]
        async with await psycopg.AsyncConnection.connect(database_url) as conn:
            written = await book.record_many(lines, conn=conn)
            if dice.random() < 0.2:
                await conn.rollback()
            else:
                kept += [entry.id for entry in written.entries]
        if kept:
            await correct_some(book, dice, kept, f"fix {batch}")
        if dice.random() < 0.2:
            await book.compact()
    assert await book.verify() == []
    await book.compact()
    assert await book.verify() == []
    assert count(database_url, "usage_delta") == 0
    totals = {entity: (await book.usage(entity)).total for entity in ("user:e0", "user:e1")}
    assert totals == sums(database_url)
    assert sum(totals.values()) == sum(amounts(database_url))


async def correct_some(book: Book, dice: Random, kept: list[str], key: str) -> None:
    for n in range(2):
        amount = Decimal(dice.randrange(-(10**5), 10**5)).scaleb(-6)
        try:
            await book.correct(dice.choice(kept), amount=amount, reason="random", event_key=f"{key} {n}")
        except CorrectionRefused:
            continue


@pytest.mark.parametrize("compacted", [True, False])
async def test_s97_a_lost_rollup_is_named_and_rebuilt(book: Book, database_url: str, *, compacted: bool) -> None:
    """Rows missing, orphaned and altered are each named by entity, period and figure; rebuild derives them anew and keeps the deltas."""
    for n in range(3):
        await use(book, "u", "1.00", description=f"m{n}")
    await book.compact()
    if not compacted:
        await use(book, "u", "0.50")
    query(database_url, "delete from meterbook.usage_rollup where grain = 'day'")
    query(database_url, "update meterbook.usage_rollup set amount = amount + 1 where grain = 'total'")
    query(
        database_url,
        "insert into meterbook.usage_rollup (entity_id, period_id, grain, part, detail, amount, entries, digest)"
        " select entity_id, period_id, 'actor', '999', '', 1, 1, 1 from meterbook.usage_rollup where grain = 'total'",
    )
    found = await book.verify("user:u")
    assert {(one.entity, one.grain) for one in found} == {("user:u", "actor"), ("user:u", "day"), ("user:u", "total")}
    (altered,) = [one for one in found if one.grain == "total"]
    assert (altered.ledger_amount, altered.derived_amount) == (Decimal(3), Decimal(4))
    assert "the entries say 3" in str(altered)
    await book.rebuild("user:u")
    assert await book.verify() == []
    assert (await book.usage("user:u")).total == sums(database_url)["user:u"]
