"""Full ingest over 2 000 Zipf entities with a compactor beside it: how large usage_delta gets, and what reading costs meanwhile.

Then, shorter, the same with a writing transaction held open, which keeps every consumed delta from being vacuumed.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter

import psycopg

import meterbook
from benchmarks.bulk import meet_everybody
from benchmarks.measuring import Figure, quantile
from benchmarks.options import Options
from benchmarks.server import Server
from benchmarks.workload import ZIPF_ENTITIES
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
SECONDS_QUICK = 3
HELD_S = 60
COMPACT_EVERY_S = 0.2
SAMPLE_S = 0.5
ENTITIES_READ = ("user:user_0", f"user:user_{ZIPF_ENTITIES - 1}")
"""The one that is used most, and the rarest."""


@dataclass(slots=True)
class _Seen:
    events: int = 0
    megabytes: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    reads_ms: list[float] = field(default_factory=list)


async def measure(server: Server, options: Options) -> list[Figure]:
    seconds = SECONDS_QUICK if options.quick else options.soak_s
    held_s = min(seconds, HELD_S)
    url = server.database("soak")
    async with meterbook.open(url) as book:
        await meet_everybody(book)
        seen = await _watch(book, url, seconds, seed=1)
        await book.compact()
        async with _held_open(book, url):
            seen_held = await _watch(book, url, held_s, seed=2)
    return [*_figures("soak/free", seen, seconds), *_figures("soak/held open", seen_held, held_s)]


@asynccontextmanager
async def _held_open(book: meterbook.Book, url: str) -> AsyncIterator[None]:
    """A transaction that has written, and then does nothing."""
    async with await psycopg.AsyncConnection.connect(url) as conn:
        await book.record("user_0", source="held", description="open", amount="1", event_key="held open", conn=conn)
        yield
        await conn.rollback()


async def _watch(book: meterbook.Book, url: str, seconds: int, seed: int) -> _Seen:
    seen = _Seen()
    writing = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.ingest", url, str(seconds), str(seed), stdout=asyncio.subprocess.PIPE
    )
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn, asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(_compact(book)), tasks.create_task(_sample(book, conn, seen))]
        output, _ = await writing.communicate()
        for task in beside:
            task.cancel()
    if writing.returncode:
        raise RuntimeError("the ingesting process has failed")
    seen.events = int(output)
    return seen


async def _compact(book: meterbook.Book) -> None:
    while True:
        await book.compact()
        await asyncio.sleep(COMPACT_EVERY_S)


async def _sample(book: meterbook.Book, conn: psycopg.AsyncConnection, seen: _Seen) -> None:
    for n in count():
        started = perf_counter()
        await book.usage(ENTITIES_READ[n % len(ENTITIES_READ)])
        seen.reads_ms.append((perf_counter() - started) * 1e3)
        if n % 10 == 0:
            row = await (await conn.execute(SQL["delta_size"])).fetchone()
            assert row is not None  # noqa: S101  aggregates give a row
            seen.megabytes.append(row[0] / 1e6)
            seen.waiting.append(row[1])
        await asyncio.sleep(SAMPLE_S / 10)


def _figures(name: str, seen: _Seen, seconds: int) -> list[Figure]:
    return [
        Figure(f"{name}/time", "s", (seconds,)),
        Figure(f"{name}/ingest", "events/s", (seen.events / seconds,)),
        Figure(f"{name}/usage_delta at most", "MB", (max(seen.megabytes),)),
        Figure(f"{name}/deltas waiting at most", "deltas", (max(seen.waiting),)),
        Figure(f"{name}/usage p50", "ms", (quantile(seen.reads_ms, 0.5),)),
        Figure(f"{name}/usage p99", "ms", (quantile(seen.reads_ms, 0.99),)),
    ]
