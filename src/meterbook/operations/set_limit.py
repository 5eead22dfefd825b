"""Edits of limits and caps, blocks, and baselines (BEHAVIOUR §8, §13)."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.admission import BLOCK_MESSAGES
from meterbook.core.arguments import check_moment
from meterbook.core.baselines import dated_baseline
from meterbook.core.entries import check_amount, check_text
from meterbook.core.limits import edit_refusal
from meterbook.core.money import cents
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import UsageReport
from meterbook.errors import InvalidUsage, LimitRefused, Problem
from meterbook.postgres import billing, reading


async def set_limit(
    conn: AsyncConnection[Any],
    usage: UsageReport,
    amount: object,
    by: str | None,
    catalog: Catalog,
    at: datetime | None,
) -> Decimal:
    """Stores a limit, half up to cents, and gives it. `by`: the user who edits; None: an operator. Raises `LimitRefused`."""
    stored = Decimal(cents(check_amount(amount))).scaleb(-2)
    if by is not None:
        check_text("by", by)
    role = None if by is None else await reading.find_role(conn, usage.entity, by)
    refusal = edit_refusal(usage.facts, catalog.plan(usage.period.plan), stored, by_operator=by is None, role=role)
    if refusal is not None:
        raise LimitRefused(refusal)
    await billing.set_limit(conn, usage.facts.entity_id, stored, by, at)
    return stored


async def set_member_cap(conn: AsyncConnection[Any], organization: str, user: str, cap: object) -> None:
    """None: no cap; 0: nothing. Raises `MembershipRefused` for somebody who is no member."""
    check_text("organization", organization)
    check_text("user", user)
    await billing.set_member_cap(conn, organization, user, None if cap is None else check_amount(cap))


async def set_baseline(
    conn: AsyncConnection[Any], usage: UsageReport, amount: object, audit: Sequence[tuple[datetime, object]]
) -> None:
    """What a legacy counter held of the running period; `audit` rows give it days, oldest first, until it is used up."""
    total = check_amount(amount)
    rows = [_audited(row) for row in _listed(audit)]
    by_day = dated_baseline(total, rows, usage.period.starts_at, usage.period.ends_at)
    await billing.set_baseline(conn, usage.facts, total, by_day)


def check_block(reason: object, reference: object) -> None:
    """Raises `InvalidUsage`; an unknown reason ends no block without a word either."""
    if check_text("reason", reason) not in BLOCK_MESSAGES:
        message = f"{reason!r:.40} is not one of {', '.join(BLOCK_MESSAGES)}"
        raise InvalidUsage([Problem(None, "reason", "unknown_reason", message)])
    if reference != "":
        check_text("reference", reference)


def _listed(audit: object) -> Sequence[object]:
    if isinstance(audit, list | tuple):
        return audit
    message = f"{type(audit).__name__} is no list: pass (occurred_at, amount) pairs"
    raise InvalidUsage([Problem(None, "audit", "invalid_audit", message)])


def _audited(row: object) -> tuple[datetime, Decimal]:
    if isinstance(row, list | tuple) and len(row) == len(("occurred_at", "amount")):
        return check_moment("audit", row[0]), check_amount(row[1], "audit")
    raise InvalidUsage([Problem(None, "audit", "invalid_audit", "a row is no pair of occurred_at and amount")])
