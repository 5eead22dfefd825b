"""The published lock order (docs/decisions/0013), observed: another session holds one table's rows, and who waits for them is looked at.

While a verb waits for a row of X, the rows of every other table that can't be locked any more are those that the verb has locked: their
tables must come before X in the order.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from meterbook import Book
from tests.bills import lump, pays
from tests.conftest import Clock
from tests.ledger import P2, query, use
from tests.races.playing import Connection, connected

ORDER = (
    "billing_entity", "organization", "member", "actor", "subscription", "billing_period", "period_clock", "hold_gate", "hold",
    "credit_grant", "cumulative_request", "event_key", "usage_rollup", "outbox",
)  # fmt: skip
"""Below the fold's advisory lock, which comes first."""
FOLD = "select pg_advisory_xact_lock(5067, 1)"
WAITS = (
    "select a.pid from pg_stat_activity a where %s = any (pg_blocking_pids(a.pid)) and a.datname = current_database()"
)
FREE = "select count(*) from (select from meterbook.{} for update skip locked) free"
ALL = "select count(*) from meterbook.{}"


@dataclass
class Stage:
    """A ledger in which every verb finds something to lock; `n` makes each call another one."""

    book: Book
    clock: Clock
    url: str
    entries: list[str] = field(default_factory=list)
    n: int = 0

    def new(self, name: str) -> str:
        self.n += 1
        return f"{name} {self.n}"


async def staged(book: Book, clock: Clock, url: str) -> Stage:
    """Two organizations with members, their own subscriptions, grants, running totals, holds and rollups; June is closed, July runs."""
    stage = Stage(book, clock, url)
    for name in ("o", "p"):
        await pays(book, f"user:{name}1")
        await book.put_organization(name, owner=f"boss of {name}")
        for n in (1, 2):
            await book.add_member(name, f"{name}{n}")
        await pays(book, f"organization:{name}", "team_6000")
        for n in range(2):
            await book.grant_credit(f"organization:{name}", amount="1", grant_id=f"{name} {n}")
        stage.entries.append(await lump(book, f"{name}1", "131"))
        await book.record_cumulative(f"{name}1", request=name, total="1", source="s", description="d")
    clock.now = P2[0] + timedelta(hours=2)
    await book.sweep()
    for name in ("o", "p"):
        await book.set_limit(f"organization:{name}", "10000")
        await lump(book, f"{name}1", "140", window=P2)
        await book.place_hold(f"{name}1", amount="1", hold_id=f"waits {name}")
    await book.compact()
    return stage


async def record(stage: Stage) -> None:
    async with connected(stage.url) as conn:
        await use(stage.book, "o1", "1", stage.new("k"), conn=conn)
        await conn.commit()


async def total(stage: Stage) -> None:
    await stage.book.record_cumulative("o1", request="o", total=10 + stage.n, source="s", description="d")
    stage.n += 1


async def correct(stage: Stage) -> None:
    await stage.book.correct(stage.entries[0], amount="-0.01", reason="test", event_key=stage.new("fix"))


async def hold(stage: Stage) -> None:
    await stage.book.place_hold("o1", amount="0.01", hold_id=stage.new("h"))


async def settle(stage: Stage) -> None:
    held = await stage.book.place_hold("o1", amount="0.01", hold_id=stage.new("h"))
    async with connected(stage.url) as conn:
        await stage.book.settle(held.id, amount="0.01", source="s", description="d", conn=conn)
        await conn.commit()


async def bill(stage: Stage) -> None:
    await lump(stage.book, "o1", "101", window=P2)
    await stage.book.bill_threshold("organization:o")


async def close(stage: Stage) -> None:
    """A period of its own, which ends now."""
    owner = f"user:{stage.new('c')}"
    window = stage.clock.now - timedelta(days=20), stage.clock.now + timedelta(days=1)
    await pays(stage.book, owner, "pro_6000", window)
    await lump(stage.book, owner.removeprefix("user:"), "50", window=window)
    await stage.book.grant_credit(owner, amount="1", grant_id=stage.new("g"))
    stage.clock.now += timedelta(days=1, hours=2)
    await stage.book.close(owner)


async def sweep(stage: Stage) -> None:
    await lump(stage.book, "p1", "101", window=P2)
    await stage.book.sweep()


async def join_and_leave(stage: Stage) -> None:
    actor = stage.new("joins")
    await pays(stage.book, f"user:{actor}", window=P2)
    await stage.book.add_member("o", actor)
    await stage.book.remove_member("o", actor)


