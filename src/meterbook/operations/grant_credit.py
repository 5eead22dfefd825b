"""Grants credit, once a grant id (BEHAVIOUR §9)."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.credits import Grant, spendable_cents
from meterbook.core.entries import check_text
from meterbook.core.ledgers import CreditAccount
from meterbook.core.money import EXACT, ZERO, cents, parse_amount
from meterbook.errors import Conflict, InvalidUsage, KeyConflict, Problem
from meterbook.postgres import billing

PRIORITY = 50
PURCHASE_MIN, PURCHASE_MAX = Decimal("10.00"), Decimal("1000.00")


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
        raise KeyConflict(
            [Conflict(0, terms.grant_id, {}, {"amount": Decimal(amount_cents).scaleb(-2), "source": terms.source})]
        )
    return outcome == "granted"


async def read_credits(conn: AsyncConnection[Any], entity_id: int, now: datetime) -> CreditAccount:
    grants = await billing.list_grants(conn, entity_id)
    left = [Grant(0, one.remaining_cents, one.priority, one.expires_at, one.granted_at) for one in grants]
    return CreditAccount(spendable_cents(left, now), tuple(grants))


def _check(terms: CreditTerms) -> int:
    check_text("grant_id", terms.grant_id)
    check_text("source", terms.source)
    try:
        amount = parse_amount(terms.amount)
    except ValueError as wrong:
        raise InvalidUsage([Problem(None, "amount", "invalid_amount", str(wrong))]) from None
    if amount <= ZERO or EXACT.scaleb(amount, 2) != cents(amount):
        raise InvalidUsage(
            [Problem(None, "amount", "invalid_amount", f"{amount} is not a number of whole cents above 0")]
        )
    if terms.source == "purchase" and not PURCHASE_MIN <= amount <= PURCHASE_MAX:
        message = f"{amount} is not between {PURCHASE_MIN} and {PURCHASE_MAX}"
        raise InvalidUsage([Problem(None, "amount", "purchase_out_of_bounds", message)])
    if terms.expires_at is not None and terms.expires_at.utcoffset() is None:
        raise InvalidUsage([Problem(None, "expires_at", "naive_time", "has no time zone: pass an aware datetime")])
    return cents(amount)
