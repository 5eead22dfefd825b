"""``meterbook worker`` as a process: stopped, killed, without its database, and beside another one."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

import meterbook
from meterbook.postgres.embedded import Embedded, erase
from tests.cli.billing_ledger import ADDRESSED, UNADDRESSED, make_month
from tests.cli.commands import ON_ONE_SERVER, PROGRAM, Program
from tests.conftest import QUICK

QUICKLY = ("--fold-every", "0.1", "--sweep-every", "0.2")
PATIENCE_S = 60


class Worker:
    """A running worker, and what it has logged."""

    def __init__(self, url: str, log: Path, *options: str) -> None:
        self.log = log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [*PROGRAM, "worker", *QUICKLY, *options],
                env=Program(url, log.parent).environment(),
                cwd=log.parent,
                stderr=stream,
            )

    def says(self, text: str, times: int = 1) -> None:
        """Returns when it has."""
        until(lambda: self.log.read_text().count(text) >= times, lambda: f"{text!r} in {self.log.read_text()}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


@contextmanager
def worker(url: str, log: Path, *options: str) -> Iterator[Worker]:
    started = Worker(url, log, *options)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
            started.process.wait()


def until(met: Callable[[], bool], wanted: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {wanted()}"
        time.sleep(0.05)


def deltas_waiting(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("select count(*) from meterbook.usage_delta").fetchone()
    assert row is not None
    return int(row[0])


async def record(url: str, count: int, name: str) -> None:
    async with meterbook.open(url) as book:
        entries = [
            {"actor": "u", "source": "s", "description": "d", "amount": "0.01", "event_key": f"{name}:{n}"}
            for n in range(count)
        ]
        for start in range(0, count, 50):
            await book.record_many(entries[start : start + 50])


async def total_of_u(url: str) -> tuple[int, Decimal]:
    async with meterbook.open(url) as book:
        usage = await book.usage("user:u")
        assert await book.verify() == []
        return usage.count, usage.total


@ON_ONE_SERVER
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_folds_and_stops_when_it_is_told(database_url: str, tmp_path: Path, how: signal.Signals) -> None:
    """What was recorded is folded without being asked; then exit code 0, and the log ends with that."""
    asyncio.run(record(database_url, 200, "a"))
    with worker(database_url, tmp_path / "log") as running:
        running.says("working")
        until(lambda: deltas_waiting(database_url) == 0, lambda: "an empty tail")
        assert running.stop(how) == 0
        lines = running.log.read_text().splitlines()
    assert [line.split()[1] for line in lines[-2:]] == ["stopping", "stopped"]
    assert asyncio.run(total_of_u(database_url)) == (200, Decimal(2))


@ON_ONE_SERVER
def test_killed_again_and_again_it_loses_nothing(database_url: str, tmp_path: Path) -> None:
    """Five kill -9 while others record: every entry counts once, before and after the last fold."""
    for turn in range(5):
        with worker(database_url, tmp_path / "log", "--fold-every", "0.1") as running:
            running.says("working", times=turn + 1)
            asyncio.run(record(database_url, 150, f"turn{turn}"))
            running.process.kill()
            running.process.wait()
    assert asyncio.run(total_of_u(database_url)) == (750, Decimal("7.5"))
    once = Program(database_url, tmp_path)("worker", "--once")
    assert (once.code, deltas_waiting(database_url)) == (0, 0)
    assert asyncio.run(total_of_u(database_url)) == (750, Decimal("7.5"))


def test_it_outlives_a_restart_of_its_database(tmp_path: Path) -> None:
    """The server is stopped, then killed: both times it says so, waits, and goes on by itself; told to stop meanwhile, it stops."""
    engine = Embedded(tmp_path / "engine", QUICK)
    url = engine.start()
    try:
        assert Program(url, tmp_path)("migrate").code == 0
        with worker(url, tmp_path / "log") as running:
            running.says("working")
            engine.stop()
            running.says("unavailable")
            engine.start()
            running.says("working", times=2)
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            running.says("unavailable", times=2)
            engine.start()
            asyncio.run(record(url, 10, "after"))
            until(lambda: deltas_waiting(url) == 0, lambda: "an empty tail")
            engine.stop()
            time.sleep(1)
            assert running.stop() == 0
            engine.start()
        assert asyncio.run(total_of_u(url)) == (10, Decimal("0.1"))
    finally:
        engine.stop()
        erase(tmp_path / "engine")


@ON_ONE_SERVER
def test_two_workers_bill_a_month_once(database_url: str, tmp_path: Path) -> None:
    """Both sweep a month that has ended: one close, one charge of 24.65; the other's waits for its ids, told once."""
    asyncio.run(make_month(database_url))
    with worker(database_url, tmp_path / "one") as one, worker(database_url, tmp_path / "two") as two:
        one.says("working")
        two.says("working")
        asyncio.run(record(database_url, 300, "beside"))
        until(lambda: deltas_waiting(database_url) == 0, lambda: "an empty tail")
        until(lambda: asyncio.run(billed(database_url)) == [2465], lambda: "one charge of 24.65")
        assert (one.stop(), two.stop()) == (0, 0)
    assert asyncio.run(billed(database_url)) == [2465]
    assert asyncio.run(told(database_url)) == 1
    assert asyncio.run(total_of_u(database_url)) == (300, Decimal(3))


async def billed(url: str) -> list[int]:
    async with meterbook.open(url) as book:
        return [charge.amount_cents for charge in await book.charges(ADDRESSED)]


async def told(url: str) -> int:
    async with meterbook.open(url) as book:
        return sum(row.payload.get("alert") == "close_deferred" for row in await book.outbox(UNADDRESSED))


def test_what_waiting_does_not_mend_ends_it(tmp_path: Path) -> None:
    """A catalog that is none: exit code 2 at once, instead of trying for ever."""
    (tmp_path / "catalog.toml").write_text("currency = 3")
    done = Program(None, tmp_path)("worker", "--catalog", "catalog.toml")
    assert done.code == 2
    assert "Traceback" not in done.err
