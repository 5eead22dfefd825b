"""Changes of customers against attribution: what is written down of a payer is never older than what decides it."""

import asyncio
from random import Random
from typing import Any

import psycopg
import pytest

from meterbook import AttributionUnavailable, Book
from meterbook.errors import MembershipRefused, UnknownEntity
from tests.ledger import P1, count, holding, query, subscribe, sums, use

STALE = """
select a.external_id, a.payer_id, p.entity_id from meterbook.actor a cross join lateral meterbook.payer_of(a.id, '2026-06-20 12:00Z') p
where a.payer_id is not null and a.payer_id <> p.entity_id
"""
PERSONS = ["a", "b", "c", "d"]


async def change(book: Book, dice: Random) -> None:
    """One random change: it is carried out, or refused for a reason of the rules."""
    person, organization = dice.choice(PERSONS), dice.choice(["o", "p"])
    status = dice.choice(["active", "unpaid", "past_due"])
    plan = dice.choice(["pro_6000", "team_6000", "enterprise"])
    changes = [
        lambda: book.add_member(organization, person),
        lambda: book.remove_member(organization, person),
        lambda: subscribe(book, f"user:{person}", plan, status=status),
        lambda: subscribe(book, f"organization:{organization}", plan, status=status, seats=dice.randrange(1, 5)),
        lambda: book.put_workspace("w", payer=dice.choice([f"organization:{organization}", f"user:{person}", None])),
    ]
    try:
        await dice.choice(changes)()
    except MembershipRefused:
        return


async def test_what_is_written_of_a_payer_is_never_stale(book: Book, database_url: str, seed: int) -> None:
    """Random changes and first contacts at once: no deadlock, nothing lost, and every payer is the one that the rule names."""
    dice = Random(seed)
    for organization in ("o", "p"):
        await book.put_organization(organization, owner=f"boss of {organization}")
    await book.put_workspace("w")

    async def record(n: int) -> None:
        actor = dice.choice([*PERSONS, f"new {n}"])
        await use(book, actor, "1.00", f"k{n}", workspace=dice.choice([None, "w"]))

    calls = [change(book, dice) for _ in range(120)] + [record(n) for n in range(120)]
    dice.shuffle(calls)
    for start in range(0, len(calls), 24):
        done = await asyncio.gather(*calls[start : start + 24], return_exceptions=True)
        assert [one for one in done if isinstance(one, BaseException)] == []
        assert query(database_url, STALE) == []
    assert sum(sums(database_url).values()) == count(database_url) == 120
    assert await book.verify() == []


async def test_first_contacts_of_one_customer_at_once(book: Book, database_url: str) -> None:
    """Reads, resolutions, entries, running totals and lists of somebody nobody knows: all answered, one row of each kind."""
    await book.put_organization("o", owner="boss")
    await subscribe(book, "organization:o", "team_6000", P1)
    await book.add_member("o", "u")
    query(database_url, "update meterbook.actor set payer_id = null")
    query(database_url, "delete from meterbook.period_clock")
    calls: list[Any] = []
    for n in range(12):
        calls += [
            use(book, "u", "1.00", f"k{n}"),
            book.usage("organization:o"),
            book.resolve("u"),
            book.record_cumulative("u", request=f"r{n}", total="1", source="s", description="m"),
            book.periods("organization:o"),
            book.usage("user:stranger"),
        ]
    await asyncio.wait_for(asyncio.gather(*calls), 20)
    assert sums(database_url) == {"organization:o": 24}
    assert query(database_url, "select count(*) from meterbook.billing_period where kind = 'dated'") == [(1,)]


async def test_a_caller_in_a_stricter_transaction_gets_retryable_errors_only(book: Book, database_url: str) -> None:
    """First contact inside REPEATABLE READ and SERIALIZABLE: unavailable now, and on the next try of the whole transaction recorded."""
    for level in (psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE):
        async with await psycopg.AsyncConnection.connect(database_url) as conn:
            await conn.set_isolation_level(level)
            with pytest.raises(AttributionUnavailable):
                await use(book, f"new {level.name}", "1.00", level.name, conn=conn)
            await conn.rollback()
            await use(book, f"new {level.name}", "1.00", level.name, conn=conn)
            await conn.commit()
    assert count(database_url) == 2


async def test_an_organization_is_made_once_by_many(book: Book, database_url: str) -> None:
    """Ten founders at once: one owner, the others are told whose it is not, or nothing."""
    done = await asyncio.gather(*(book.put_organization("o", owner=f"u{n}") for n in range(10)), return_exceptions=True)
    assert [one for one in done if isinstance(one, BaseException) and not isinstance(one, UnknownEntity)] == []
    assert (count(database_url, "organization"), count(database_url, "member")) == (1, 1)


async def test_actors_are_locked_in_one_order(book: Book, database_url: str) -> None:
    """Who waits for somebody who is joining holds no member that comes after: two such calls never wait for each other."""
    for actor in ("first", "second"):
        await use(book, actor, "1.00")
    await book.put_organization("o", owner="second")
    async with holding(database_url, "select 1 from meterbook.actor where external_id = 'first' for no key update"):
        joining = asyncio.create_task(book.add_member("o", "first"))
        await asyncio.sleep(0.3)
        assert not joining.done()
        free = "select 1 from meterbook.actor where external_id = 'second' for no key update nowait"
        assert query(database_url, free) == [(1,)]
    await joining
