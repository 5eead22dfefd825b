"""Grants credit, once a grant id (BEHAVIOUR §9)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.arguments import check_moment, check_whole
from meterbook.core.credits import Grant, spendable_cents
from meterbook.core.entries import check_parsed, check_text
from meterbook.core.ledgers import CreditAccount
from meterbook.core.money import parse_whole_cents
from meterbook.errors import Conflict, InvalidUsage, KeyConflict, Problem
from meterbook.postgres import billing

PRIORITY = 50
PRIORITY_BOUND = 1_000_000
PURCHASE_MIN_CENTS, PURCHASE_MAX_CENTS = 10_00, 1000_00
OURS = ("close:", "correction:", "moved:")
"""Grant ids begin so that are the engine's own: what is given back, and what passes on with a subscription."""

Said = dict[str, str | Decimal | int | None]


@dataclass(frozen=True, slots=True)
class CreditTerms:
    """`amount` in whole cents above 0; `source` "purchase" is bounded to 10.00 … 1000.00."""

    amount: str | Decimal | int
    grant_id: str
    source: str = "promotion"
    priority: int = PRIORITY
    expires_at: datetime | None = None


async def grant_credit(conn: AsyncConnection[Any], entity_id: int, terms: CreditTerms, at: datetime | None) -> bool:
    """False: the same grant was there already. Raises `KeyConflict` for another grant of that id, `InvalidUsage`."""
    amount_cents = _check(terms)
    outcome = await billing.grant_credit(
        conn,
        entity_id,
        terms.grant_id,
        amount_cents,
        terms.source,
        priority=terms.priority,
        expires_at=terms.expires_at,
        period_id=None,
        at=at,
    )
    if outcome == "conflict":
        now = _said(terms.source, terms.priority, terms.expires_at, amount_cents)
        raise await _conflict(conn, terms.grant_id, entity_id, now)
    return outcome == "granted"


async def grant_back(
    conn: AsyncConnection[Any], entity_id: int, grant_id: str, cents: int, period_id: int, at: datetime | None
) -> None:
    """What corrections took out of a bill, once (§3.7). Raises `KeyConflict`: money is not lost without a word."""
    outcome = await billing.grant_credit(
        conn,
        entity_id,
        grant_id,
        cents,
        "correction",
        priority=PRIORITY,
        expires_at=None,
        period_id=period_id,
        at=at,
    )
    if outcome == "conflict":
        raise await _conflict(conn, grant_id, entity_id, _said("correction", PRIORITY, None, cents))


async def _conflict(conn: AsyncConnection[Any], grant_id: str, entity_id: int, now: Said) -> KeyConflict:
    """Of whom the grant is, is said only where that differs: the key may be another entity's."""
    known = await billing.find_first_grant(conn, grant_id)
    first = _said(known.source, known.priority, known.expires_at, known.cents)
    if known.entity_id != entity_id:
        first, now = first | {"entity_id": known.entity_id}, now | {"entity_id": entity_id}
    return KeyConflict([Conflict(0, grant_id, first, now)])


def _said(source: str, priority: int, expires_at: datetime | None, cents: int) -> Said:
    until = "never" if expires_at is None else expires_at.astimezone(UTC).isoformat()
    return {"amount": Decimal(cents).scaleb(-2), "source": source, "priority": priority, "expires_at": until}


async def read_credits(conn: AsyncConnection[Any], entity_id: int, now: datetime) -> CreditAccount:
    grants = await billing.list_grants(conn, entity_id)
    left = [Grant(0, one.remaining_cents, one.priority, one.expires_at, one.granted_at) for one in grants]
    return CreditAccount(spendable_cents(left, now), tuple(grants))


def _check(terms: CreditTerms) -> int:
    check_text("grant_id", terms.grant_id)
    check_text("source", terms.source)
    if terms.grant_id.startswith(OURS):
        message = f"{terms.grant_id!r} is a name of meterbook's own grants ({', '.join(OURS)}…)"
        raise InvalidUsage([Problem(None, "grant_id", "reserved", message)])
    amount_cents = check_parsed(parse_whole_cents, terms.amount)
    if terms.source == "purchase" and not PURCHASE_MIN_CENTS <= amount_cents <= PURCHASE_MAX_CENTS:
        message = f"{terms.amount} is not between 10.00 and 1000.00"
        raise InvalidUsage([Problem(None, "amount", "purchase_out_of_bounds", message)])
    check_whole("priority", terms.priority, -PRIORITY_BOUND, PRIORITY_BOUND)
    if terms.expires_at is not None:
        check_moment("expires_at", terms.expires_at)
    return amount_cents
