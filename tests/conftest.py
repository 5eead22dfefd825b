"""What every test may ask for: a server, a migrated database of its own on it, a clock, a book.

A test that asks for a database runs once on the embedded PostgreSQL 18 and, where METERBOOK_TEST_URL names a
superuser of another server, once more there. The processes of one run share the embedded server.
"""

import os
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

import meterbook
from meterbook.postgres.embedded import Embedded, erase
from tests.databases import Databases
from tests.places import engine_folder

if TYPE_CHECKING:
    from meterbook.book import Book

SECOND_SERVER = os.environ.get("METERBOOK_TEST_URL", "")
SERVERS = ["embedded18", "url"] if SECOND_SERVER else ["embedded18"]
# The data of a test outlive no kill of the machine; tests of durability start a server of their own.
QUICK = {"fsync": "off", "full_page_writes": "off", "autovacuum_naptime": "1min", "max_wal_size": "256MB"}

hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
hypothesis.settings.load_profile("house")


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are processors: tests wait for servers, locks and timeouts a third of the time."""
    return max(1, (os.cpu_count() or 1) * 3 // 2)


@dataclass
class Clock:
    """Time as a parameter: set `now`, pass the clock."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 6, 20, 12, tzinfo=UTC))


@pytest.fixture
def seed() -> int:
    """For a test that plays at random; shown when it fails, and METERBOOK_TEST_SEED repeats it."""
    chosen = int(os.environ.get("METERBOOK_TEST_SEED") or random.randrange(2**32))
    print(f"METERBOOK_TEST_SEED={chosen} repeats this")  # noqa: T201  pytest shows it with a failure only
    return chosen


@cache
def _run() -> str:
    """What the processes of one run have in common, and no other."""
    return (os.environ.get("PYTEST_XDIST_TESTRUNUID") or random.randbytes(8).hex())[:12]


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A superuser's URL of one of the servers."""
    if request.param == "url":
        yield SECOND_SERVER
        return
    base = tmp_path_factory.getbasetemp()
    in_one_of_many = "PYTEST_XDIST_WORKER" in os.environ
    folder = engine_folder(_run(), base.parent if in_one_of_many else base)
    engine = Embedded(folder, QUICK)
    yield engine.start()
    engine.stop()
    erase(folder)


@pytest.fixture(scope="session")
def databases(server: str) -> Iterator[Databases]:
    with Databases(server, _run(), os.environ.get("PYTEST_XDIST_WORKER", "main")) as made:
        yield made


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A migrated database of the test's own, gone afterwards, whoever is still connected."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """The same before any migration."""
    with databases.fresh(migrated=False) as url:
        yield url


@pytest.fixture
async def book(database_url: str, clock: Clock) -> "AsyncIterator[Book]":
    async with meterbook.open(database_url, clock=clock) as opened:
        yield opened


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's."""
    return Path(__file__).resolve().parent.parent
