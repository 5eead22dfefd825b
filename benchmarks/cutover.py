"""No stall: how long writers of a legacy product wait while it goes from its counters to the ledger, and back (BEHAVIOUR §13).

64 connections of pgbench update a counter and insert an audit row in one transaction throughout. Their latencies come from pgbench's own
log: undisturbed first, then in each step. Beside that, whether a writer is ever found waiting for a lock that no other writer holds.
"""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from time import time

import psycopg

import meterbook
from benchmarks.measuring import Figure, quantile
from benchmarks.options import Options
from benchmarks.server import Server
from meterbook.book import Book
from meterbook.book.cutover import Cutover
from meterbook.mappings import load_mapping
from meterbook.postgres.embedded.binaries import find_binaries
from meterbook.postgres.statements import statements_beside
from tests.legacy_product.history import SCHEMA

SQL = statements_beside(__file__)
ROWS = int(os.environ.get("METERBOOK_BENCH_AUDIT_ROWS", "5000000"))
USERS, USERS_QUICK, ROWS_QUICK = 5_000, 400, 20_000
WRITERS, WRITERS_QUICK = 64, 8
RATE = 400
"""Charges a second: a busy product that its server is up to, so that a wait is somebody's doing and no queue."""
ALONE_S, ROLLOUT_S, HISTORY_S = 20, 15, 30
OWN = 200
"""Users of whom the ledger alone has something, so that the rollback writes to their rows."""
ROWS_PER_PAGE = 250_000
SAMPLE_S = 0.02
LOGGED_FIELDS = 7
_CHARGE = """\\set u random_zipfian(0, {last}, 1.05)
begin;
update public.user_stats set current_period_cost = current_period_cost + 0.001 where user_id = 'user_' || :u;
insert into public.usage_log (id, user_id, category, source, description, cost, created_at)
  values (gen_random_uuid(), 'user_' || :u, 'model', 'workflow', 'gpt-4o', 0.001, clock_timestamp() at time zone 'UTC');
commit;
"""


@dataclass(slots=True)
class _Seen:
    """`phases`: name → from, until. `latencies`: end of each charge, milliseconds. `slow`: what a writer of 50 ms was found waiting for."""

    phases: dict[str, tuple[float, float]] = field(default_factory=dict)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    blocked: int = 0
    samples: int = 0
    slow: Counter[str] = field(default_factory=Counter)
    difference: Decimal = Decimal(0)
    rows: int = 0


async def measure(server: Server, options: Options) -> list[Figure]:
    users, rows, writers = (USERS_QUICK, ROWS_QUICK, WRITERS_QUICK) if options.quick else (USERS, ROWS, WRITERS)
    url, seen = server.database("cutover"), _Seen()
    _build(url, users, rows)
    async with meterbook.open(url) as book, book.cutover(load_mapping()) as cutover:
        async with _writing(url, users, writers, seen):
            await _steps(book, cutover, seen, options)
        while (await cutover.shadow()).differing:
            pass
        seen.difference = _difference(url)
    return _figures(seen, rows, writers)


def _build(url: str, users: int, rows: int) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    said = {"users": users, "now": now, "starts": now - timedelta(days=20), "ends": now + timedelta(days=10)}
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(SCHEMA.read_bytes())
        for name in ("fill", "fill_members", "fill_subscriptions"):
            conn.execute(SQL[name], said)
        for first in range(1, rows + 1, ROWS_PER_PAGE):
            conn.execute(SQL["fill_rows"], said | {"first": first, "last": min(first + ROWS_PER_PAGE - 1, rows)})
        conn.execute(SQL["fill_counters"], said)
        conn.execute(SQL["settle"])


async def _steps(book: Book, cutover: Cutover, seen: _Seen, options: Options) -> None:
    async def rounds(number: int) -> None:
        for _ in range(number):
            seen.rows += (await cutover.shadow()).rows
            await asyncio.sleep(1)

    async def switch() -> None:
        done = [one async for one in cutover.switch(despite_differences=True)]
        if any(one.outcome == "refused" for one in done):
            raise RuntimeError(done)

    async def absorb(times: int) -> None:
        for _ in range(times):
            await cutover.absorb()
            await asyncio.sleep(1)

    await _phase(seen, "undisturbed", asyncio.sleep(2 if options.quick else ALONE_S))
    await _phase(seen, "plan", _plan(cutover))
    await _phase(seen, "first round of shadow", rounds(1))
    await _phase(seen, "later rounds", rounds(3))
    await _phase(seen, "switch", switch())
    await _phase(seen, "absorb", absorb(2 if options.quick else ROLLOUT_S))
    await _phase(seen, "verify", _verify(cutover))
    await _phase(seen, "history", _import_history(book))
    await _phase(seen, "trigger, put and taken away", _put_trigger(cutover))
    await _record_here(book, USERS_QUICK if options.quick else USERS)
    await _phase(seen, "rollback", _roll_back(cutover))


