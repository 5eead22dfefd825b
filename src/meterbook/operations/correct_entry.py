"""Corrects an entry by a new one that points at it (BEHAVIOUR §3.7)."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from meterbook.core.entries import KEY_LENGTH_MAX, check_parsed, check_text
from meterbook.core.event_keys import of_event_key, plain
from meterbook.core.money import ZERO, parse_amount
from meterbook.core.recorded import WRITTEN, Answer, Recorded
from meterbook.errors import (
    AttributionUnavailable,
    Conflict,
    CorrectionRefused,
    InProgress,
    KeyConflict,
    MeterbookError,
    UnknownEntry,
)
from meterbook.operations.attribute_usage import ATTEMPTS_MAX, Attribute, Parties
from meterbook.operations.record_usage import recorded
from meterbook.postgres import recording

REASON_LENGTH_MAX = 1000


async def correct_entry(
    conn: AsyncConnection[Any],
    entry_id: str,
    amount: str | Decimal | int,
    reason: str,
    event_key: str,
    attribute: Attribute,
    at: datetime | None,
) -> Recorded:
    """`amount` is added to the entry: negative takes back. Raises `UnknownEntry`, `CorrectionRefused`, `KeyConflict`, `InvalidUsage`."""
    exact = check_parsed(parse_amount, amount)
    check_text("reason", reason, REASON_LENGTH_MAX)
    arguments = {
        "entry": _uuid(entry_id),
        "amount": plain(exact),
        "reason": reason,
        "key": of_event_key(check_text("event_key", event_key, KEY_LENGTH_MAX)),
        "at": at,
    }
    if exact == ZERO:
        return Recorded(0, 0, ZERO, ())
    answer = await recording.correct_entry(conn, arguments)
    for _ in range(ATTEMPTS_MAX):
        if answer.outcome != "unattributed" or answer.entity is None:
            break
        await attribute(Parties(entities=(answer.entity,)))
        answer = await recording.correct_entry(conn, arguments)
    if answer.outcome in WRITTEN:
        return recorded([answer])
    raise await _refusal(conn, entry_id, exact, answer)


def _uuid(entry_id: str) -> UUID:
    try:
        return UUID(entry_id)
    except (ValueError, AttributeError, TypeError):
        raise UnknownEntry(str(entry_id)) from None


async def _refusal(conn: AsyncConnection[Any], entry_id: str, amount: Decimal, answer: Answer) -> MeterbookError:
    if answer.outcome == "unknown_entry":
        return UnknownEntry(entry_id)
    if answer.outcome == "below_zero":
        return CorrectionRefused(f"{plain(amount)} would leave entry {entry_id} and its corrections below zero")
    if answer.outcome == "corrects_a_correction":
        return CorrectionRefused(f"entry {entry_id} is a correction; correct the entry that it points at")
    if answer.outcome == "conflict":
        said = await recording.list_first_said(conn, [answer.key])
        first = {name: value for name, value in said[answer.key]._asdict().items() if name != "key"}
        return KeyConflict([Conflict(0, answer.key, first, {"amount": amount, "corrects": str(_uuid(entry_id))})])
    return InProgress() if answer.outcome == "in_progress" else AttributionUnavailable()
