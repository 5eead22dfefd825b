"""Statements of subscriptions, organizations, members and workspaces; each is one short transaction of its own."""

from typing import Any

from psycopg import AsyncConnection

from meterbook.postgres.fetching import fetch_value
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


async def change_customers(conn: AsyncConnection[Any], statement: str, arguments: dict[str, Any]) -> Any:
    """`statement`: a name of customers.sql; gives what it gives. Raises `UnknownEntity`, `MembershipRefused`, `InvalidUsage`."""
    return await fetch_value(conn, SQL[statement], arguments)
