"""Ends a hold with the real cost, or without one (BEHAVIOUR §8): the ledger row and the end of the hold are one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from psycopg import AsyncConnection

from meterbook.core.entries import Entry, Usage, check_amount, check_entries, check_text
from meterbook.core.event_keys import of_event_key
from meterbook.core.money import ZERO
from meterbook.core.recorded import Recorded
from meterbook.errors import Conflict, KeyConflict, UnknownHold
from meterbook.operations.attribute_usage import Attribute
from meterbook.operations.record_usage import record_usage
from meterbook.postgres import holds
from meterbook.postgres.holds import EndedHold

ERASED = "(erased)"
"""Who acted, where the person was deleted while the work ran: its cost is owed all the same, and nobody is named again."""


@dataclass(frozen=True, slots=True)
class Settled:
    """`state`: how the hold stood: `settled`, or `expired` or `released` before, and the usage is recorded all the same."""

    state: Literal["settled", "expired", "released"]
    recorded: Recorded


@dataclass(frozen=True, slots=True)
class Settlement:
    """The real cost, below or above what was held; 0 writes no row."""

    amount: str | Decimal | int
    source: str
    description: str
    event_key: str | None = None
    category: str = "model"
    execution: str | None = None
    occurred_at: datetime | None = None


async def settle_hold(
    conn: AsyncConnection[Any], hold_id: str, said: Settlement, currency: str, attribute: Attribute, at: datetime | None
) -> Settled:
    """In the connection's transaction. The row goes to the hold's entity, whoever pays now. Raises `UnknownHold`, `KeyConflict`."""
    check_text("hold_id", hold_id)
    amount = check_amount(said.amount)
    event_key = said.event_key or f"hold:{hold_id}"
    key = of_event_key(event_key)
    ended = await holds.end_hold(conn, hold_id, "settled", settle_key=key, settled=amount, at=at)
    _refuse(ended, hold_id, amount)
    entries = _entries(ended, said, amount, event_key, currency)
    recorded = await record_usage(conn, entries, attribute, at) if entries else Recorded(0, 0, ZERO, ())
    return Settled(ended.outcome if ended.outcome in ("expired", "released") else "settled", recorded)  # type: ignore[arg-type]


async def release_hold(conn: AsyncConnection[Any], hold_id: str, at: datetime | None) -> bool:
    """True if it ended now; a hold that was dead already stays as it was. Raises `UnknownHold`."""
    check_text("hold_id", hold_id)
    ended = await holds.end_hold(conn, hold_id, "released", settle_key=None, settled=None, at=at)
    if ended.outcome == "unknown":
        raise UnknownHold(f"no hold has the id {hold_id!r}")
    return ended.outcome == "active"


def _refuse(ended: EndedHold, hold_id: str, amount: Decimal) -> None:
    if ended.outcome == "unknown":
        raise UnknownHold(f"no hold has the id {hold_id!r}")
    if ended.outcome == "conflict":
        raise KeyConflict([Conflict(0, hold_id, {}, {"amount": amount})])


def _entries(ended: EndedHold, said: Settlement, amount: Decimal, event_key: str, currency: str) -> Sequence[Entry]:
    usage = Usage(
        ended.actor or ERASED,
        said.source,
        said.description,
        amount,
        category=said.category,
        event_key=event_key,
        execution=said.execution,
        occurred_at=said.occurred_at,
    )
    return [
        entry._replace(payer_id=ended.entity_id, workspace=ended.workspace)
        for entry in check_entries([usage], currency)
    ]
