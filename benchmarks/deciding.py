"""What decides about money by the clock or before work begins: a check beside a bare round trip, closes, and the sweep of thresholds."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from time import perf_counter

import psycopg

import meterbook
from benchmarks.measuring import Figure, Turn, quantile, take_turns
from benchmarks.options import Options
from benchmarks.reading import SQL as READING
from benchmarks.server import Server

SIZES = (1_000, 100_000)
SIZES_QUICK = (100, 1_000)
ENTRIES_PER_CALL = 10_000
CHECKS = 400
CHECKS_QUICK = 20
PERIODS = 200
PERIODS_QUICK = 5
ENTRIES_TO_CLOSE = (1, 200)
"""Of each period, folded when it is closed: what a close costs must not depend on them."""
CROWDS = (200, 2_000)
CROWDS_QUICK = (20, 40)
MOVED = 20


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


async def measure(server: Server, options: Options) -> list[Figure]:
    return [
        *await _checks(server, options),
        *await _closes(server, PERIODS_QUICK if options.quick else PERIODS, options.rounds),
        *await _sweeps(server, options),
    ]


# A check


async def _checks(server: Server, options: Options) -> list[Figure]:
    sizes, checks = (SIZES_QUICK, CHECKS_QUICK) if options.quick else (SIZES, CHECKS)
    url = server.database("checks")
    async with (
        meterbook.open(url, connections_max=1) as book,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as conn,
    ):
        for size in sizes:
            await _fill(book, conn, size)
        await conn.execute(READING["settle_tables"])
        turn = partial(_check, book, sizes, checks)
        await turn()
        return await take_turns(options.rounds, [turn], "µs")


async def _fill(book: meterbook.Book, conn: psycopg.AsyncConnection, size: int) -> None:
    """A subscriber with so many entries, folded; a few of the last ones wait, as they would."""
    actor, now = f"checker_{size}", datetime.now(UTC)
    await subscribe(book, f"user:{actor}", now - timedelta(days=29), now + timedelta(days=1))
    await book.resolve(actor)
    for first in range(1, size + 1, ENTRIES_PER_CALL):
        last = min(size, first + ENTRIES_PER_CALL - 1)
        await conn.execute(READING["record_entries"], {"actor": actor, "first": first, "last": last})
    await book.compact()
    for n in range(10):
        await book.record(actor, source="s", description="d", amount="0.001", event_key=f"{actor} waits {n}")


async def subscribe(
    book: meterbook.Book, owner: str, starts_at: datetime, ends_at: datetime, *, cancel_at_period_end: bool = False
) -> None:
    await book.put_subscription(
        id=f"sub {owner}", owner=owner, plan="pro_25000", status="active", starts_at=starts_at, ends_at=ends_at,
        stripe_customer=f"cus {owner}", stripe_subscription=f"sub {owner}", cancel_at_period_end=cancel_at_period_end,
    )  # fmt: skip


async def _check(book: meterbook.Book, sizes: tuple[int, ...], checks: int) -> dict[str, float]:
    """A bare round trip on the book's one connection, and a check of each size, in turn, call by call."""
    bare: list[float] = []
    seen: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(checks):
        async with book._pool.connection() as conn:  # noqa: SLF001  taken and given back outside of what is timed
            started = perf_counter()
            await (await conn.execute("select 1")).fetchone()
            bare.append(perf_counter() - started)
        for size in sizes:
            started = perf_counter()
            await book.check(f"checker_{size}")
            seen[size].append(perf_counter() - started)
    figures = {"select 1": bare} | {f"check at {size} entries": times for size, times in seen.items()}
    return {
        f"deciding/{name}/{what}": quantile(times, share) * 1e6
        for name, times in figures.items()
        for what, share in (("p50", 0.5), ("p99", 0.99))
    }


# Closes


async def _closes(server: Server, periods: int, rounds: int) -> list[Figure]:
    """Subscriptions whose month has ended, with overage to charge; few and many entries take turns, each turn a month of the clock."""
    clock = Clock(datetime(2026, 6, 1, tzinfo=UTC))
    async with meterbook.open(server.database("closes"), clock=clock) as book:
        turns: list[Turn] = [partial(_close, book, clock, entries, periods) for entries in ENTRIES_TO_CLOSE]
        return await take_turns(rounds, turns, "periods/s")


async def _close(book: meterbook.Book, clock: Clock, entries: int, periods: int) -> dict[str, float]:
    """Nothing but the closes is due when the clock starts: the end itself was passed by an earlier sweep, within the grace."""
    start = clock.now
    end = (start + timedelta(days=32)).replace(day=1)
    owners = [f"closer {start:%Y-%m} {n}" for n in range(periods)]
    for owner in owners:
        await subscribe(book, f"user:{owner}", start, end, cancel_at_period_end=True)
    clock.now = start + timedelta(days=1)
    for n in range(entries):
        amount = Decimal(150) / entries
        await book.record_many([
            meterbook.Usage(owner, "s", "d", amount, event_key=f"{owner} {n}") for owner in owners
        ])  # fmt: skip
    clock.now = end
    await book.sweep()
    clock.now = end + timedelta(hours=2)
    started = perf_counter()
    swept = await book.sweep()
    seconds = perf_counter() - started
    if swept.closed != periods or swept.failed:
        raise RuntimeError(f"{swept.closed} of {periods} periods were closed: {swept.failed}")
    clock.now = end
    return {f"deciding/closes at {entries} entries": periods / seconds}


# Sweeps


async def _sweeps(server: Server, options: Options) -> list[Figure]:
    """As many entities moved, among few and among many that did not."""
    crowds = CROWDS_QUICK if options.quick else CROWDS
    async with AsyncExitStack() as stack:
        turns: list[Turn] = []
        for crowd in crowds:
            book = await stack.enter_async_context(meterbook.open(server.database("sweeps")))
            now = datetime.now(UTC)
            for n in range(crowd):
                await subscribe(book, f"user:u{n}", now - timedelta(days=3), now + timedelta(days=27))
            await _move(book, crowd, "all")
            await book.sweep()
            turns.append(partial(_sweep, book, crowd, count()))
        return await take_turns(options.rounds, turns, "ms")


async def _move(book: meterbook.Book, entities: int, name: str) -> None:
    await book.record_many([
        meterbook.Usage(f"u{n}", "s", "d", "0.01", event_key=f"{name} {n}") for n in range(entities)
    ])  # fmt: skip


async def _sweep(book: meterbook.Book, crowd: int, turns: Iterator[int]) -> dict[str, float]:
    figures = {}
    for moved in (0, MOVED):
        await _move(book, moved, f"moved {next(turns)}")
        await book.compact()
        started = perf_counter()
        await book.sweep()
        figures[f"deciding/sweep, {moved} of {crowd} moved"] = (perf_counter() - started) * 1e3
    return figures
