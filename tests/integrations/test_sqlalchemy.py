"""SQLAlchemy's synchronous connections and sessions as `conn` of meterbook.sync."""

from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from meterbook import Book
from meterbook.errors import KeyConflict, LedgerUnavailable, UnsuitableConnection
from meterbook.sync import Book as SyncBook
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

CREATED = {"correct": Decimal("2.00")}
"""What is in the ledger before."""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    own_table(database_url)
    made = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    yield made
    made.dispose()


@pytest.mark.parametrize("call", RECORDS)
async def test_a_session_commits_or_takes_back_both(
    book: Book, sync_book: SyncBook, engine: Engine, database_url: str, call: str
) -> None:
    """Each call that takes `conn` takes a Session: rolled back, nothing is there; committed, it is there once."""
    prepared = await PREPARATIONS[call](book)
    before = CREATED.get(call, Decimal(0))
    with suppress(RollBack), Session(engine) as session, session.begin():
        session.execute(text(WROTE))
        record_synchronously_by(sync_book, call, session, prepared)
        raise RollBack
    assert (total(database_url), answers(database_url)) == (before, 0)
    with Session(engine) as session:
        session.execute(text(WROTE))
        record_synchronously_by(sync_book, call, session, prepared)
        assert total(database_url) == before
        session.commit()
    assert (total(database_url), answers(database_url)) == (before + Decimal("0.25"), 1)


def test_a_connection_that_did_nothing_yet_commits_what_was_recorded(
    sync_book: SyncBook, engine: Engine, database_url: str
) -> None:
    """SQLAlchemy's commit does nothing where it has seen no transaction begin, so the ledger begins it."""
    with engine.connect() as conn:
        sync_book.record("u", amount="0.25", **ENTRY, conn=conn)
        conn.commit()
    with engine.begin() as conn:
        sync_book.record("u", amount="0.50", **{**ENTRY, "event_key": "another"}, conn=conn)
    with engine.connect() as conn:
        sync_book.record("u", amount="9.00", **{**ENTRY, "event_key": "never committed"}, conn=conn)
    assert total(database_url) == Decimal("0.75")


def test_a_refusal_leaves_the_session_usable(sync_book: SyncBook, engine: Engine, database_url: str) -> None:
    """A conflict is raised, what the session did before is there, and it goes on."""
    sync_book.record("u", amount="1.00", **ENTRY)
    sessions = scoped_session(sessionmaker(engine))
    sessions.execute(text(WROTE))
    with pytest.raises(KeyConflict):
        sync_book.record("u", amount="0.25", **ENTRY, conn=sessions)
    sync_book.record("u", amount="0.50", **{**ENTRY, "event_key": "another"}, conn=sessions)
    sessions.commit()
    sessions.remove()
    assert (total(database_url), answers(database_url)) == (Decimal("1.50"), 1)


async def test_what_can_record_nothing_is_named(sync_book: SyncBook, engine: Engine, database_url: str) -> None:
    """An engine, an asynchronous connection of either library: refused with what to use."""
    asynchronous = create_async_engine(engine.url)
    async with await psycopg.AsyncConnection.connect(database_url) as plain, asynchronous.connect() as connection:
        unfit: list[Any] = [engine, plain, connection, connection.sync_connection, None.__class__]
        for conn in unfit:
            with pytest.raises(UnsuitableConnection, match=r"is not an open psycopg\.Connection"):
                sync_book.record("u", amount="0.25", **ENTRY, conn=conn)
    await asynchronous.dispose()
    assert total(database_url) == 0


def test_a_database_that_sqlalchemy_does_not_reach_is_unavailable(sync_book: SyncBook, database_url: str) -> None:
    """Retryable, as with the ledger's own: nobody there, and a pool of which every connection is in use."""
    address = database_url.replace("postgresql://", "postgresql+psycopg://")
    nobody = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with Session(nobody) as session, pytest.raises(LedgerUnavailable, match="Connection refused"):
        sync_book.record("u", amount="0.25", **ENTRY, conn=session)
    full = create_engine(address, pool_size=1, max_overflow=0, pool_timeout=0.1)
    with full.connect(), Session(full) as session, pytest.raises(LedgerUnavailable, match="QueuePool limit"):
        sync_book.record("u", amount="0.25", **ENTRY, conn=session)
    full.dispose()
    assert total(database_url) == 0


def test_another_driver_is_told_what_to_use(sync_book: SyncBook) -> None:
    """Any driver but psycopg 3 is refused by name; SQLite's stands for it here."""
    elsewhere = create_engine("sqlite://")
    with elsewhere.connect() as conn, pytest.raises(UnsuitableConnection, match="sqlite3's Connection"):
        sync_book.record("u", amount="0.25", **ENTRY, conn=conn)
    elsewhere.dispose()
