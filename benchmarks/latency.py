"""One event in the caller's own transaction: begin, record, commit. Calls alternate, one of each, on connections of the same kind."""

from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

import psycopg

import meterbook
import meterbook.sync
from benchmarks.baselines import ORIGIN, arguments
from benchmarks.measuring import Figure, quantile, take_turns
from benchmarks.options import Options
from benchmarks.server import Server
from benchmarks.workload import Event, events, hot

CALLS = 2_000
CALLS_QUICK = 100
WARM_CALLS = 50
"""After these, psycopg has prepared the statements and the server has planned them."""


async def measure(server: Server, options: Options) -> list[Figure]:
    calls = CALLS_QUICK if options.quick else CALLS
    return [*await _asynchronous(server, calls, options.rounds), *await _synchronous(server, calls, options.rounds)]


async def _asynchronous(server: Server, calls: int, rounds: int) -> list[Figure]:
    ledger, origin = server.database("latency"), server.database("latency_origin", migrated=False)
    ORIGIN.make(origin)
    async with (
        meterbook.open(ledger) as book,
        await psycopg.AsyncConnection.connect(ledger) as ours,
        await psycopg.AsyncConnection.connect(origin) as theirs,
    ):

        async def record(event: Event) -> None:
            await book.record(**_said(event), conn=ours)

        async def insert(event: Event) -> None:
            await theirs.execute(ORIGIN.insert, arguments(event))

        pairs = _Pairs("async", ours.commit, theirs.commit, record, insert)
        await pairs.turn(WARM_CALLS)
        return await take_turns(rounds, [lambda: pairs.turn(calls)], "µs")


async def _synchronous(server: Server, calls: int, rounds: int) -> list[Figure]:
    ledger, origin = server.database("latency"), server.database("latency_origin", migrated=False)
    ORIGIN.make(origin)
    with meterbook.sync.open(ledger) as book, psycopg.connect(ledger) as ours, psycopg.connect(origin) as theirs:

        async def record(event: Event) -> None:
            book.record(**_said(event), conn=ours)

        async def insert(event: Event) -> None:
            theirs.execute(ORIGIN.insert, arguments(event))

        async def commit_ours() -> None:
            ours.commit()

        async def commit_theirs() -> None:
            theirs.commit()

        pairs = _Pairs("sync", commit_ours, commit_theirs, record, insert)
        await pairs.turn(WARM_CALLS)
        return await take_turns(rounds, [lambda: pairs.turn(calls)], "µs")


def _said(event: Event) -> dict[str, Any]:
    return {
        "actor": event.actor, "source": event.source, "description": event.model, "amount": event.amount,
        "event_key": event.key,
    }  # fmt: skip


class _Pairs:
    """One call of each contender in turn; quantiles of a turn's calls."""

    def __init__(
        self,
        kind: str,
        commit_ours: Callable[[], Awaitable[None]],
        commit_theirs: Callable[[], Awaitable[None]],
        record: Callable[[Event], Awaitable[None]],
        insert: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._kind = kind
        self._contenders = (("meterbook", record, commit_ours), ("origin", insert, commit_theirs))
        self._events: Iterator[Event] = events(f"latency {kind}", hot)

    async def turn(self, calls: int) -> dict[str, float]:
        statement: dict[str, list[float]] = {"meterbook": [], "origin": []}
        whole: dict[str, list[float]] = {"meterbook": [], "origin": []}
        for _ in range(calls):
            event = next(self._events)
            for name, write, commit in self._contenders:
                started = perf_counter()
                await write(event)
                written = perf_counter()
                await commit()
                statement[name].append(written - started)
                whole[name].append(perf_counter() - started)
        return {
            f"latency/{self._kind}/{name}/{what}": quantile(values[name], share) * 1e6
            for what, values, share in (("p50", whole, 0.5), ("p99", whole, 0.99), ("statement p50", statement, 0.5))
            for name in values
        }
