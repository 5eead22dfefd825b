"""Proof (BEHAVIOUR §14): recomputes every derived figure from the entries, and derives rollups anew."""

from typing import Any

from psycopg import AsyncConnection

from meterbook.core.entries import check_entity
from meterbook.core.upkeep import Difference
from meterbook.errors import UnknownEntity
from meterbook.postgres import proof, reading


async def verify_ledger(conn: AsyncConnection[Any], entity: str | None = None) -> list[Difference]:
    """[] or what differs, by entity, period and figure; exact while writers run."""
    await _check_known(conn, entity)
    return await proof.list_differences(conn, entity)


async def count_unprovable(conn: AsyncConnection[Any], entity: str | None = None) -> int:
    """Entries whose fingerprint `verify_ledger` could not recompute: their actor was erased."""
    await _check_known(conn, entity)
    return await proof.count_unprovable(conn, entity)


async def rebuild_rollups(conn: AsyncConnection[Any], entity: str) -> int:
    """Derives an entity's rollups anew from its entries; gives their number. Compaction waits meanwhile, recorders don't."""
    await _check_known(conn, check_entity(entity))
    return await proof.rebuild_rollups(conn, entity)


async def _check_known(conn: AsyncConnection[Any], entity: str | None) -> None:
    if entity is not None and not await reading.entity_exists(conn, check_entity(entity)):
        raise UnknownEntity(f"{entity} is not known")
