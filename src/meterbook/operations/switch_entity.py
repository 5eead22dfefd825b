"""The switch (BEHAVIOUR §13): what the counters say, less what the ledger has of it already, becomes the running period's baseline."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.cutover import Carried, SwitchedEntity
from meterbook.core.cutover_plan import amount_problem
from meterbook.core.money import ZERO, total_of
from meterbook.errors import CutoverRefused
from meterbook.operations.begin_counters import set_baseline_of
from meterbook.operations.cutover_step import CutoverStep
from meterbook.operations.feed_ledger import Looked, feed_entities, look_at
from meterbook.postgres import billing, cutover

GRANT_SOURCE = "cutover"
BLOCK_REASONS = ("payment_failed", "dispute", "administrative")


async def switch_entity(
    conn: AsyncConnection[Any], step: CutoverStep, entity_id: int, entity: str, *, despite_differences: bool = False
) -> SwitchedEntity:
    """In the connection's transaction, undone when this raises `CutoverRefused`. It locks no row of theirs: what moves later is late."""
    at = step.at
    (state,) = await cutover.records_of(conn, "find_state", {"entity_id": entity_id})
    if state["state"] in ("switched", "retired"):
        return SwitchedEntity(entity, "before")
    await _check(conn, entity_id, entity, state, at, despite_differences=despite_differences)
    fed = await feed_entities(conn, step, {entity_id: entity})
    if fed.has_more:
        raise CutoverRefused("more rows are waiting than one look takes: let `shadow` catch up first")
    looked = await look_at(conn, step.tables, [entity_id], 0, switched=False)
    readings = looked.readings.get(entity_id, [])
    bases = {reading.name: reading.base_at_switch for reading in readings}
    if total_of(bases.values()) < ZERO:
        raise CutoverRefused(f"the ledger has {-total_of(bases.values()):f} of it that no counter has (yet)")
    await _note_bases(conn, looked, entity_id, at)
    baseline, dated = await set_baseline_of(conn, step.tables, entity_id, state["period_id"], at)
    carried = await _carry(conn, entity_id, state["period_id"], entity, at)
    (theirs,) = await cutover.rows_of(conn, Carried, "read_carried", parties_of(entity))
    figures = {"billed": None if await _bills_elsewhere(conn, entity) else theirs.billed, "credits": theirs.credits}
    await cutover.change(conn, "switch_entity", {"entity_id": entity_id, "at": at, **figures})
    await cutover.change(conn, "unshadow_entity", {"entity_id": entity_id})
    return SwitchedEntity(
        entity,
        "switched",
        baseline,
        dated,
        total_of(reading.value for reading in readings),
        carried.billed_cents,
        carried.credits_cents,
        carried.stored_limit,
        carried.blocked,
    )


async def _check(
    conn: AsyncConnection[Any],
    entity_id: int,
    entity: str,
    state: dict[str, Any],
    at: datetime,
    *,
    despite_differences: bool,
) -> None:
    if state["state"] != "shadow":
        raise CutoverRefused(f"is {state['state'].replace('_', ' ')}: run `shadow` first")
    if await cutover.value_of(conn, "is_refused", {"subject": entity}):
        raise CutoverRefused("something of it could not be taken over: `meterbook cutover status` says what")
    if state["ends_at"] <= at or state["period_state"] != "open":
        raise CutoverRefused("its period is over: run `shadow` until the next one is compared")
    home = await cutover.value_of(conn, "home_of", {"entity_id": entity_id})
    if home != state["period_id"]:
        raise CutoverRefused("another period runs by now: run `shadow` until that is compared")
    if state["difference"] and not despite_differences:
        raise CutoverRefused(f"counters and ledger differ by {state['difference']:f}: run `shadow` until they agree")


def parties_of(entity: str) -> dict[str, str | None]:
    """Whose rows have an entity's figures: the user's own, or the organization's and its owner's."""
    kind, _, name = entity.partition(":")
    return {"user": name if kind == "user" else None, "organization": name if kind == "organization" else None}


async def _bills_elsewhere(conn: AsyncConnection[Any], entity: str) -> bool:
    """What stands on the row of an organization's owner was billed to the organization."""
    user = parties_of(entity)["user"]
    pool = [] if user is None else await cutover.records_of(conn, "find_pool", {"user": user})
    return any(one["is_owner"] for one in pool)


def _beside_a_pool(said: Carried, *, is_owner: bool, owner_blocked: bool) -> Carried:
    """What is left to a person for whom an organization pays: its bills stand on the owner's row, and its block is not theirs."""
    blocked = None if is_owner or owner_blocked or said.blocked is None else "administrative"
    return Carried(ZERO if is_owner else said.billed, said.credits, said.usage_limit, blocked)


async def _note_bases(conn: AsyncConnection[Any], looked: Looked, entity_id: int, at: datetime) -> None:
    readings = looked.readings.get(entity_id, [])
    arguments = {
        "names": [one.name for one in readings],
        "bases": [one.base_at_switch for one in readings],
        "values": [one.value for one in readings],
        "lasts": [one.last for one in readings],
        "falls": [looked.fall_ids[one.name] for one in readings],
        "at": at,
    }
    if readings:
        await cutover.change(conn, "note_bases", arguments)


async def _carry(conn: AsyncConnection[Any], entity_id: int, period_id: int, entity: str, at: datetime) -> Carried:
    """What was billed, credits, limit and block, beyond what an earlier switch that was rolled back has left here."""
    parties = parties_of(entity)
    user = parties["user"]
    (said,) = await cutover.rows_of(conn, Carried, "read_carried", parties)
    for field, amount in (
        ("billed", said.billed),
        ("credits", said.credits),
        ("usage_limit", said.usage_limit or ZERO),
    ):
        if (problem := amount_problem(field, amount)) is not None:
            raise CutoverRefused(problem)
    if user is not None:
        for pooled in await cutover.records_of(conn, "find_pool", {"user": user}):
            said = _beside_a_pool(said, is_owner=pooled["is_owner"], owner_blocked=pooled["owner_blocked"])
    (here,) = await cutover.records_of(
        conn, "read_spendable", {"entity_id": entity_id, "period_id": period_id, "at": at}
    )
    billed, credit = said.billed_cents - here["billed_cents"], said.credits_cents - here["credits_cents"]
    if billed < 0:
        raise CutoverRefused(
            f"{-billed} cents more were billed here of this period than the product says: mend its counter"
        )
    if credit < 0:
        raise CutoverRefused(f"{-credit} cents of credit more are here than the product says: mend its balance")
    arguments = {"entity_id": entity_id, "period_id": period_id, "at": at}
    await cutover.value_of(conn, "carry_billed", {**arguments, "cents": billed, "spent": 0})
    if credit:
        number = await cutover.value_of(conn, "count_grants", {"entity_id": entity_id})
        grant = f"cutover:{entity_id}:{number}"
        await billing.grant_credit(
            conn, entity_id, grant, credit, GRANT_SOURCE, priority=50, expires_at=None, period_id=None, at=at
        )
    if said.stored_limit is not None:
        await billing.set_limit(conn, entity_id, said.stored_limit, "cutover", at)
    if said.blocked is not None:
        reason = said.blocked if said.blocked in BLOCK_REASONS else "administrative"
        await billing.set_block(conn, entity_id, reason, "", blocked=True, at=at)
    return said
