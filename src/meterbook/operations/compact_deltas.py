"""Folds what recorders appended into the rollups (ARCHITECTURE: the fold): bounded, one compactor at a time, exact at every moment."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.upkeep import Compacted
from meterbook.postgres import compaction

DELTAS_PER_FOLD_MAX = 50_000


async def compact_deltas(
    conn: AsyncConnection[Any], at: datetime | None, deltas_max: int = DELTAS_PER_FOLD_MAX
) -> Compacted:
    """One fold, in the connection's transaction; nothing was waiting if `deltas` is 0."""
    moved = await compaction.fold_deltas(conn, deltas_max, at)
    return Compacted(sum(moved.values()), frozenset(moved))
