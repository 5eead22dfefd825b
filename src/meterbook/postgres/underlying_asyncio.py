"""The psycopg connection beneath what an asynchronous application has, in its running transaction. Its twin is underlying_threads."""

from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg import AsyncConnection

from meterbook.errors import LedgerUnavailable, UnsuitableConnection
from meterbook.postgres.underlying import library_of, unsuitable

if TYPE_CHECKING:
    import sqlalchemy.ext.asyncio as sa

    CallersConnection: TypeAlias = (
        AsyncConnection[Any] | sa.AsyncConnection | sa.AsyncSession | sa.async_scoped_session[Any]
    )
else:
    CallersConnection = AsyncConnection
WANTED = "an open psycopg.AsyncConnection, nor SQLAlchemy's AsyncConnection or AsyncSession (a synchronous one is for meterbook.sync)"


async def psycopg_connection(conn: object) -> AsyncConnection[Any]:
    """Raises `UnsuitableConnection`, which says what to use; `LedgerUnavailable` if SQLAlchemy has none and gets none."""
    library = library_of(conn)
    if library == "django":
        raise UnsuitableConnection(
            "conn: Django's connections are synchronous: use meterbook.sync, from an async view by sync_to_async"
        )
    found = await _beneath_sqlalchemy(conn) if library == "sqlalchemy" else conn
    if not isinstance(found, AsyncConnection):
        raise unsuitable(found, WANTED)
    return found


async def _beneath_sqlalchemy(conn: object) -> object:
    """SQLAlchemy commits what it knows to have begun: without that, its commit would do nothing and the pool would roll back."""
    from sqlalchemy.exc import OperationalError, SQLAlchemyError
    from sqlalchemy.exc import TimeoutError as NoneFree
    from sqlalchemy.ext.asyncio import AsyncConnection as Connection
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

    try:
        inner = await conn.connection() if isinstance(conn, AsyncSession | async_scoped_session) else conn
        if not isinstance(inner, Connection):
            raise unsuitable(inner, WANTED)
        if not inner.in_transaction():
            await inner.begin()
        return (await inner.get_raw_connection()).driver_connection
    except (OperationalError, NoneFree) as error:
        raise LedgerUnavailable(f"SQLAlchemy gets no connection: {error}") from error
    except SQLAlchemyError as error:
        raise UnsuitableConnection(f"conn: SQLAlchemy gives no connection: {error}") from error
