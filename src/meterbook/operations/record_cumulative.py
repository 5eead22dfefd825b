"""A running total (BEHAVIOUR §3.6): the ledger keeps its maximum and grows by each rise."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.entries import Entry, Usage, check_amount, check_entries, check_text
from meterbook.core.money import ZERO
from meterbook.core.recorded import Answer, Recorded
from meterbook.errors import Conflict, InvalidUsage, KeyConflict, Problem
from meterbook.operations.attribute_usage import ATTEMPTS_MAX, Attribute, Parties
from meterbook.operations.record_usage import find_refusal, recorded
from meterbook.postgres import recording

NOTHING_NEW = Recorded(0, 0, ZERO, ())


async def record_cumulative(
    conn: AsyncConnection[Any],
    request: str,
    usage: Usage,
    currency: str,
    attribute: Attribute,
    at: datetime | None,
    *,
    names_category: bool = True,
) -> Recorded:
    """`usage.amount` is the running total. `amount` of the reply is the rise, 0 if there is none; order doesn't matter.

    Raises `KeyConflict` when a later flush names another actor, workspace, entity, category, source or description than the first.
    """
    check_text("request", request)
    if usage.period is not None:
        raise InvalidUsage([Problem(None, "period", "invalid_period", "each rise is placed by its own time")])
    entries = check_entries([usage._replace(event_key=request)], currency)
    if not entries:
        return NOTHING_NEW
    arguments = entries[0]._asdict() | {"request": request, "total": entries[0].amount, "at": at}
    if not names_category:
        arguments["category"] = None
    answer = await _flush(conn, arguments, entries[0], attribute)
    if answer.outcome == "unchanged":
        return NOTHING_NEW
    if answer.outcome == "conflict":
        first = await recording.find_first_flush(conn, request)
        raise KeyConflict([_conflict(request, entries[0], answer, first)])
    refusal = await find_refusal(conn, entries, [answer])
    if refusal is not None:
        raise refusal
    return recorded([answer])


async def _flush(conn: AsyncConnection[Any], arguments: dict[str, Any], entry: Entry, attribute: Attribute) -> Answer:
    answer = await recording.record_cumulative(conn, arguments)
    for _ in range(ATTEMPTS_MAX):
        if answer.outcome != "unattributed":
            break
        await attribute(Parties.of([entry], [answer]))
        answer = await recording.record_cumulative(conn, arguments)
    return answer


def _conflict(request: str, entry: Entry, answer: Answer, first: Mapping[str, str | Decimal | None]) -> Conflict:
    now: dict[str, str | Decimal | int | None] = {
        "request": request,
        "actor": entry.actor,
        "workspace": entry.workspace,
        "entity": entry.entity,
        "source": entry.source,
        "description": entry.description,
        "category": entry.category,
        "total": entry.amount,
    }
    return Conflict(0, answer.key, {"request": request, **first}, now)


def running_total(total: object) -> Decimal:
    """Raises `InvalidUsage`."""
    return check_amount(total, "total")
