"""What one period of an entity used, at 10³ … 10⁶ entries: `usage` with all its grains, against the origin's SUM of one figure."""

from functools import partial
from time import perf_counter

import psycopg

import meterbook
from benchmarks.baselines import ORIGIN
from benchmarks.baselines import SQL as BASELINES
from benchmarks.measuring import Figure, Turn, quantile, take_turns
from benchmarks.options import Options
from benchmarks.server import Server
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
SIZES_QUICK = (1_000, 10_000)
READS = 400
SUMS_S = 1.0
"""A SUM is repeated for as long, three times at least."""
ENTRIES_PER_CALL = 10_000


async def measure(server: Server, options: Options) -> list[Figure]:
    sizes = SIZES_QUICK if options.quick else SIZES
    url = server.database("reading")
    plain, covered = (server.database("reading_origin", migrated=False) for _ in range(2))
    for origin in (plain, covered):
        ORIGIN.make(origin)
        _execute(origin, BASELINES["cover_origin"] if origin is covered else "select 1")
    async with (
        meterbook.open(url) as book,
        await psycopg.AsyncConnection.connect(plain, autocommit=True) as summing,
        await psycopg.AsyncConnection.connect(covered, autocommit=True) as summing_covered,
    ):
        for size in sizes:
            await _fill(book, url, [plain, covered], size)
        for each in (url, plain, covered):
            _execute(each, SQL["settle_tables"])
        turns: list[Turn] = [partial(_read, book, sizes)]
        for size in sizes:
            turns.append(partial(_sum, "origin", summing, size))
            turns.append(partial(_sum, "origin covered", summing_covered, size))
        return await take_turns(options.rounds, turns, "ms")


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(statement.encode())


async def _fill(book: meterbook.Book, url: str, origins: list[str], size: int) -> None:
    actor = f"reader_{size}"
    await book.usage(f"user:{actor}")
    await book.resolve(actor)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        for first in range(1, size + 1, ENTRIES_PER_CALL):
            last = min(size, first + ENTRIES_PER_CALL - 1)
            await conn.execute(SQL["record_entries"], {"actor": actor, "first": first, "last": last})
    await book.compact()
    for origin in origins:
        async with await psycopg.AsyncConnection.connect(origin, autocommit=True) as conn:
            await conn.execute(SQL["fill_origin"], {"user": actor, "entries": size})
    used = await book.usage(f"user:{actor}")
    if used.count != size:
        raise RuntimeError(f"{used.count} of {size} entries were filled in")


async def _read(book: meterbook.Book, sizes: tuple[int, ...]) -> dict[str, float]:
    """The sizes take turns call by call."""
    seen: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(READS):
        for size in sizes:
            started = perf_counter()
            await book.usage(f"user:reader_{size}")
            seen[size].append(perf_counter() - started)
    return {
        f"reading/{size}/meterbook/{name}": quantile(times, share) * 1e3
        for size, times in seen.items()
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


async def _sum(name: str, conn: psycopg.AsyncConnection, size: int) -> dict[str, float]:
    times: list[float] = []
    until = perf_counter() + SUMS_S
    while perf_counter() < until or len(times) < 3:
        started = perf_counter()
        cursor = await conn.execute(BASELINES["sum_origin"], {"user": f"reader_{size}"})
        await cursor.fetchone()
        times.append(perf_counter() - started)
    return {
        f"reading/{size}/{name}/p50": quantile(times, 0.5) * 1e3,
        f"reading/{size}/{name}/p99": quantile(times, 0.99) * 1e3,
    }
