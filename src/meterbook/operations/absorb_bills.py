"""What old instances bill after the switch, and grant or spend of credits (BEHAVIOUR §13): known here, so that nobody pays twice."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.cutover_plan import amount_problem
from meterbook.core.money import cents
from meterbook.operations.switch_entity import GRANT_SOURCE
from meterbook.postgres import billing, cutover


@dataclass(slots=True)
class AbsorbedBills:
    """Cents. `notes`: what could not be understood, and was left as it is."""

    billed_cents: int = 0
    granted_cents: int = 0
    notes: list[str] = field(default_factory=list)


async def list_rebilled(conn: AsyncConnection[Any], entities: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Switched entities whose billed overage or credits say something else than when they were last read."""
    arguments = {"entities": None if entities is None else list(entities)}
    return await cutover.records_of(conn, "list_rebilled", arguments)


async def absorb_bills(conn: AsyncConnection[Any], rebilled: Sequence[dict[str, Any]], at: datetime) -> AbsorbedBills:
    """In the connection's transaction, each under the lock of its period. A billed overage that falls is the product's own close."""
    done = AbsorbedBills()
    for one in rebilled:
        problem = amount_problem("billed", one["billed"]) or amount_problem("credits", one["credits"])
        if problem is not None:
            done.notes.append(f"{one['entity']}: {problem}: nothing of it is absorbed")
            continue
        state = await billing.lock_period(conn, one["entity_id"], one["period_id"])
        await _absorb(conn, one, at, done, is_open=state == "open")
        figures = {"entity_id": one["entity_id"], "billed": one["billed"], "credits": one["credits"]}
        await cutover.change(conn, "note_rebilled", figures)
    return done


async def _absorb(
    conn: AsyncConnection[Any], one: dict[str, Any], at: datetime, done: AbsorbedBills, *, is_open: bool
) -> None:
    billed = 0 if one["was_billed"] is None else max(_cents(one, "billed"), 0)
    credit = 0 if one["was_credits"] is None else _cents(one, "credits")
    spent = max(-credit, 0)
    if billed and not is_open:
        done.notes.append(f"{one['entity']}: an old instance billed {_shown(billed)} of a period that is closed here")
    elif billed:
        arguments = {
            "entity_id": one["entity_id"],
            "period_id": one["period_id"],
            "cents": billed,
            "spent": spent,
            "at": at,
        }
        await cutover.value_of(conn, "carry_billed", arguments)
        done.billed_cents += billed
    if spent > billed:
        done.notes.append(
            f"{one['entity']}: its credits fell by {_shown(spent - billed)} beyond what was billed: they are here still"
        )
    if credit > 0:
        await _grant(conn, one["entity_id"], credit, at)
        done.granted_cents += credit


async def _grant(conn: AsyncConnection[Any], entity_id: int, amount_cents: int, at: datetime) -> None:
    number = await cutover.value_of(conn, "count_grants", {"entity_id": entity_id})
    await billing.grant_credit(
        conn, entity_id, f"cutover:{entity_id}:{number}", amount_cents, GRANT_SOURCE, priority=50, expires_at=None, period_id=None, at=at
    )  # fmt: skip


def _cents(one: dict[str, Any], name: str) -> int:
    """By how much a figure of theirs has changed."""
    return cents(one[name]) - cents(one[f"was_{name}"])


def _shown(amount_cents: int) -> str:
    return f"{Decimal(amount_cents).scaleb(-2):f}"
