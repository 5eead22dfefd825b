"""What only the ledger has of an entity that was switched (BEHAVIOUR §13): no counter says it, so a rollback owes it to them."""

from typing import Any

from psycopg import AsyncConnection

from meterbook.operations.cutover_step import LATE_SOURCE
from meterbook.postgres import cutover


async def list_own_usage(conn: AsyncConnection[Any], entity_id: int, state: dict[str, Any]) -> list[dict[str, Any]]:
    """By actor: what was recorded here and is on no counter. `state`: with the period that was switched, and since when it is compared."""
    arguments = {
        "entity_id": entity_id,
        "period_id": state["period_id"],
        "since": state["began_at"],
        "late_source": LATE_SOURCE,
    }
    return await cutover.records_of(conn, "list_own_usage", arguments)
