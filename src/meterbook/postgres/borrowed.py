"""A caller's connection, as far as the ledger relies on it: its transaction, and none of its habits."""

from typing import Any, cast

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.adapt import AdaptersMap
from psycopg.pq import Format
from psycopg.rows import AsyncRowFactory, tuple_row

from meterbook.postgres.underlying_asyncio import psycopg_connection

ADAPTERS = AdaptersMap(psycopg.adapters)
"""As they were when meterbook was imported: Django's read jsonb as text and times without a zone; others numbers as floats."""


class LedgerCursor(AsyncCursor[Any]):
    """Sends and reads values by psycopg's own ways, whatever its connection was told."""

    @property
    def adapters(self) -> AdaptersMap:
        return ADAPTERS


class Borrowed:
    """What the operations ask of a connection. Its cursors are ours, so that no cursor or row factory of the caller's is used."""

    def __init__(self, conn: AsyncConnection[Any]) -> None:
        self._conn = conn
        self.autocommit = conn.autocommit
        self.info = conn.info
        self.transaction = conn.transaction

    def cursor(self, *, binary: bool = False, row_factory: AsyncRowFactory[Any] = tuple_row) -> LedgerCursor:
        cursor = LedgerCursor(self._conn, row_factory=row_factory)
        cursor.format = Format.BINARY if binary else Format.TEXT
        return cursor


async def borrowed(conn: object) -> AsyncConnection[Any]:
    """Of psycopg, SQLAlchemy or Django: the connection that is in the caller's transaction. Raises `UnsuitableConnection`."""
    return cast("AsyncConnection[Any]", Borrowed(await psycopg_connection(conn)))
