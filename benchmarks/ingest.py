"""A process that records as much as it can: `python -m benchmarks.ingest URL SECONDS SEED`. Prints how many events."""

import asyncio
import sys
from collections.abc import Iterator
from itertools import islice
from time import perf_counter

import meterbook
from benchmarks.workload import Event, events, zipf

BATCH = 1_000
WRITERS = 2
"""One batch is made and checked here while the other is in the server."""


async def ingest(url: str, seconds: int, seed: int) -> int:
    until = perf_counter() + seconds
    stream = events("ingest", zipf(), seed)
    async with meterbook.open(url) as book:
        return sum(await asyncio.gather(*(_write(book, stream, until) for _ in range(WRITERS))))


async def _write(book: meterbook.Book, stream: Iterator[Event], until: float) -> int:
    written = 0
    while perf_counter() < until:
        recorded = await book.record_many([event.usage() for event in islice(stream, BATCH)])
        written += recorded.inserted
    return written


if __name__ == "__main__":
    print(asyncio.run(ingest(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
