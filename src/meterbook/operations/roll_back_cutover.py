"""Back to the counters, to the cent (BEHAVIOUR §13): what was used, billed and spent here since the switch is given back to their rows."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.cutover import Carried, RolledBack, total
from meterbook.core.money import EXACT, ZERO
from meterbook.errors import CutoverRefused, InvalidRequest
from meterbook.operations.absorb_increments import LATE_SOURCE
from meterbook.postgres import cutover


async def roll_back_entity(conn: AsyncConnection[Any], entity_id: int, entity: str, at: datetime) -> RolledBack:
    """In the connection's transaction. Nothing is taken out of the ledger; from now on it is not billed here. Raises `CutoverRefused`."""
    (state,) = await cutover.records_of(conn, "find_state", {"entity_id": entity_id})
    if state["state"] == "rolled_back":
        return RolledBack(entity, "before")
    usage, billed, credit = ZERO, ZERO, ZERO
    if state["state"] != "shadow":
        if state["state"] == "retired" or state["period_state"] != "open" or state["ends_at"] <= at:
            raise CutoverRefused("its first period has ended here: what was billed since can't go back to a counter")
        usage = await _give_back_usage(conn, entity_id, entity, state)
        billed, credit = await _give_back_money(conn, entity_id, entity, state["period_id"], at)
    await cutover.change(conn, "roll_back_entity", {"entity_id": entity_id})
    await cutover.change(conn, "shadow_entity", {"entity_id": entity_id, "at": at})
    return RolledBack(entity, "rolled_back", usage, billed, credit)


async def _give_back_usage(conn: AsyncConnection[Any], entity_id: int, entity: str, state: dict[str, Any]) -> Decimal:
    """Each actor's usage that no counter has goes to the actor's counter, in the order of their names."""
    arguments = {
        "entity_id": entity_id,
        "period_id": state["period_id"],
        "since": state["began_at"],
        "late_source": LATE_SOURCE,
    }
    own = await cutover.records_of(conn, "list_own_usage", arguments)
    for one in own:
        await _change(conn, "give_back_usage", {"user": one["user_id"], "amount": one["amount"]}, "running", entity)
    return total(one["amount"] for one in own)


async def _give_back_money(
    conn: AsyncConnection[Any], entity_id: int, entity: str, period_id: int, at: datetime
) -> tuple[Decimal, Decimal]:
    """What was billed and granted here beyond the product's figures, and what was spent."""
    kind, _, name = entity.partition(":")
    user, organization = (name, None) if kind == "user" else (None, name)
    (theirs,) = await cutover.rows_of(conn, Carried, "read_carried", {"user": user, "organization": organization})
    pool = [] if user is None else await cutover.records_of(conn, "find_pool", {"user": user})
    is_owner = any(one["is_owner"] for one in pool)
    (here,) = await cutover.records_of(
        conn, "read_spendable", {"entity_id": entity_id, "period_id": period_id, "at": at}
    )
    credit = EXACT.subtract(Decimal(here["credits_cents"]).scaleb(-2), Decimal(theirs.credits_cents).scaleb(-2))
    billed = ZERO if is_owner else Decimal(here["billed_cents"] - theirs.billed_cents).scaleb(-2)
    owner = user if user is not None else await cutover.value_of(conn, "owner_of", {"organization": organization})
    if billed:
        await _change(conn, "give_back_billed", {"user": owner, "amount": billed}, "billed", entity)
    if credit and organization is not None:
        arguments = {"organization": organization, "amount": credit}
        await _change(conn, "give_back_organization_credits", arguments, "credits", entity)
    elif credit:
        await _change(conn, "give_back_user_credits", {"user": user, "amount": credit}, "credits", entity)
    return billed, credit


async def _change(
    conn: AsyncConnection[Any], statement: str, arguments: dict[str, Any], field: str, entity: str
) -> None:
    """Raises `CutoverRefused` where the mapping has no bare column to write, or no such row is there: nothing is lost without a word."""
    who = arguments.get("user") or arguments.get("organization")
    said = f"{arguments['amount']:f} of {entity} has to go back to {field} of {who}"
    try:
        changed = await cutover.change(conn, statement, arguments)
    except InvalidRequest as error:
        raise CutoverRefused(f"{said}, but the mapping's {field} is no bare column: {error}") from error
    if changed != 1:
        raise CutoverRefused(f"{said}, who has no row there")
