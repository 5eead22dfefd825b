"""Holds on one hot entity, 16 and 64 callers at once, beside a conditional UPDATE of a counter; then hold and settle.

Then a soak at the limit: hold → settle or release, while settles in callers' own transactions stay open and are aborted; each look counts
overshoots.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import count
from time import perf_counter

import psycopg

import meterbook
from benchmarks.measuring import Figure, Turn, quantile, take_turns
from benchmarks.options import Options
from benchmarks.server import Server
from meterbook.errors import Denied
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
SECONDS = 2.0
SECONDS_QUICK = 0.3
CALLERS = (16, 64)
BOOKS = 2
"""Of the soak: processes would each have one."""
CALLERS_PER_BOOK = 24
OPEN_SETTLES = 6
SOAK_S_MAX = 60
AMOUNT = Decimal("0.000001")
ORGANIZATION = "organization:hot"

Once = Callable[[], Awaitable[object]]


async def measure(server: Server, options: Options) -> list[Figure]:
    seconds = SECONDS_QUICK if options.quick else SECONDS
    soak_s = SECONDS_QUICK * 4 if options.quick else min(options.soak_s, SOAK_S_MAX)
    return [*await _rates(server, seconds, options.rounds), *await _soak(server, soak_s)]


async def _rates(server: Server, seconds: float, rounds: int) -> list[Figure]:
    async with AsyncExitStack() as stack:
        book = await stack.enter_async_context(meterbook.open(server.database("holding")))
        await make_customer(book)
        url = server.database("conditional", migrated=False)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(SQL["make_counter"])
        turns: list[Turn] = []
        for callers in CALLERS:
            turns.append(partial(_rate, f"holding/{callers}/meterbook", [partial(_hold, book)] * callers, seconds))
            turns.append(
                partial(_rate, f"holding/{callers}/hold and settle", [partial(_cycle, book)] * callers, seconds)
            )
            updaters = [await _updater(stack, url) for _ in range(callers)]
            turns.append(partial(_rate, f"holding/{callers}/conditional update", updaters, seconds))
        return await take_turns(rounds, turns, "holds/s")


async def make_customer(book: meterbook.Book, limit: str = "1000000") -> None:
    """An organization on a plan with overage, with `user` as its member."""
    now = datetime.now(UTC)
    await book.put_organization("hot", owner="boss")
    await book.add_member("hot", "user")
    await book.put_subscription(
        id="sub", owner=ORGANIZATION, plan="team_6000", status="active", starts_at=now - timedelta(days=3),
        ends_at=now + timedelta(days=27), stripe_customer="cus", stripe_subscription="sub",
    )  # fmt: skip
    await book.set_limit(ORGANIZATION, limit)


async def _hold(book: meterbook.Book) -> None:
    await book.place_hold("user", amount=AMOUNT)


async def _cycle(book: meterbook.Book) -> None:
    hold = await book.place_hold("user", amount=AMOUNT)
    await book.settle(hold.id, amount=AMOUNT, source="workflow", description="gpt-4o")


async def _updater(stack: AsyncExitStack, url: str) -> Once:
    conn = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)
    stack.push_async_callback(conn.close)

    async def update() -> None:
        cursor = await conn.execute(SQL["hold_by_counter"], {"amount": AMOUNT})
        assert cursor.rowcount == 1  # noqa: S101  the limit is far away

    await update()
    return update


async def _rate(name: str, calls: list[Once], seconds: float) -> dict[str, float]:
    started = perf_counter()
    until = started + seconds

    async def caller(call: Once) -> int:
        done = 0
        while perf_counter() < until:
            await call()
            done += 1
        return done

    done = sum(await asyncio.gather(*map(caller, calls)))
    return {name: done / (perf_counter() - started)}


@dataclass(slots=True)
class _Seen:
    """`over`: looks that saw more used and held than the limit."""

    granted: int = 0
    denied: int = 0
    settled: int = 0
    aborted: int = 0
    looks: int = 0
    over: int = 0
    seconds: list[float] = field(default_factory=list)


async def _soak(server: Server, seconds: float) -> list[Figure]:
    """A limit that is reached all the time: what a settle frees is taken at once."""
    url, seen, chance = server.database("soak_holds"), _Seen(), random.Random(1)
    until = perf_counter() + seconds
    async with AsyncExitStack() as stack:
        books = [await stack.enter_async_context(meterbook.open(url)) for _ in range(BOOKS)]
        await make_customer(books[0], limit="30")
        await books[0].set_limit(ORGANIZATION, "60")
        players = [
            *(_holder(book, seen, until, chance) for book in books for _ in range(CALLERS_PER_BOOK)),
            *(_open_settler(books[n % BOOKS], url, seen, until, chance) for n in range(OPEN_SETTLES)),
            _watch(books[0], seen, until),
        ]
        await asyncio.gather(*players)
        await books[0].compact()
        last = await books[0].usage(ORGANIZATION)
        seen.over += last.effective + last.held > last.limit
        differences = len(await books[0].verify())
    return [
        Figure("holding/soak/time", "s", (seconds,)),
        Figure("holding/soak/granted", "holds/s", (seen.granted / seconds,)),
        Figure("holding/soak/hold p50", "ms", (quantile(seen.seconds, 0.5) * 1e3,)),
        Figure("holding/soak/hold p99", "ms", (quantile(seen.seconds, 0.99) * 1e3,)),
        Figure("holding/soak/denied", "", (seen.denied,)),
        Figure("holding/soak/settles", "", (seen.settled,)),
        Figure("holding/soak/settles aborted", "", (seen.aborted,)),
        Figure("holding/soak/looks", "", (seen.looks,)),
        Figure("holding/soak/overshoots", "", (seen.over,)),
        Figure("holding/soak/differences", "", (differences,)),
    ]


async def _held(book: meterbook.Book, seen: _Seen) -> str | None:
    """Large against the limit, so that it is reached; the id, or None if it was denied."""
    started = perf_counter()
    try:
        hold = await book.place_hold("user", amount="1.5")
    except Denied:
        seen.denied += 1
        return None
    finally:
        seen.seconds.append(perf_counter() - started)
    seen.granted += 1
    return hold.id


async def _holder(book: meterbook.Book, seen: _Seen, until: float, chance: random.Random) -> None:
    """Settles far below what was held, or releases."""
    while perf_counter() < until:
        hold_id = await _held(book, seen)
        if hold_id is None:
            await asyncio.sleep(0.002)
        elif chance.random() < 0.2:
            await book.release(hold_id)
        else:
            await book.settle(hold_id, amount="0.00001", source="workflow", description="gpt-4o")
            seen.settled += 1


async def _open_settler(book: meterbook.Book, url: str, seen: _Seen, until: float, chance: random.Random) -> None:
    """In a transaction of its own that stays open for a while, then commits or is rolled back and settled again."""
    async with await psycopg.AsyncConnection.connect(url) as conn:
        while perf_counter() < until:
            hold_id = await _held(book, seen)
            if hold_id is None:
                await asyncio.sleep(0.002)
                continue
            for attempt in count():
                await book.settle(hold_id, amount="0.00001", source="workflow", description="gpt-4o", conn=conn)
                await asyncio.sleep(chance.random() / 20)
                if attempt or chance.random() < 0.5:
                    await conn.commit()
                    break
                await conn.rollback()
                seen.aborted += 1
            seen.settled += 1


async def _watch(book: meterbook.Book, seen: _Seen, until: float) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while perf_counter() < until:
            usage = await book.usage(ORGANIZATION)
            seen.looks += 1
            seen.over += usage.effective + usage.held > usage.limit
            await asyncio.sleep(0.01)
