"""The players of the races: writers of every kind, the fold, an oracle, and a look at who waits for whom."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
from psycopg import AsyncConnection, IsolationLevel

from meterbook.book import Book
from meterbook.core.recorded import Recorded
from meterbook.errors import Unavailable

Connection = AsyncConnection[Any]
LEVELS = [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]
ATTEMPTS_MAX = 200


@asynccontextmanager
async def connected(url: str, level: IsolationLevel | None = None, **settings: str) -> AsyncIterator[Connection]:
    """A caller's own connection, not autocommit."""
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    async with await AsyncConnection.connect(url, options=options) as conn:
        if level is not None:
            await conn.set_isolation_level(level)
        yield conn
        await conn.rollback()


def said(key: str, amount: str = "1", actor: str = "ada", **more: Any) -> dict[str, Any]:
    return {"actor": actor, "source": "workflow", "description": "gpt-4o", "amount": amount, "event_key": key} | more


async def insist(call: Callable[[], Awaitable[Recorded]]) -> Recorded:
    """A caller who does what `retryable` says, also when the connection is lost."""
    for _ in range(ATTEMPTS_MAX):
        with contextlib.suppress(Unavailable, psycopg.OperationalError):
            return await call()
        await asyncio.sleep(0.005)
    raise AssertionError(f"still refused after {ATTEMPTS_MAX} attempts")


@dataclass
class Tried:
    """What the writers meant, by key, and how much of it was acknowledged."""

    amounts: dict[str, Decimal] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)

    def mean(self, key: str, amount: str) -> None:
        self.amounts[key] = Decimal(amount)

    @property
    def total(self) -> Decimal:
        return sum((self.amounts[key] for key in self.acknowledged), Decimal(0))


async def rows(conn: Connection, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    result = await conn.execute(statement.encode(), arguments)
    return await result.fetchall()


async def first_contact(book: Book, *actors: str) -> None:
    """Afterwards recording needs no attribution: actors, payers and periods are known."""
    for actor in actors:
        await book.resolve(actor)


async def write_singly(book: Book, tried: Tried, name: str, chance: random.Random, calls: int) -> None:
    for n in range(calls):
        key, amount = f"{name}.{n}", f"0.{chance.randrange(1, 999):03}"
        tried.mean(key, amount)
        await insist(partial(book.record_many, [said(key, amount, f"actor {n % 7}")]))
        tried.acknowledged.add(key)


async def write_batches(book: Book, tried: Tried, name: str, chance: random.Random, calls: int) -> None:
    for n in range(calls):
        batch = [said(f"{name}.{n}.{part}", f"{chance.randrange(1, 99)}", f"actor {part % 5}") for part in range(20)]
        for entry in batch:
            tried.mean(entry["event_key"], entry["amount"])
        await insist(partial(book.record_many, batch))
        tried.acknowledged |= {entry["event_key"] for entry in batch}


async def write_in_own_transactions(
    book: Book, url: str, tried: Tried, name: str, chance: random.Random, calls: int
) -> None:
    """Some commit, some roll back, some only to a savepoint; the isolation level varies."""
    for n in range(calls):
        async with connected(url, LEVELS[n % 3]) as conn:
            kept, dropped = f"{name}.{n}.kept", f"{name}.{n}.dropped"
            tried.mean(kept, "2")
            with contextlib.suppress(Unavailable, psycopg.OperationalError):
                await book.record_many([said(kept, "2", f"actor {n % 7}")], conn=conn)
                with contextlib.suppress(psycopg.Rollback):
                    async with conn.transaction() as savepoint:
                        await book.record_many([said(dropped, "1000")], conn=conn)
                        raise psycopg.Rollback(savepoint)
                await asyncio.sleep(chance.random() / 50)
                if n % 4 == 3:
                    await conn.rollback()
                else:
                    await conn.commit()
                    tried.acknowledged.add(kept)


async def until(done: asyncio.Event, turn: Callable[[], Awaitable[object]]) -> int:
    """Takes turns until the others are done; gives their number. A connection that was killed takes the next one."""
    turns = 0
    while not done.is_set():
        with contextlib.suppress(Unavailable, psycopg.OperationalError):
            await turn()
            turns += 1
        await asyncio.sleep(0)
    return turns


ORACLE = """
with logged as (
  select l.entity_id, coalesce(e.booked, l.period_id) as period_id, l.actor_id, l.source, l.description,
         case when e.key is null then l.day else e.day end as day, l.amount
  from meterbook.usage_log l left join meterbook.late_entry e on e.entity_id = l.entity_id and e.key = l.key),
waiting as (
  select d.entity_id, d.period_id, d.actor_id, d.source, d.description, d.day, d.amount, d.entries from meterbook.usage_delta d),
entries as (
  select entity_id, period_id, grain, part, detail, sum(amount) as amount, count(*) as n
  from logged cross join lateral (values ('total', '', ''), ('day', coalesce(day::text, ''), ''), ('actor', actor_id::text, ''),
                                         ('description', source, description)) g(grain, part, detail)
  group by 1, 2, 3, 4, 5),
known as (
  select entity_id, period_id, grain, part, detail, sum(amount) as amount, sum(n) as n from (
    select r.entity_id, r.period_id, r.grain, r.part, r.detail, r.amount, r.entries as n from meterbook.usage_rollup r
    union all
    select entity_id, period_id, grain, part, detail, amount, entries
    from waiting cross join lateral (values ('total', '', ''), ('day', coalesce(day::text, ''), ''), ('actor', actor_id::text, ''),
                                            ('description', source, description)) g(grain, part, detail)) term
  group by 1, 2, 3, 4, 5)
select entity_id, period_id, grain, part, detail, e.amount, k.amount, e.n, k.n
from entries e full join known k using (entity_id, period_id, grain, part, detail)
where (e.amount, e.n) is distinct from (k.amount, k.n)
"""
"""Σ entries = Σ rollup + Σ delta for each entity, period and grain, under the snapshot of one statement: no row."""
