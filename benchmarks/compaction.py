"""Folding deltas into every grain over 2 000 Zipf entities, against the rate at which the same stream comes in."""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from time import perf_counter

import meterbook
from benchmarks.bulk import meet_everybody
from benchmarks.measuring import Figure, Turn, take_turns
from benchmarks.options import Options
from benchmarks.server import Server
from benchmarks.workload import Event, events, zipf
from benchmarks.writing import record_by_callers

EVENTS = 60_000
EVENTS_QUICK = 4_000
BATCH = 1_000
CALLERS = 64


async def measure(server: Server, options: Options) -> list[Figure]:
    count = EVENTS_QUICK if options.quick else EVENTS
    async with meterbook.open(server.database("compaction")) as book:
        await meet_everybody(book)
        stream = events("compaction", zipf())
        turns: list[Turn] = [partial(_batches, book, stream, count), partial(_callers, book, stream, count)]
        return await take_turns(options.rounds, turns, "events/s")


async def _batches(book: meterbook.Book, stream: Iterator[Event], count: int) -> dict[str, float]:
    batches = [[event.usage() for event in islice(stream, BATCH)] for _ in range(count // BATCH)]
    started = perf_counter()
    for batch in batches:
        await book.record_many(batch)
    return {"compaction/batches/ingest": count / (perf_counter() - started)} | await _fold(book, "batches", count)


async def _callers(book: meterbook.Book, stream: Iterator[Event], count: int) -> dict[str, float]:
    """Small groups leave about one delta an event: the most that a fold can have to do."""
    given = list(islice(stream, count))
    started = perf_counter()
    await record_by_callers(book, given, CALLERS)
    return {"compaction/callers/ingest": count / (perf_counter() - started)} | await _fold(book, "callers", count)


async def _fold(book: meterbook.Book, name: str, count: int) -> dict[str, float]:
    """With the vacuum that follows."""
    started = perf_counter()
    compacted = await book.compact()
    seconds = perf_counter() - started
    return {f"compaction/{name}/fold": count / seconds, f"compaction/{name}/deltas folded": compacted.deltas / seconds}
