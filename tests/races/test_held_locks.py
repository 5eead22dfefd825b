"""Recording waits for nobody but an earlier writer of the same key (I8, S11): others may hold every other row as long as they like.

Recorders run with a `lock_timeout` of 1 ms, so that one that had to wait for any lock would be refused; no clock is looked at.
"""

import asyncio

import psycopg
import pytest

from meterbook.book import Book
from meterbook.core.recorded import Recorded
from tests.ledger import P1
from tests.races.playing import connected, first_contact, rows, said

HOLDS = {
    "rows locked for update": """
        select 1 from meterbook.{} for update""",
    "rows being updated": """
        update meterbook.{} set {} = {}""",
}
COLUMN = {
    "billing_entity": "external_id",
    "actor": "payer_until",
    "billing_period": "included",
    "period_clock": "home_id",
    "subscription": "plan",
    "member": "role",
    "organization": "created_at",
    "workspace": "payer_id",
    "usage_rollup": "amount",
    "entry_correction": "corrected",
}
IMPATIENT = """
alter function meterbook.record_usage set lock_timeout = '1ms'
"""


async def organization_at_work(book: Book) -> None:
    """An organization pays for two members and a workspace; some of its usage is folded, some waits."""
    await book.put_organization("acme", owner="ada")
    await book.add_member("acme", "bob")
    await book.put_subscription(
        id="sub", owner="organization:acme", plan="team_6000", seats=3, status="active", starts_at=P1[0], ends_at=P1[1]
    )
    await book.put_workspace("w1", payer="organization:acme")
    first = await book.record_many([said("folded", "5"), said("folded too", "5", "bob")])
    await book.correct(first.entries[0].id, amount="-1", reason="test", event_key="fix")
    await book.compact()
    await book.record_many([said("waiting", "1")])


async def record_500(book: Book) -> list[Recorded]:
    """Singly, in batches and in a workspace, all for one entity."""
    single = [book.record_many([said(f"single {n}", "1", "ada" if n % 2 else "bob")]) for n in range(250)]
    batches = [
        book.record_many([said(f"batch {n}.{part}", "1", workspace="w1") for part in range(25)]) for n in range(10)
    ]
    return list(await asyncio.gather(*single, *batches))


@pytest.mark.parametrize("hold", HOLDS)
async def test_recorders_wait_for_no_row_but_their_keys(book: Book, database_url: str, hold: str) -> None:
    """Every row of customers, periods, clocks and rollups is held by an open transaction, and the fold's lock by another, while 500
    entries of the one entity are recorded: none of them waits.
    """
    await organization_at_work(book)
    async with connected(database_url) as holder, connected(database_url) as folder:
        await make_impatient(database_url)
        for table, column in COLUMN.items():
            await holder.execute(HOLDS[hold].format(table, column, column).encode())
        await folder.execute("select pg_advisory_xact_lock(5067, 1)")
        replies = await record_500(book)
        ((held,),) = await rows(
            holder,
            "select count(distinct relation) from pg_locks where pid = pg_backend_pid() and mode in ('RowShareLock', 'RowExclusiveLock')"
            " and relation::regclass::text = any (%s)",
            [f"meterbook.{table}" for table in COLUMN],
        )
    assert held == len(COLUMN)
    assert sum(reply.inserted for reply in replies) == 500
    assert (await book.usage("organization:acme")).total == 5 + 5 - 1 + 1 + 500


async def make_impatient(url: str) -> None:
    """A recorder that has to wait for any lock is refused instead."""
    async with connected(url) as conn:
        await conn.execute(IMPATIENT)
        await conn.commit()


async def test_the_proof_by_impatience_proves_something(book: Book, database_url: str) -> None:
    """With the same timeout, a recorder that does have to wait (for a writer of its own key) is refused."""
    await first_contact(book, "ada")
    await make_impatient(database_url)
    async with connected(database_url) as first:
        await book.record_many([said("k")], conn=first)
        with pytest.raises(Exception, match="has not finished"):
            await book.record_many([said("k")])


async def test_recorders_of_one_entity_share_no_row(book: Book, database_url: str) -> None:
    """Twenty callers' transactions of one entity, actor, period, day and description stay open at once: none waits for another (I8)."""
    await first_contact(book, "ada")
    await make_impatient(database_url)
    callers = [await psycopg.AsyncConnection.connect(database_url) for _ in range(20)]
    for n, caller in enumerate(callers):
        assert (await book.record_many([said(f"key {n}")], conn=caller)).inserted == 1
        assert (await book.record_many([said(f"more {n}"), said(f"most {n}")], conn=caller)).inserted == 2
    assert (await book.usage("user:ada")).total == 0
    for caller in callers:
        await caller.commit()
        await caller.close()
    assert (await book.usage("user:ada")).total == 60


async def test_a_writer_that_stays_open_delays_neither_readers_nor_the_fold(book: Book, database_url: str) -> None:
    """While a caller's transaction is open, others are read, folded and verified; what it wrote counts once it commits."""
    await first_contact(book, "ada")
    async with connected(database_url) as caller:
        await book.record_many([said("open", "100")], conn=caller)
        await book.record_many([said("k", "1")])
        assert (await book.compact()).deltas == 1
        assert (await book.usage("user:ada")).total == 1
        await caller.commit()
    assert (await book.usage("user:ada")).total == 101
    assert await book.verify() == []
