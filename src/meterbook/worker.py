"""The loop that does by the clock what is due: folds deltas, vacuums them, sweeps, delivers the outbox, makes partitions. Two are safe."""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import monotonic

from meterbook.book import Book
from meterbook.core.deliveries import Delivery
from meterbook.core.ledgers import Swept
from meterbook.errors import EngineUnavailable, LedgerUnavailable, MeterbookError, Unavailable

FIRST_DELAY_S = 0.5
DELAY_S_MAX = 30.0
STOP_TIMEOUT_S = 10
"""What is running may finish; longer than this, it is undone and left to the next worker."""

Opening = Callable[[], AbstractAsyncContextManager[Book]]
Say = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds from the end of one run to the next."""

    fold_s: float = 1
    vacuum_s: float = 2
    sweep_s: float = 5
    relay_s: float = 1
    partitions_s: float = 24 * 3600
    report_s: float = 60


RHYTHM = Rhythm()


@dataclass(slots=True)
class Done:
    """What was done since the last report; `unmended`: what the last sweep had to leave, told when it changes."""

    deltas: int = 0
    folds: int = 0
    sweeps: int = 0
    vacuums: int = 0
    unvacuumed: int = 0
    unmended: tuple[int, tuple[str, ...]] = (0, ())


def say(event: str, **facts: object) -> None:
    """One line on standard error: the time, what happened, and its facts as `name=value`."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shown = (f"{name}={_value(value)}" for name, value in facts.items())
    print(" ".join([at, event, *shown]), file=sys.stderr, flush=True)  # noqa: T201  its log


def _value(value: object) -> str:
    text = str(value)
    return text if text and not set(text) & set(' "=\n') else json.dumps(text, ensure_ascii=False)


async def work_once(book: Book, say: Say = say) -> Swept:
    """Everything that is due now, once: for cron, and for tests."""
    began = monotonic()
    swept = await book.sweep()
    partitions = await book.ensure_partitions()
    if swept.deltas:
        await book.vacuum()
    _say_swept(swept, say, partitions=partitions, ms=_ms(began))
    await _relay(book, say)
    return swept


async def work(opening: Opening, rhythm: Rhythm = RHYTHM, say: Say = say) -> None:
    """Until SIGTERM or SIGINT. A database that goes away is waited for and opened anew.

    Raises what no waiting mends: a catalog that is wrong or not this ledger's.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    working = asyncio.create_task(keep_working(opening, rhythm, stop, say))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        say("stopping")
        await asyncio.wait({working}, timeout=STOP_TIMEOUT_S)
    stopping.cancel()
    working.cancel()
    await asyncio.wait({working, stopping})
    if not working.cancelled():
        working.result()
    say("stopped")


async def keep_working(opening: Opening, rhythm: Rhythm, stop: asyncio.Event, say: Say) -> None:
    """Until `stop`; for who handles signals himself, as a server does."""
    delay_s = FIRST_DELAY_S
    while not stop.is_set():
        began = monotonic()
        try:
            async with opening() as book:
                say("working", engine=book.engine)
                await _until_stopped(book, rhythm, stop, say)
        except Unavailable as error:
            delay_s = FIRST_DELAY_S if monotonic() - began > DELAY_S_MAX else min(delay_s * 2, DELAY_S_MAX)
            say("unavailable", code=error.code, reason=error, retry_in_s=delay_s)
            await _pause(stop, delay_s)


async def _until_stopped(book: Book, rhythm: Rhythm, stop: asyncio.Event, say: Say) -> None:
    """Each duty in a loop of its own: a long sweep delays no fold. The first that finds no database ends them all."""
    done = Done()
    duties: list[tuple[str, float, Callable[[], Awaitable[None]]]] = [
        ("partitions", rhythm.partitions_s, lambda: _make_partitions(book, say)),
        ("fold", rhythm.fold_s, lambda: _fold(book, done)),
        ("vacuum", rhythm.vacuum_s, lambda: _vacuum(book, done)),
        ("sweep", rhythm.sweep_s, lambda: _sweep(book, done, say)),
        ("relay", rhythm.relay_s, lambda: _relay(book, say)),
        ("report", rhythm.report_s, lambda: _report(done, say)),
    ]
    tasks = [asyncio.create_task(_repeat(name, every_s, duty, stop, say)) for name, every_s, duty in duties]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _repeat(
    name: str, every_s: float, duty: Callable[[], Awaitable[None]], stop: asyncio.Event, say: Say
) -> None:
    """A refusal is told and tried again; nothing that was decided is lost by it."""
    delay_s = every_s
    while not stop.is_set():
        try:
            await duty()
            delay_s = every_s
        except (LedgerUnavailable, EngineUnavailable):
            raise
        except MeterbookError as error:
            delay_s = max(every_s, min(delay_s * 2, DELAY_S_MAX))
            say("failed", duty=name, code=error.code, reason=error, retry_in_s=delay_s)
        await _pause(stop, delay_s)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def _make_partitions(book: Book, say: Say) -> None:
    made = await book.ensure_partitions()
    if made:
        say("partitions", made=made)


async def _fold(book: Book, done: Done) -> None:
    folded = await book.fold()
    done.folds += bool(folded.deltas)
    done.deltas += folded.deltas
    done.unvacuumed += folded.deltas


async def _vacuum(book: Book, done: Done) -> None:
    if done.unvacuumed:
        done.unvacuumed = 0
        done.vacuums += await book.vacuum()


async def _sweep(book: Book, done: Done, say: Say) -> None:
    began = monotonic()
    swept = await book.sweep()
    done.sweeps += 1
    done.deltas += swept.deltas
    done.unvacuumed += swept.deltas
    unmended = (swept.deferred, swept.failed)
    if swept.opened or swept.closed or swept.billed or swept.alerts or unmended != done.unmended:
        _say_swept(swept, say, ms=_ms(began))
    done.unmended = unmended


async def _relay(book: Book, say: Say) -> None:
    """Until nothing is due; alerts go to the log, where an operator's alerting finds them."""

    async def tell(alert: Delivery) -> None:
        say("alert", entity=alert.entity, **alert.payload)

    while True:
        began = monotonic()
        relayed = await book.relay(tell=tell)
        if any(asdict(relayed).values()):
            say("relayed", **asdict(relayed), ms=_ms(began))
        if not relayed.delivered:
            return


def _say_swept(swept: Swept, say: Say, **facts: object) -> None:
    counts = asdict(swept)
    del counts["failed"]
    say("swept", **counts, **facts)
    for failure in swept.failed:
        say("failed", duty="sweep", reason=failure)


async def _report(done: Done, say: Say) -> None:
    if done.sweeps:
        say("did", folds=done.folds, deltas=done.deltas, vacuums=done.vacuums, sweeps=done.sweeps)
    done.deltas = done.folds = done.sweeps = done.vacuums = 0


def _ms(began: float) -> int:
    return round((monotonic() - began) * 1000)
