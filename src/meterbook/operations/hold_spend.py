"""Sets money aside for work that has not finished (BEHAVIOUR §8): decided under the entity's gate, so that nothing overshoots."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.admission import AdmissionFacts, admit
from meterbook.core.entries import check_text
from meterbook.core.ledgers import HoldState
from meterbook.core.money import ZERO, parse_usage
from meterbook.core.plans import Catalog
from meterbook.errors import AttributionUnavailable, Conflict, Denied, InvalidUsage, KeyConflict, Problem
from meterbook.operations.attribute_usage import Parties
from meterbook.operations.check_admission import read_admission
from meterbook.postgres import holds

TTL_S_MAX = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class HoldTerms:
    """Who wants to hold how much, under which id, for how long; without `billing` nothing is denied."""

    actor: str
    workspace: str | None
    amount: Decimal
    hold_id: str
    ttl_s: int
    billing: bool = True


async def hold_spend(conn: AsyncConnection[Any], wanted: HoldTerms, catalog: Catalog, at: datetime | None) -> HoldState:
    """In a short transaction of its own, at READ COMMITTED. The same id again gives the same hold.

    Raises `Denied`, `KeyConflict` (another amount or actor for the id), `AttributionUnavailable`.
    """
    payer = await _facts(conn, wanted, catalog, at)
    await holds.lock_gate(conn, payer.usage.facts.entity_id, at)
    known = await holds.find_hold(conn, wanted.hold_id, at)
    if known is not None:
        return _same(known, wanted)
    facts = await _facts(conn, wanted, catalog, at)
    if facts.usage.facts.entity_id != payer.usage.facts.entity_id:
        raise AttributionUnavailable
    admission = admit(facts, wanted.amount)
    if wanted.billing and not admission.allowed:
        raise Denied(admission)
    await holds.grant_hold(conn, _grant(wanted, facts, at))
    granted = await holds.find_hold(conn, wanted.hold_id, at)
    assert granted is not None  # noqa: S101  it was written just now
    return _same(granted, wanted)


async def find_same_hold(conn: AsyncConnection[Any], wanted: HoldTerms, at: datetime | None) -> HoldState | None:
    """The hold of that id, if it is the same one. Raises `KeyConflict`."""
    known = await holds.find_hold(conn, wanted.hold_id, at)
    return None if known is None else _same(known, wanted)


async def _facts(
    conn: AsyncConnection[Any], wanted: HoldTerms, catalog: Catalog, at: datetime | None
) -> AdmissionFacts:
    return await read_admission(conn, wanted.actor, wanted.workspace, catalog, _refuse_to_attribute, at)


async def _refuse_to_attribute(_: Parties, /) -> None:
    """A transaction that holds a gate doesn't wait for a second connection: the caller attributes, and begins again."""
    raise AttributionUnavailable


def _grant(wanted: HoldTerms, facts: AdmissionFacts, at: datetime | None) -> dict[str, object]:
    return {
        "hold_key": wanted.hold_id,
        "entity_id": facts.usage.facts.entity_id,
        "actor_id": facts.actor_id,
        "workspace": wanted.workspace,
        "amount": wanted.amount,
        "ttl_s": wanted.ttl_s,
        "at": at,
    }


def check_hold(amount: object, hold_id: object, ttl_s: object) -> Decimal:
    """The amount. Raises `InvalidUsage`."""
    check_text("hold_id", hold_id)
    try:
        exact = parse_usage(amount)
    except ValueError as wrong:
        raise InvalidUsage([Problem(None, "amount", "invalid_amount", str(wrong))]) from None
    if exact == ZERO:
        raise InvalidUsage([Problem(None, "amount", "invalid_amount", "nothing can't be held")])
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int) or not 0 < ttl_s <= TTL_S_MAX:
        raise InvalidUsage(
            [Problem(None, "ttl_s", "invalid_time", f"{ttl_s!r} is not between 1 and {TTL_S_MAX} seconds")]
        )
    return exact


def _same(known: HoldState, wanted: HoldTerms) -> HoldState:
    if (known.actor, known.amount) == (wanted.actor, wanted.amount):
        return known
    said: dict[str, str | Decimal | int | None] = {"actor": wanted.actor, "amount": wanted.amount}
    raise KeyConflict([Conflict(0, known.id, {"actor": known.actor, "amount": known.amount}, said)])
