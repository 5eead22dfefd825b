"""Statements of API keys and of the log of administrative acts. None commits."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import args_row, tuple_row

from meterbook.core.api_keys import Act, ApiKey
from meterbook.core.upkeep import LedgerGauges
from meterbook.postgres.fetching import fetch_value
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


class KeptKey(NamedTuple):
    key: ApiKey
    digest: bytes


async def ask(conn: AsyncConnection[Any], statement: str, arguments: Mapping[str, Any]) -> Any:
    """`statement`: a name of api_keys.sql; gives what it gives."""
    return await fetch_value(conn, SQL[statement], arguments)


async def find_key(conn: AsyncConnection[Any], prefix: str) -> KeptKey | None:
    """Also one that has ended."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["find_key"], {"prefix": prefix})
            row = await cursor.fetchone()
    return None if row is None else KeptKey(_key(*row[:-1]), row[-1])


async def read_gauges(conn: AsyncConnection[Any], at: datetime | None) -> LedgerGauges:
    with refusals():
        async with conn.cursor(row_factory=args_row(LedgerGauges)) as cursor:
            await cursor.execute(SQL["read_gauges"], {"at": at})
            (read,) = await cursor.fetchall()
    return read


async def list_keys(conn: AsyncConnection[Any]) -> list[ApiKey]:
    with refusals():
        async with conn.cursor(row_factory=args_row(_key)) as cursor:
            await cursor.execute(SQL["list_keys"])
            return await cursor.fetchall()


async def begin_act(
    conn: AsyncConnection[Any],
    by_whom: str,
    act: str,
    subject: str,
    said: Mapping[str, Any],
    request: str,
    at: datetime | None,
) -> int:
    arguments = {"by_whom": by_whom, "act": act, "subject": subject, "request": request, "at": at}
    begun: int = await ask(conn, "begin_act", {**arguments, "said": json.dumps(said)})
    return begun


async def list_acts(conn: AsyncConnection[Any], rows: int, before: int | None, subject: str | None) -> list[Act]:
    with refusals():
        async with conn.cursor(row_factory=args_row(Act)) as cursor:
            await cursor.execute(SQL["list_acts"], {"rows": rows, "before": before, "subject": subject})
            return await cursor.fetchall()


def _key(id_: int, prefix: str, name: str, scopes: Sequence[str], *rest: Any) -> ApiKey:
    return ApiKey(id_, prefix, name, tuple(scopes), *rest)
