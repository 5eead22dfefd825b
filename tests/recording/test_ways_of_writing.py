"""An entry is written by plain statements, in a batch at home, in any batch, or by COPY (ADR 0005, 0009, 0015): its rows are the same."""

from typing import Any
from uuid import UUID

from meterbook import Book
from meterbook.core.event_keys import of_event_key
from meterbook.operations.record_bulk import COPY_FROM
from tests.conftest import Clock
from tests.ledger import P2, query, subscribe, use

SAID: list[dict[str, Any]] = [
    {
        "actor": "ada",
        "amount": "0.000000000001",
        "description": "gpt-4o",
        "workflow": "w",
        "execution": "e",
        "line": "1",
    },
    {"actor": "ada", "amount": "1.50", "description": "gpt-4o"},
    {"actor": "ada", "amount": "2", "description": "search", "category": "tool", "source_reference": "r"},
    {"actor": "bob", "amount": "3", "description": "é", "metadata": {"tokens": 7, "raw": ["a\n"]}},
    {"actor": "eve", "amount": "999999999999", "description": 'a "b" \\ {c},', "category": "fixed"},
]
ROWS = """
select l.entity_id, l.recorded_at, l.period_id, l.belongs_to, l.day, l.actor_id, l.occurred_at, l.amount, l.category, l.source,
  l.description, l.workspace, l.workflow, l.execution, l.source_reference, l.line,
  k.entity_id, k.period_id, k.belongs_to, k.amount, k.fingerprint,
  m.metadata
from meterbook.usage_log l join meterbook.event_key k on k.key = l.key and k.recorded_at = l.recorded_at
left join meterbook.entry_metadata m on m.entity_id = l.entity_id and m.key = l.key
where l.key = any (%s) order by l.amount"""


def said(way: str, **more: Any) -> list[dict[str, Any]]:
    return [one | {"source": "workflow", "event_key": f"{way} {n}"} | more for n, one in enumerate(SAID)]


def rows(database_url: str, way: str) -> list[tuple[Any, ...]]:
    return query(database_url, ROWS, [UUID(of_event_key(f"{way} {n}")) for n in range(len(SAID))])


async def test_each_way_of_writing_leaves_the_same_rows(book: Book, database_url: str, clock: Clock) -> None:
    """Ledger, key, fingerprint, metadata, place and day; and the sums bear them out."""
    await subscribe(book, "user:ada")
    for actor in ("ada", "bob", "eve"):
        await use(book, actor, "1")
    for one in said("alone"):
        await book.record_many([one])
    await book.record_many(said("at home"))
    await book.record_many(said("in any batch", occurred_at=clock.now))
    filler = [
        {"actor": "eve", "source": "s", "description": "m", "amount": "1", "event_key": f"f{n}"}
        for n in range(COPY_FROM)
    ]
    await book.record_bulk([*said("by copy"), *filler])
    alone = rows(database_url, "alone")
    assert len(alone) == len(SAID)
    assert rows(database_url, "at home") == rows(database_url, "in any batch") == rows(database_url, "by copy") == alone
    assert await book.verify() == []


async def test_a_batch_in_which_one_payer_is_not_at_home_is_written_all_the_same(
    book: Book, database_url: str, clock: Clock
) -> None:
    """A person never seen, and one whose period has ended: both are attributed, and nobody's entry is lost or written twice."""
    await subscribe(book, "user:ada")
    await use(book, "ada", "1")
    clock.now = P2[0]
    reply = await book.record_many(said("mixed"))
    assert (reply.inserted, reply.replayed) == (len(SAID), 0)
    assert [entry.entity for entry in reply.entries] == ["user:ada"] * 3 + ["user:bob", "user:eve"]
    assert {entry.period for entry in reply.entries[:3]} == {(await book.usage("user:ada")).period.id}
    assert len(rows(database_url, "mixed")) == len(SAID)
    assert await book.verify() == []


async def test_a_batch_whose_clock_is_behind_stays_in_the_period_of_its_own_time(
    book: Book, database_url: str, clock: Clock
) -> None:
    """Another's clock has opened the next period already: home begins after these entries, and they are placed by their time."""
    await subscribe(book, "user:ada")
    await use(book, "ada", "1")
    (first,) = {entry.period for entry in (await book.record_many(said("before"))).entries[:3]}
    clock.now = P2[0]
    await use(book, "ada", "1")
    clock.now = P2[0].replace(year=2026, month=6, day=30, hour=23, minute=59)
    behind = await book.record_many(said("behind"))
    assert {entry.period for entry in behind.entries[:3]} == {first}
    assert {row[4] for row in rows(database_url, "behind") if row[7] == 2} == {29}
    assert await book.verify() == []
