"""Django's connection as `conn` of meterbook.sync."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from django import setup
from django.conf import settings
from django.db import connection, connections, transaction
from django.db.utils import ConnectionHandler
from psycopg.conninfo import conninfo_to_dict

from meterbook import Book
from meterbook.errors import KeyConflict, LedgerUnavailable, UnsuitableConnection
from meterbook.sync import Book as SyncBook
from tests.conftest import Clock
from tests.integrations.callers import (
    ENTRY,
    PREPARATIONS,
    RECORDS,
    WROTE,
    RollBack,
    answers,
    own_table,
    record_synchronously_by,
    total,
)
from tests.ledger import P1, query

if not settings.configured:
    settings.configure(DATABASES={}, USE_TZ=False, TIME_ZONE="Asia/Kolkata", LOGGING_CONFIG=None)
    setup()
CREATED = {"correct": Decimal("2.00")}
"""What is in the ledger before."""


def django_connection(url: str, **said: Any) -> Any:
    parts = conninfo_to_dict(url)
    described = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": parts.get("port", ""),
    }
    return ConnectionHandler({"default": {**described, **said}})["default"]


@pytest.fixture(autouse=True)
def django(database_url: str) -> Iterator[None]:
    """`django.db.connection` leads to the test's database: without time zones, as jsonb's text, with cursors of Django's."""
    own_table(database_url)
    connections["default"] = django_connection(database_url)
    yield
    connection.close()
    del connections["default"]


def wrote() -> None:
    with connection.cursor() as cursor:
        cursor.execute(WROTE)


