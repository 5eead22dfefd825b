"""A crash anywhere in a step loses nothing and doubles nothing: the same command goes on, and ends where it would have ended."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import psycopg

import meterbook
from meterbook import Book
from meterbook.book.cutover import Cutover
from meterbook.errors import Unavailable
from meterbook.mappings import load_mapping
from tests.cli.commands import ON_ONE_SERVER, PROGRAM, Program
from tests.conftest import Clock
from tests.cutover.auditor import expected, tables
from tests.ledger import P1, query, use
from tests.legacy_product.history import random_product

ORIGIN = load_mapping()
NOW = P1[0] + timedelta(days=17, hours=5)
CRASHES = 6
_KILL = (
    b"select count(pg_terminate_backend(l.pid)) from pg_locks l where l.locktype = 'advisory' and l.classid = 5067 and l.objid = 13"
    b" and l.database = (select d.oid from pg_database d where d.datname = current_database())"
)


async def crashing(
    url: str, clock: Clock, rng: random.Random, work: Callable[[Book, Cutover], Awaitable[object]]
) -> int:
    """Does the work until it ends; its connection is killed as soon as it has begun, then at any moment. Gives how often."""
    crashes = 0
    for attempt in range(100):
        stop, ready, delay_s = threading.Event(), threading.Event(), rng.uniform(0.0, 0.25) if attempt else 0.0
        killer = threading.Thread(target=_kill, args=(url, delay_s, ready, stop))
        try:
            async with meterbook.open(url, clock=clock) as book, book.cutover(ORIGIN) as cutover:
                if attempt < CRASHES:
                    killer.start()
                    ready.wait()
                await work(book, cutover)
                return crashes
        except (Unavailable, psycopg.OperationalError):
            crashes += 1
        finally:
            stop.set()
            if killer.is_alive():
                killer.join()
    raise AssertionError(crashes)


def _kill(url: str, delay_s: float, ready: threading.Event, stop: threading.Event) -> None:
    """After a moment, whoever runs a step of the cutover."""
    with psycopg.connect(url, autocommit=True) as conn:
        ready.set()
        time.sleep(delay_s)
        while not stop.is_set():
            row = conn.execute(_KILL).fetchone()
            if row is not None and row[0]:
                return


async def test_killed_in_each_step_the_cutover_ends_where_it_would_have(
    legacy_url: str, clock: Clock, seed: int
) -> None:
    """Shadow, switch, history, absorbing and rollback, killed several times: every baseline is the auditor's, every table as it was."""
    rng = random.Random(seed)
    clock.now = NOW
    random_product(seed, NOW, people=24, organizations=3).write(legacy_url)
    before = tables(legacy_url)

    async def shadow(_: Book, cutover: Cutover) -> None:
        assert (await cutover.shadow()).refused == 0

    async def switch(_: Book, cutover: Cutover) -> None:
        assert {one.outcome async for one in cutover.switch()} <= {"switched", "before"}

    async def history(_: Book, cutover: Cutover) -> None:
        await cutover.import_history()

    async def absorb(_: Book, cutover: Cutover) -> None:
        await cutover.absorb()
        assert (await cutover.absorb()).waiting == 0

    async def roll_back(_: Book, cutover: Cutover) -> None:
        assert {one.outcome async for one in cutover.roll_back()} <= {"rolled_back", "before"}

    crashes = [await crashing(legacy_url, clock, rng, shadow), await crashing(legacy_url, clock, rng, switch)]
    query(legacy_url, "update public.user_stats set current_period_cost = current_period_cost + 0.25")
    crashes += [await crashing(legacy_url, clock, rng, history), await crashing(legacy_url, clock, rng, absorb)]
    users = [row[0] for row in query(legacy_url, "select user_id from public.user_stats")]
    async with meterbook.open(legacy_url, clock=clock) as book, book.cutover(ORIGIN) as cutover:
        assert await cutover.verify() == []
        assert await book.verify() == []
        late = await cutover.lateness()
        assert (late.moved, late.absorbed) == (Decimal("0.25") * len(users), Decimal("0.25") * len(users))
        query(legacy_url, "update public.user_stats set current_period_cost = current_period_cost - 0.25")
        for entity, wanted in expected(legacy_url, NOW).items():
            assert (entity, (await book.usage(entity)).baseline) == (entity, wanted.baseline)
        for user in users:
            await use(book, user, "0.125")
    crashes.append(await crashing(legacy_url, clock, rng, roll_back))
    query(legacy_url, "update public.user_stats set current_period_cost = current_period_cost - 0.125")
    after = tables(legacy_url)
    assert {name: rows for name, rows in after.items() if name != "user_stats"} == {
        name: rows for name, rows in before.items() if name != "user_stats"
    }
    assert _values(after["user_stats"]) == _values(before["user_stats"])
    assert min(crashes) >= 1


def _values(rows: bytes) -> list[list[str | Decimal]]:
    """Numbers by value: 1.50 and 1.500 are the same money."""
    return [[_value(cell) for cell in row.split("\t")] for row in rows.decode().splitlines()]


def _value(cell: str) -> str | Decimal:
    return Decimal(cell) if cell.replace(".", "").isdigit() else cell


@ON_ONE_SERVER
def test_a_killed_command_lets_go_and_goes_on(legacy_url: str, tmp_path: Path) -> None:
    """kill -9 of `shadow`: the next one is not kept out, and finishes."""
    random_product(3, NOW, people=60, organizations=3).write(legacy_url)
    program = Program(legacy_url, tmp_path)
    killed = subprocess.Popen(
        [*PROGRAM, "cutover", "shadow"], cwd=tmp_path, env=program.environment(), stdout=sys.stderr, stderr=sys.stderr
    )
    for _ in range(400):
        if query(legacy_url, "select count(*) from meterbook.cutover_mirror")[0][0]:
            break
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    done = program("cutover", "shadow", "--agree-for", "0", "--every", "0.2", "--rounds", "20", "--json")
    assert (done.code, done.data["round"]["differing"], done.data["refused"]) == (0, 0, [])
    assert program("cutover", "switch").code == 0
    assert program("cutover", "verify").code == 0