async def _put_trigger(cutover: Cutover) -> None:
    await cutover.put_trigger()
    await cutover.absorb()
    await cutover.put_trigger(stands=False)


async def _verify(cutover: Cutover) -> None:
    if unsound := await cutover.verify():
        raise RuntimeError(unsound)


async def _import_history(book: Book) -> None:
    """For so long only: it goes through every audit row of the past, page by page alike, and goes on where it stopped."""
    async with book.cutover(load_mapping()) as cutover:
        with suppress(TimeoutError):
            await asyncio.wait_for(cutover.import_history(), HISTORY_S)


async def _roll_back(cutover: Cutover) -> None:
    if [one async for one in cutover.roll_back() if one.outcome == "refused"]:
        raise RuntimeError("a rollback was refused")


async def _record_here(book: Book, users: int) -> None:
    for number in range(0, users, users // OWN):
        await book.record(
            f"user_{number}", source="workflow", description="gpt-4o", amount="0.001", execution=f"own_{number}"
        )


async def _plan(cutover: Cutover) -> None:
    async for _ in cutover.plan():
        pass


async def _phase(seen: _Seen, name: str, work: Awaitable[None]) -> None:
    began = time()
    await work
    seen.phases[name] = (began, time())


@asynccontextmanager
async def _writing(url: str, users: int, writers: int, seen: _Seen) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "charge.sql"
        script.write_text(_CHARGE.format(last=users - 1))
        program = find_binaries(None).folder / "pgbench"
        command = [
            str(program), "--no-vacuum", f"--client={writers}", "--jobs=2", "--time=86400", f"--rate={RATE}", f"--file={script}",
            "--log", f"--log-prefix={folder}/log", url,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command,
            env=os.environ | {"PGAPPNAME": "writer"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        watching = asyncio.create_task(_watch(url, seen))
        await asyncio.sleep(2)
        try:
            yield
        finally:
            process.terminate()
            await process.wait()
            watching.cancel()
        seen.latencies += _charges(Path(folder))


def _charges(folder: Path) -> list[tuple[float, float]]:
    lines = [line for log in folder.glob("log.*") for line in log.read_text().splitlines()]
    return [_charge(line) for line in lines if len(line.split()) >= LOGGED_FIELDS]


def _charge(line: str) -> tuple[float, float]:
    """pgbench logs client, transaction, latency µs, script, seconds, µs, lag µs; the lag, in the latency too, is the queue for a client."""
    parts = line.split()
    return int(parts[4]) + int(parts[5]) / 1e6, (int(parts[2]) - int(parts[6])) / 1e3


async def _watch(url: str, seen: _Seen) -> None:
    """How often a writer is found waiting for a lock of somebody who is no writer; and what slow ones wait for."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        while True:
            row = await (await conn.execute(SQL["blocked"])).fetchone()
            seen.samples += 1
            seen.blocked += bool(row and row[0])
            seen.slow.update(dict(await (await conn.execute(SQL["slow"])).fetchall()))
            await asyncio.sleep(SAMPLE_S)


def _difference(url: str) -> Decimal:
    with psycopg.connect(url) as conn:
        (counters,), (ledger,) = (conn.execute(SQL[name]).fetchone() or (0,) for name in ("sum_counters", "sum_ledger"))
    return Decimal(counters) - Decimal(ledger)


def _figures(seen: _Seen, rows: int, writers: int) -> list[Figure]:
    figures = [
        Figure("cutover/audit rows", "rows", (rows,)),
        Figure("cutover/writers", "connections", (writers,)),
        Figure("cutover/charges", "charges", (len(seen.latencies),)),
        Figure("cutover/rows fed", "rows", (seen.rows,)),
        Figure("cutover/a writer found waiting for the cutover", f"of {seen.samples} samples", (seen.blocked,)),
        Figure("cutover/counters − ledger at the end", "", (float(seen.difference),)),
    ]
    figures += [
        Figure(f"cutover/a writer of 50 ms waits for {event}", "writers seen", (n,))
        for event, n in seen.slow.most_common()
    ]
    for name, (began, ended) in seen.phases.items():
        found = [ms for at, ms in seen.latencies if began <= at < ended] or [0.0]
        figures += [
            Figure(f"cutover/{name}/took", "s", (ended - began,)),
            Figure(f"cutover/{name}/writers p99", "ms", (quantile(found, 0.99),)),
            Figure(f"cutover/{name}/longest wait", "ms", (max(found),)),
        ]
    return figures