async def change_seats(stage: Stage) -> None:
    await pays(stage.book, "organization:o", "team_6000", P2, seats=1 + stage.n)
    stage.n += 1


async def end_and_renew(stage: Stage) -> None:
    await pays(stage.book, "organization:p", "team_6000", P2, status="unpaid")
    await pays(stage.book, "organization:p", "team_6000", P2)


async def transfer(stage: Stage) -> None:
    await stage.book.transfer_ownership("o", "o1")
    await stage.book.transfer_ownership("o", "boss of o")


async def pass_the_clock(stage: Stage) -> None:
    """Somebody's first check after the period's end opens the next one."""
    stage.clock.now = (await stage.book.usage("organization:o")).period.ends_at
    await stage.book.check("o1")


async def delete_user(stage: Stage) -> None:
    actor = stage.new("gone")
    await stage.book.add_member("o", actor)
    await stage.book.delete_user(actor)


async def delete_organization(stage: Stage) -> None:
    name = stage.new("gone")
    await stage.book.put_organization(name, owner=f"boss of {name}")
    await stage.book.delete_organization(name)


async def grant(stage: Stage) -> None:
    await stage.book.grant_credit("organization:o", amount="1", grant_id=stage.new("g"))


async def fold(stage: Stage) -> None:
    await use(stage.book, "o1", "1", stage.new("k"))
    await stage.book.compact()


Verb = Callable[[Stage], Awaitable[None]]
VERBS: tuple[Verb, ...] = (
    record, total, correct, hold, settle, bill, close, sweep, join_and_leave, change_seats, end_and_renew, transfer, pass_the_clock,
    delete_user, delete_organization, grant, fold,
)  # fmt: skip


async def locked_before(probe: Connection, stage: Stage, held: str, verb: Verb) -> set[str]:
    """Tables of which the verb had locked rows whenever it had to wait for one that `held` holds."""
    found: set[str] = set()
    task: asyncio.Future[None] | None = None
    while task is None or not task.done():
        async with connected(stage.url) as holder:
            await holder.execute(held.encode())
            task = task or asyncio.ensure_future(verb(stage))
            if await waits(probe, holder, task):
                found |= {table for table in ORDER if await is_locked(probe, table)}
        await asyncio.sleep(0)
    await task
    return found


async def waits(probe: Connection, holder: Connection, task: "asyncio.Future[None]") -> bool:
    """Whether the verb comes to wait for the holder; not, if it ends before."""
    while not task.done():
        result = await probe.execute(WAITS, [holder.info.backend_pid])
        if await result.fetchone():
            return True
        await asyncio.sleep(0.002)
    return False


async def is_locked(probe: Connection, table: str) -> bool:
    """Whether some row can't be locked now."""
    counts = [await (await probe.execute(said.format(table).encode())).fetchone() for said in (FREE, ALL)]
    return counts[0] != counts[1]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
async def test_locks_are_taken_in_the_published_order(book: Book, clock: Clock, database_url: str, verb: Verb) -> None:
    """For each table: whoever waits for a row of it has locked no row of a later one; whoever waits for the fold has locked none at all."""
    stage = await staged(book, clock, database_url)
    wrong: list[str] = []
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as probe:
        if found := await locked_before(probe, stage, FOLD, verb):
            wrong.append(f"{sorted(found)} before the fold's lock")
        for place, table in enumerate(ORDER):
            found = await locked_before(probe, stage, f"select from meterbook.{table} for update", verb)
            wrong += [f"{earlier} before {table}" for earlier in ORDER[place + 1 :] if earlier in found]
    assert wrong == []
    assert query(database_url, "select deadlocks from pg_stat_database where datname = current_database()") == [(0,)]


async def test_the_look_sees_locks(book: Book, clock: Clock, database_url: str) -> None:
    """A transaction that takes the gate and then the period is found out."""
    stage = await staged(book, clock, database_url)

    async def backwards(_: Stage) -> None:
        async with connected(database_url) as conn:
            await conn.execute("select from meterbook.hold_gate for update")
            await conn.execute("select from meterbook.billing_period for update")

    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as probe:
        found = await locked_before(probe, stage, "select from meterbook.billing_period for update", backwards)
    assert found == {"hold_gate", "billing_period"}


def test_the_order_is_published(root: Path) -> None:
    """The ADR says it in these words."""
    said = " → ".join(["the fold's advisory lock", *(f"`{table}`" for table in ORDER)])
    assert said in (root / "docs/decisions/0013-billing-under-the-period-lock.md").read_text()
