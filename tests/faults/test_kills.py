"""kill -9 of the writer and of the server, again and again: acknowledged ⊆ stored ⊆ tried, and after retries all three are equal."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import meterbook
from meterbook.book import Book
from meterbook.postgres.embedded import Embedded, erase
from meterbook.postgres.migrate import migrate
from tests.faults.writer import call_of
from tests.races.playing import insist, until

CALLS = 400
PATIENCE_S = 60
EVERYTHING = {str(entry["event_key"]): int(entry["amount"]) for number in range(CALLS) for entry in call_of(number)}
STORED = """
select t.key from unnest(%s::text[]) t(key) join meterbook.event_key k on k.key = meterbook.event_key(t.key)
join meterbook.usage_log l on l.entity_id = k.entity_id and l.recorded_at = k.recorded_at and l.key = k.key
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def noted(journal: Path, what: str) -> set[str]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return {line.removeprefix(f"{what} ") for line in lines if line.startswith(f"{what} ")}


def stored(url: str) -> set[str]:
    """Keys of the ledger, of all that anybody could have tried; nothing else is in it."""
    with psycopg.connect(url) as conn:
        conn.isolation_level = (
            psycopg.IsolationLevel.REPEATABLE_READ
        )  # one snapshot: those who were not killed go on writing
        keys = {key for (key,) in conn.execute(STORED.encode(), [list(EVERYTHING)]).fetchall()}
        counts = conn.execute(
            "select (select count(*) from meterbook.event_key), (select count(*) from meterbook.usage_log)"
        ).fetchone()
    assert counts == (len(keys), len(keys))
    return keys


def start_writer(url: str, journal: Path, dies_after_groups: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.faults.writer", url, str(journal), str(CALLS), str(dies_after_groups)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)


def await_acknowledged(process: subprocess.Popen[bytes], journal: Path, number: int) -> None:
    """Until the writer has been told so many times that something is stored in this life, or has ended."""
    before, deadline = len(noted(journal, "acknowledged")), time.monotonic() + PATIENCE_S
    while process.poll() is None and len(noted(journal, "acknowledged")) < before + number:
        assert time.monotonic() < deadline, "the writer does not get on"
        time.sleep(0.001)


def assert_between(journal: Path, url: str) -> None:
    kept = stored(url)
    assert noted(journal, "acknowledged") <= kept
    assert kept <= noted(journal, "tried")


async def assert_whole(url: str) -> None:
    """Everything once, the sum exact, the proof clean, also after the fold."""
    assert stored(url) == set(EVERYTHING)
    async with meterbook.open(url) as book:
        for _ in range(2):
            totals = [(await book.usage(f"user:actor {n}")).total for n in range(5)]
            assert sum(totals) == sum(EVERYTHING.values())
            assert await book.verify() == []
            await book.compact()


@pytest.mark.parametrize("groups", [1, 7])
async def test_a_writer_killed_between_commit_and_acknowledgement(
    database_url: str, journal: Path, groups: int
) -> None:
    """What it was never told is stored all the same, and once: the next process retries everything and is told so."""
    with start_writer(database_url, journal, dies_after_groups=groups) as process:
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert_between(journal, database_url)
    assert stored(database_url) > noted(journal, "acknowledged")
    with start_writer(database_url, journal) as process:
        assert process.wait(PATIENCE_S) == 0
    assert noted(journal, "acknowledged") == set(EVERYTHING)
    await assert_whole(database_url)


async def test_a_writer_killed_again_and_again(database_url: str, journal: Path, seed: int) -> None:
    """Four lives, each ended at some moment of its work; each begins again from the first call."""
    chance = random.Random(seed)
    for _ in range(4):
        with start_writer(database_url, journal) as process:
            await_acknowledged(process, journal, chance.randrange(1, 60))
            process.kill()
        assert_between(journal, database_url)
    with start_writer(database_url, journal) as process:
        assert process.wait(PATIENCE_S) == 0
    await assert_whole(database_url)


# ------------------------------------------------------------------------------------------------------------- the server


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Embedded]:
    """A durable server of the test's own."""
    folder = tmp_path / "engine"
    own = Embedded(folder, {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"})
    own.start()
    yield own
    own.stop()
    assert erase(folder)


def kill_server(engine: Embedded, victim: str) -> None:
    """The server itself, or one of its sessions at work, which makes it drop all others and recover. Returns once a bystander was dropped:
    before that the old server may still answer, and fall down in the midst of the next question.
    """
    pid = engine.pid
    assert pid is not None
    with psycopg.connect(engine.url, autocommit=True) as bystander:
        if victim == "session":
            row = bystander.execute(
                "select pid from pg_stat_activity where application_name = 'meterbook' order by state = 'active' desc limit 1"
            ).fetchone()
            assert row is not None
            pid = row[0]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            bystander.execute("select pg_sleep(%s)", [PATIENCE_S])


def revive(engine: Embedded) -> None:
    """The server answers again: started anew, or recovered by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        engine.start()
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(engine.url) as conn:
            conn.execute("select 1")
            return
        time.sleep(0.02)
    raise AssertionError("the server does not come back")


class Writers:
    """In this process, since the server is what dies; they go on through every death by retrying."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.left = iter(range(CALLS))
        self.tried: set[str] = set()
        self.acknowledged: set[str] = set()
        self.progress = asyncio.Event()

    async def write(self) -> None:
        for number in self.left:
            entries = call_of(number)
            keys = {str(entry["event_key"]) for entry in entries}
            self.tried |= keys
            await insist(lambda entries=entries: self.book.record_many(entries))  # type: ignore[misc]
            self.acknowledged |= keys
            self.progress.set()

    async def until_acknowledged(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.acknowledged) < number:
                self.progress.clear()
                await self.progress.wait()

    def assert_between(self, url: str, acknowledged: set[str]) -> None:
        """`acknowledged`: what was, before the server died."""
        kept = stored(url)
        assert acknowledged <= kept
        assert kept <= self.tried


async def test_a_server_killed_again_and_again(engine: Embedded, seed: int) -> None:
    """kill -9 of the server and of its sessions, with fsync on, while writers, a compactor and a verifier run: what was acknowledged
    before a death is stored after it; writers get through by retrying; in the end everything is stored once and proven.
    """
    chance = random.Random(seed)
    async with await psycopg.AsyncConnection.connect(engine.url, autocommit=True) as conn:
        await migrate(conn)
    async with meterbook.open(engine.url) as book:
        writers, done, differences = Writers(book), asyncio.Event(), []

        async def verify() -> None:
            differences.extend(await book.verify())

        async def write() -> None:
            await asyncio.gather(*(writers.write() for _ in range(8)))
            done.set()

        working = [
            asyncio.create_task(write()),
            *(asyncio.create_task(until(done, turn)) for turn in (book.compact, verify)),
        ]
        for death, victim in enumerate(["server", "session", "server", "session"]):
            await writers.until_acknowledged(len(EVERYTHING) * death // 4 + chance.randrange(1, 100))
            acknowledged = set(writers.acknowledged)
            kill_server(engine, victim)
            await asyncio.to_thread(revive, engine)
            writers.assert_between(engine.url, acknowledged)
        await asyncio.gather(*working)
        assert differences == []
    assert writers.acknowledged == set(EVERYTHING)
    await assert_whole(engine.url)