@pytest.fixture
def call(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def prepared(book: Book, call: str) -> str:
    return await PREPARATIONS[call](book)


@pytest.mark.parametrize("call", RECORDS, indirect=True)
def test_what_is_recorded_in_atomic_is_committed_or_taken_back_with_it(
    sync_book: SyncBook, database_url: str, call: str, prepared: str
) -> None:
    """Each call that takes `conn` takes django.db.connection: rolled back, nothing is there; committed, it is there once."""
    before = CREATED.get(call, Decimal(0))
    with suppress(RollBack), transaction.atomic():
        wrote()
        record_synchronously_by(sync_book, call, connection, prepared)
        raise RollBack
    assert (total(database_url), answers(database_url)) == (before, 0)
    with transaction.atomic():
        wrote()
        record_synchronously_by(sync_book, call, connections["default"], prepared)
        assert total(database_url) == before
    assert (total(database_url), answers(database_url)) == (before + Decimal("0.25"), 1)


@pytest.mark.parametrize("call", RECORDS, indirect=True)
def test_outside_atomic_what_is_recorded_commits_by_itself(
    sync_book: SyncBook, database_url: str, call: str, prepared: str
) -> None:
    """Django's connection is in autocommit there: the call is a transaction of its own, as a save() is."""
    record_synchronously_by(sync_book, call, connection, prepared)
    assert total(database_url) == CREATED.get(call, Decimal(0)) + Decimal("0.25")


def test_an_inner_atomic_takes_back_its_own_part(sync_book: SyncBook, database_url: str) -> None:
    """A savepoint of Django's is one for the ledger too."""
    with transaction.atomic():
        sync_book.record("u", amount="1.00", **{**ENTRY, "event_key": "outside"}, conn=connection)
        with suppress(RollBack), transaction.atomic():
            sync_book.record("u", amount="0.25", **ENTRY, conn=connection)
            raise RollBack
    assert total(database_url) == Decimal("1.00")


def test_a_refusal_leaves_atomic_usable(sync_book: SyncBook, database_url: str) -> None:
    """A conflict is raised, and Django's transaction goes on: nothing of it is lost."""
    sync_book.record("u", amount="1.00", **ENTRY)
    with transaction.atomic():
        wrote()
        with pytest.raises(KeyConflict) as raised:
            sync_book.record("u", amount="0.25", **ENTRY, conn=connection)
        sync_book.record("u", amount="0.50", **{**ENTRY, "event_key": "another"}, conn=connection)
    assert raised.value.conflicts[0].first["amount"] == Decimal("1.00")
    assert (total(database_url), answers(database_url)) == (Decimal("1.50"), 1)


def test_times_and_metadata_are_right_through_djangos_adapters(
    sync_book: SyncBook, database_url: str, clock: Clock
) -> None:
    """Without USE_TZ Django cuts zones from the times it reads, and sets the session to another one: the ledger's stay in UTC."""
    at = datetime(2026, 6, 19, 23, 59, 59, 999999, tzinfo=UTC)
    with transaction.atomic():
        done = sync_book.record(
            "u", amount="0.25", **ENTRY, occurred_at=at, metadata={"tokens": {"in": 3}}, conn=connection
        )
    assert done.entries[0].recorded_at == clock.now
    (entry,) = sync_book.entries("user:u").entries
    assert entry.occurred_at == at
    assert query(database_url, "select metadata from meterbook.entry_metadata") == [({"tokens": {"in": 3}},)]


def test_a_correction_after_the_close_gives_back_through_djangos_adapters(
    sync_book: SyncBook, database_url: str, clock: Clock
) -> None:
    """The longest path of a caller's connection, periods and plans read and a credit granted, on Django's connection."""
    sync_book.put_subscription(id="s", owner="user:u", plan="pro", status="active", starts_at=P1[0], ends_at=P1[1])
    entry = sync_book.record("u", amount="50.00", **ENTRY).entries[0]
    query(database_url, "update meterbook.subscription set stripe_customer = 'cus', stripe_subscription = 'sub'")
    clock.now = P1[1].replace(hour=3)
    assert sync_book.close("user:u").closed == 1
    with transaction.atomic():
        sync_book.correct(entry.id, amount="-7.00", reason="refund", event_key="c", conn=connection)
        assert sync_book.credits("user:u").balance_cents == 0
    assert sync_book.credits("user:u").balance_cents == 700


def test_djangos_connection_stays_as_it_is(sync_book: SyncBook) -> None:
    """Its cursors, adapters and time zone answer as before."""
    asked = "select '{\"a\": 1}'::jsonb, timestamptz '2026-06-20 12:00+00', current_setting('TimeZone')"
    with connection.cursor() as cursor:
        cursor.execute(asked)
        before = cursor.fetchone()
    sync_book.record("u", amount="0.25", **ENTRY, conn=connection)
    with connection.cursor() as cursor:
        cursor.execute(asked)
        assert cursor.fetchone() == before
    assert connection.connection.cursor().fetchall is not None
    assert before is not None
    assert before[1].tzinfo is None


async def test_the_asynchronous_book_says_which_one_to_use(book: Book) -> None:
    """Django's connections are synchronous."""
    with pytest.raises(UnsuitableConnection, match=r"meterbook\.sync"):
        await book.record("u", amount="0.25", **ENTRY, conn=connection)


def test_a_transaction_that_django_holds_for_broken_is_refused(sync_book: SyncBook, database_url: str) -> None:
    """Where Django takes no more statements, the ledger takes no entry."""
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(UnsuitableConnection, match="current transaction"):
            sync_book.record("u", amount="0.25", **ENTRY, conn=connection)
    assert total(database_url) == 0


def test_a_connection_that_djangos_server_refuses_is_unavailable(sync_book: SyncBook, database_url: str) -> None:
    """Retryable, as with the ledger's own."""
    elsewhere = django_connection(database_url, NAME="no_such_database")
    with pytest.raises(LedgerUnavailable, match="no_such_database"):
        sync_book.record("u", amount="0.25", **ENTRY, conn=elsewhere)


def test_another_engine_of_djangos_is_refused(sync_book: SyncBook, database_url: str) -> None:
    """SQLite through Django is no PostgreSQL; and a cursor is no connection."""
    elsewhere = django_connection(database_url, ENGINE="django.db.backends.sqlite3", NAME=":memory:")
    with psycopg.connect(database_url) as plain:
        unfit: list[Any] = [elsewhere, plain.cursor()]
        for conn in unfit:
            with pytest.raises(UnsuitableConnection):
                sync_book.record("u", amount="0.25", **ENTRY, conn=conn)
    assert total(database_url) == 0
