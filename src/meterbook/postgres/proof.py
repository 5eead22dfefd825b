"""Statements of proof (BEHAVIOUR §14)."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import args_row, tuple_row

from meterbook.core.upkeep import Difference
from meterbook.postgres.reading import named
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
_NOBODY: dict[str, str | None] = {"kind": None, "external_id": None}


async def list_differences(conn: AsyncConnection[Any], entity: str | None) -> list[Difference]:
    with refusals():
        async with conn.cursor(row_factory=args_row(Difference)) as cursor:
            await cursor.execute(SQL["list_differences"], _NOBODY if entity is None else named(entity))
            return await cursor.fetchall()


async def count_unprovable(conn: AsyncConnection[Any], entity: str | None) -> int:
    return await _count(conn, "count_unprovable", entity)


async def rebuild_rollups(conn: AsyncConnection[Any], entity: str) -> int:
    return await _count(conn, "rebuild", entity)


async def _count(conn: AsyncConnection[Any], statement: str, entity: str | None) -> int:
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL[statement], _NOBODY if entity is None else named(entity))
            row = await cursor.fetchone()
    return 0 if row is None else int(row[0])
