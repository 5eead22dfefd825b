"""What the tests of the specification share: the calendar of the worked examples, and a superuser's look into the tables."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg

from meterbook import Book, Recorded

Window = tuple[datetime, datetime]


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0, micro: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, second, micro, tzinfo=UTC)


P0: Window = (utc(2026, 5, 1), utc(2026, 6, 1))
P1: Window = (utc(2026, 6, 1), utc(2026, 7, 1))
P2: Window = (utc(2026, 7, 1), utc(2026, 8, 1))
FREE: Window = (utc(1970, 1, 1), utc(9999, 12, 31))


def query(database_url: str, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """As the superuser, beside the book: rows of a select, [] of anything else."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        result = conn.execute(statement.encode(), arguments)
        return result.fetchall() if result.description else []


def sums(database_url: str) -> dict[str, Decimal]:
    """What each entity's rows of the ledger add up to."""
    return dict(
        query(
            database_url,
            "select e.kind || ':' || e.external_id, sum(l.amount) from meterbook.usage_log l"
            " join meterbook.billing_entity e on e.id = l.entity_id group by 1",
        )
    )


def count(database_url: str, table: str = "usage_log") -> int:
    return int(query(database_url, f"select count(*) from meterbook.{table}")[0][0])


def amounts(database_url: str) -> list[Decimal]:
    """Of every row, in the order of its amount."""
    return [row[0] for row in query(database_url, "select amount from meterbook.usage_log order by amount")]


def close(database_url: str, period: int) -> None:
    """Stands for the close of a period, until there is an operation for it: what is there is folded, and nothing more is taken."""
    query(database_url, "select meterbook.compact()")
    query(database_url, "update meterbook.billing_period set state = 'closed' where id = %s", period)


def windows(database_url: str, entity: str, kind: str = "dated") -> list[Window]:
    """An entity's periods of a kind, oldest first."""
    found = query(
        database_url,
        "select p.starts_at, p.ends_at from meterbook.billing_period p where p.entity_id = meterbook.entity_id_of(%s)"
        " and p.kind = %s order by p.starts_at",
        entity,
        kind,
    )
    return [(starts.astimezone(UTC), ends.astimezone(UTC)) for starts, ends in found]


async def subscribe(
    book: Book, owner: str, plan: str = "pro_6000", window: Window = P1, *, status: str = "active", **terms: Any
) -> None:
    """A subscription `sub_<owner>` with `window` as its current period."""
    terms = {"id": f"sub_{owner}", "owner": owner, "plan": plan, "status": status} | terms
    await book.put_subscription(starts_at=window[0], ends_at=window[1], **terms)


async def use(book: Book, actor: str, amount: str, key: str | None = None, **said: Any) -> Recorded:
    """One entry of a workflow's model; its key is new unless it is given."""
    use.made += 1  # type: ignore[attr-defined]
    said = {"source": "workflow", "description": "gpt-4o"} | said
    if not {"source_reference", "execution"} & said.keys():
        said["event_key"] = key or f"use {use.made}"  # type: ignore[attr-defined]
    return await book.record(actor, amount=amount, **said)


use.made = 0  # type: ignore[attr-defined]


async def place_of(book: Book, recorded: Recorded) -> tuple[str, Window]:
    """Who pays for a call's only entry, and the period where it is booked."""
    (entry,) = recorded.entries
    (period,) = [period for period in await book.periods(entry.entity) if period.id == entry.period]
    return entry.entity, (period.starts_at.astimezone(UTC), period.ends_at.astimezone(UTC))


async def total(book: Book, entity: str, period: str | int = "current") -> Decimal:
    return (await book.usage(entity, period)).total


@asynccontextmanager
async def holding(database_url: str, *statements: str) -> AsyncIterator[None]:
    """Another session's transaction stays open behind these statements, and is then rolled back."""
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        for statement in statements:
            await conn.execute(statement.encode())
        yield
        await conn.rollback()


def problems_of(refused: Any) -> list[tuple[int, str, str]]:
    """Index, field and code of each problem of an `InvalidUsage`."""
    found: Sequence[Any] = refused.value.problems
    return [(problem.index, problem.field, problem.code) for problem in found]
