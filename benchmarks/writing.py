"""Many callers, each waiting for its own event to be durable: events a second, all callers together."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice
from time import perf_counter

import psycopg

import meterbook
import meterbook.sync
from benchmarks.baselines import COUNTER, ORIGIN, Baseline, arguments
from benchmarks.measuring import Figure, Turn, take_turns
from benchmarks.options import Options
from benchmarks.server import Server
from benchmarks.workload import Event, events, hot, spread_over

SECONDS = 2.0
SECONDS_QUICK = 0.3
ENTITIES = 1_000
SPREADS: dict[str, Callable[[random.Random], int]] = {"hot": hot, f"{ENTITIES} entities": spread_over(ENTITIES)}
CALLERS = (16, 64, 256)
THREADS = (16, 64)
EVENTS_PER_SECOND_MAX = 40_000
"""Made before the clock starts: no contender pays for making events."""

Write = Callable[[Event], Awaitable[object]]


async def measure(server: Server, options: Options) -> list[Figure]:
    seconds = SECONDS_QUICK if options.quick else SECONDS
    figures: list[Figure] = []
    for callers in CALLERS:
        figures += await _of_callers(server, callers, seconds, options.rounds)
    return figures


async def _of_callers(server: Server, callers: int, seconds: float, rounds: int) -> list[Figure]:
    async with AsyncExitStack() as stack:
        turns: list[Turn] = []
        for spread, choose in SPREADS.items():
            name = f"writing/{callers}/{spread}"
            stream = events(name, choose)
            book = await stack.enter_async_context(meterbook.open(server.database("writing")))
            await _meet_everybody(book)
            turns.append(partial(_coalesced, f"{name}/meterbook", book, stream, callers, seconds))
            for baseline in (ORIGIN, COUNTER) if spread == "hot" else (ORIGIN,):
                url = server.database(baseline.name.replace(" ", "_"), migrated=False)
                baseline.make(url)
                turns.append(partial(_each_alone, f"{name}/{baseline.name}", baseline, url, stream, callers, seconds))
            if callers in THREADS:
                threads = stack.enter_context(meterbook.sync.open(server.database("writing")))
                turns.append(partial(_threads, f"{name}/meterbook threads", threads, stream, callers, seconds))
        return await take_turns(rounds, turns, "events/s")


async def _meet_everybody(book: meterbook.Book) -> None:
    """First contact decides who pays, once; the rate is that of every later event."""
    everybody = zip(events("everybody", hot), range(ENTITIES), strict=False)
    await book.record_many([
        meterbook.Usage(f"user_{n}", event.source, event.model, event.amount, event_key=event.key)
        for event, n in everybody
    ])  # fmt: skip


async def _coalesced(
    name: str, book: meterbook.Book, stream: Iterator[Event], callers: int, seconds: float
) -> dict[str, float]:
    rate = await _rate([partial(_record, book)] * callers, stream, seconds)
    await book.compact()
    return {name: rate}


async def _record(book: meterbook.Book, event: Event) -> None:
    await book.record(
        event.actor, source=event.source, description=event.model, amount=event.amount, event_key=event.key
    )


async def record_by_callers(book: meterbook.Book, given: list[Event], callers: int) -> None:
    """Each caller hands in the next event when its last one is durable."""
    left = iter(given)

    async def call() -> None:
        for event in left:
            await _record(book, event)

    await asyncio.gather(*(call() for _ in range(callers)))


async def _each_alone(
    name: str, baseline: Baseline, url: str, stream: Iterator[Event], callers: int, seconds: float
) -> dict[str, float]:
    """A connection a caller, made and warm before the clock starts."""
    async with AsyncExitStack() as stack:
        writers: list[Write] = []
        for event in islice(stream, callers):
            conn = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)
            stack.push_async_callback(conn.close)
            writers.append(partial(_insert, conn, baseline))
            await writers[-1](event)
        return {name: await _rate(writers, stream, seconds)}


async def _insert(conn: psycopg.AsyncConnection, baseline: Baseline, event: Event) -> None:
    await conn.execute(baseline.insert, arguments(event))


async def _rate(writers: list[Write], stream: Iterator[Event], seconds: float) -> float:
    """Each caller hands in the next event when its last one is durable."""
    given = iter(list(islice(stream, int(EVENTS_PER_SECOND_MAX * seconds))))
    started = perf_counter()
    until = started + seconds

    async def call(write: Write) -> int:
        count = 0
        while perf_counter() < until:
            await write(next(given))
            count += 1
        return count

    written = sum(await asyncio.gather(*map(call, writers)))
    return written / (perf_counter() - started)


async def _threads(
    name: str, book: meterbook.sync.Book, stream: Iterator[Event], callers: int, seconds: float
) -> dict[str, float]:
    given = iter(list(islice(stream, int(EVENTS_PER_SECOND_MAX * seconds))))
    started = perf_counter()
    until = started + seconds

    def call() -> int:
        count = 0
        while perf_counter() < until:
            event = next(given)
            book.record(
                event.actor, source=event.source, description=event.model, amount=event.amount, event_key=event.key
            )
            count += 1
        return count

    with ThreadPoolExecutor(callers) as pool:
        written = sum(future.result() for future in [pool.submit(call) for _ in range(callers)])
    rate = written / (perf_counter() - started)
    book.compact()
    return {name: rate}
