"""SQLAlchemy's asynchronous connections and sessions as `conn`: the ledger records in the application's own transaction."""

from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

from meterbook import Book
from meterbook.errors import KeyConflict, LedgerUnavailable, UnsuitableConnection
from tests.integrations.callers import (
    ENTRY,
    PREPARATIONS,
    RECORDS,
    WROTE,
    RollBack,
    answers,
    own_table,
    record_by,
    total,
)

CREATED = {"correct": Decimal("2.00")}
"""What is in the ledger before."""


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    own_table(database_url)
    made = create_async_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    yield made
    await made.dispose()


@pytest.mark.parametrize("call", RECORDS)
async def test_what_is_recorded_by_a_session_is_committed_with_its_work(
    book: Book, engine: AsyncEngine, database_url: str, call: str
) -> None:
    """Each call that takes `conn` takes an AsyncSession: before the commit nobody else sees it, after it, once."""
    prepared = await PREPARATIONS[call](book)
    before = CREATED.get(call, Decimal(0))
    async with AsyncSession(engine) as session:
        await session.execute(text(WROTE))
        await record_by(book, call, session, prepared)
        assert total(database_url) == before
        await session.commit()
    assert (total(database_url), answers(database_url)) == (before + Decimal("0.25"), 1)


@pytest.mark.parametrize("call", RECORDS)
async def test_what_is_recorded_vanishes_with_the_sessions_work(
    book: Book, engine: AsyncEngine, database_url: str, call: str
) -> None:
    """After a rollback nothing is in the ledger, whichever call it was."""
    prepared = await PREPARATIONS[call](book)
    with suppress(RollBack):
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(text(WROTE))
            await record_by(book, call, session, prepared)
            raise RollBack
    assert (total(database_url), answers(database_url)) == (CREATED.get(call, Decimal(0)), 0)


async def test_a_connection_that_did_nothing_yet_commits_what_was_recorded(
    book: Book, engine: AsyncEngine, database_url: str
) -> None:
    """SQLAlchemy's commit does nothing where it has seen no transaction begin, so the ledger begins it."""
    async with engine.connect() as conn:
        await book.record("u", amount="0.25", **ENTRY, conn=conn)
        await conn.commit()
    assert total(database_url) == Decimal("0.25")


async def test_a_connection_that_is_closed_without_a_commit_recorded_nothing(
    book: Book, engine: AsyncEngine, database_url: str
) -> None:
    """As with any other of its statements."""
    async with engine.connect() as conn:
        await book.record("u", amount="0.25", **ENTRY, conn=conn)
    assert total(database_url) == 0


async def test_a_connection_in_autocommit_commits_at_once(book: Book, engine: AsyncEngine, database_url: str) -> None:
    """What SQLAlchemy's isolation level AUTOCOMMIT promises holds for the ledger too."""
    async with engine.connect() as conn:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        await book.record("u", amount="0.25", **ENTRY, conn=conn)
        assert total(database_url) == Decimal("0.25")


async def test_a_savepoint_takes_back_its_own_part(book: Book, engine: AsyncEngine, database_url: str) -> None:
    """What was recorded inside `begin_nested` goes with it; what was recorded outside stays."""
    async with AsyncSession(engine) as session, session.begin():
        await book.record("u", amount="1.00", **{**ENTRY, "event_key": "outside"}, conn=session)
        with suppress(RollBack):
            async with session.begin_nested():
                await book.record("u", amount="0.25", **ENTRY, conn=session)
                raise RollBack
    assert total(database_url) == Decimal("1.00")


async def test_a_refusal_leaves_the_session_usable(book: Book, engine: AsyncEngine, database_url: str) -> None:
    """A conflict is raised, what the session did before is there, and it goes on."""
    await book.record("u", amount="1.00", **ENTRY)
    async with AsyncSession(engine) as session:
        await session.execute(text(WROTE))
        with pytest.raises(KeyConflict):
            await book.record("u", amount="0.25", **ENTRY, conn=session)
        await book.record("u", amount="0.50", **{**ENTRY, "event_key": "another"}, conn=session)
        await session.commit()
    assert (total(database_url), answers(database_url)) == (Decimal("1.50"), 1)


async def test_a_scoped_session_is_a_session(book: Book, engine: AsyncEngine, database_url: str) -> None:
    """async_scoped_session stands for the session of its scope."""
    sessions = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
    await book.record("u", amount="0.25", **ENTRY, conn=sessions)
    assert total(database_url) == 0
    await sessions.commit()
    await sessions.remove()
    assert total(database_url) == Decimal("0.25")


async def test_what_can_record_nothing_is_named(book: Book, engine: AsyncEngine, database_url: str) -> None:
    """An engine, a synchronous connection of either library, a cursor, a text: refused with what to use."""
    synchronous = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with psycopg.connect(database_url) as plain, synchronous.connect() as connection:
        unfit: list[Any] = [engine, plain, connection, plain.cursor(), "postgresql://x", object()]
        for conn in unfit:
            with pytest.raises(UnsuitableConnection, match=r"is not an open psycopg\.AsyncConnection"):
                await book.record("u", amount="0.25", **ENTRY, conn=conn)
    synchronous.dispose()
    assert total(database_url) == 0


async def test_a_closed_connection_is_named(book: Book, engine: AsyncEngine) -> None:
    """What SQLAlchemy says of it is passed on."""
    async with engine.connect() as conn:
        pass
    with pytest.raises(UnsuitableConnection, match="SQLAlchemy gives no connection"):
        await book.record("u", amount="0.25", **ENTRY, conn=conn)


async def test_a_pool_with_none_free_is_unavailable(book: Book, database_url: str) -> None:
    """Retryable: another request will give its connection back."""
    address = database_url.replace("postgresql://", "postgresql+psycopg://")
    full = create_async_engine(address, pool_size=1, max_overflow=0, pool_timeout=0.1)
    async with full.connect() as taken, AsyncSession(full) as session:
        await taken.begin()
        with pytest.raises(LedgerUnavailable, match="QueuePool limit"):
            await book.record("u", amount="0.25", **ENTRY, conn=session)
    await full.dispose()
    assert total(database_url) == 0


async def test_the_synchronous_face_of_an_asynchronous_session_is_refused(
    book: Book, engine: AsyncEngine, database_url: str
) -> None:
    """Inside `run_sync` too, the asynchronous connection is what to pass."""
    async with AsyncSession(engine) as session:
        with pytest.raises(UnsuitableConnection):
            await book.record("u", amount="0.25", **ENTRY, conn=session.sync_session)  # type: ignore[arg-type]
    assert total(database_url) == 0
