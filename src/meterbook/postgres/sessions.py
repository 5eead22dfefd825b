"""What every connection of our own is told when it is made."""

from typing import Any

from psycopg import AsyncConnection

from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


async def read_committed(conn: AsyncConnection[Any]) -> None:
    """Our own transactions are, whatever the server's default is; a caller's connection stays as it is. `conn` is autocommit."""
    await conn.execute(SQL["read_committed"])
