"""Records entries, all or nothing, in the transaction of the connection (BEHAVIOUR §3)."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.entries import Entry
from meterbook.core.money import total_of
from meterbook.core.recorded import WRITTEN, Answer, Recorded, recorded_entry
from meterbook.errors import (
    AttributionUnavailable,
    Conflict,
    InProgress,
    InvalidUsage,
    KeyConflict,
    MeterbookError,
    Problem,
)
from meterbook.operations.attribute_usage import ATTEMPTS_MAX, Attribute, Parties
from meterbook.postgres import recording
from meterbook.postgres.recording import FirstSaid

REFUSALS: dict[str, tuple[str, str]] = {
    "unknown_workspace": ("workspace", "is not known: call put_workspace first"),
    "unknown_entity": ("entity", "is not known: call put_organization first"),
    "attribution_disagrees": ("entity", "disagrees with the workspace or the attribution, which name another payer"),
    "period_of_another_payer": ("period", "is not a period of the payer"),
    "invalid_actor": ("actor", "is nobody"),
    "occurred_in_the_future": ("occurred_at", "is more than 5 minutes ahead of the ledger's clock"),
}
"""Outcomes that name a mistake: the field, and what is wrong with it."""


async def record_usage(
    conn: AsyncConnection[Any],
    entries: Sequence[Entry],
    attribute: Attribute,
    at: datetime | None,
    *,
    note_conflicts: bool = True,
) -> Recorded:
    """Raises `KeyConflict`, `InvalidUsage`, `InProgress`, `AttributionUnavailable`; then nothing was written."""
    answers = await answer_usage(conn, entries, attribute, at, note_conflicts=note_conflicts)
    refusal = await find_refusal(conn, entries, answers)
    if refusal is not None:
        raise refusal
    return recorded(answers)


async def answer_usage(
    conn: AsyncConnection[Any],
    entries: Sequence[Entry],
    attribute: Attribute,
    at: datetime | None,
    *,
    note_conflicts: bool,
) -> list[Answer]:
    """An answer an entry, in order: all of them written or replayed, or none written. Asks for attribution as often as it takes."""
    if not entries:
        return []
    for _ in range(ATTEMPTS_MAX):
        answers = await recording.record_usage(conn, entries, at, note_conflicts=note_conflicts)
        unattributed = [answer for answer in answers if answer.outcome == "unattributed"]
        if not unattributed:
            return answers
        await attribute(Parties.of([entries[answer.n - 1] for answer in unattributed], unattributed))
    return await recording.record_usage(conn, entries, at, note_conflicts=note_conflicts)


async def find_refusal(
    conn: AsyncConnection[Any], entries: Sequence[Entry], answers: Sequence[Answer]
) -> MeterbookError | None:
    """What to raise for the answers of one call, if anything: mistakes before conflicts before what may pass by itself."""
    outcomes = {answer.outcome for answer in answers}
    if outcomes <= WRITTEN:
        return None
    problems = [
        _problem(entry, answer) for entry, answer in zip(entries, answers, strict=True) if answer.outcome in REFUSALS
    ]
    if problems:
        return InvalidUsage(problems)
    if "conflict" in outcomes:
        first_said = await recording.list_first_said(conn, [a.key for a in answers if a.outcome == "conflict"])
        return KeyConflict(list(_conflicts(entries, answers, first_said)))
    if "in_progress" in outcomes or outcomes <= WRITTEN | {"not_written"}:
        return InProgress()
    return AttributionUnavailable()


def _problem(entry: Entry, answer: Answer) -> Problem:
    if answer.outcome == "attribution_disagrees" and entry.entity is None:
        message = f"its payer {entry.payer!r} is not who its surrogate {entry.payer_id} stands for"
        return Problem(entry.position, "attribution", answer.outcome, message)
    field, message = REFUSALS[answer.outcome]
    return Problem(entry.position, field, answer.outcome, f"{getattr(entry, field)!r} {message}")


def _conflicts(
    entries: Sequence[Entry], answers: Iterable[Answer], first_said: dict[str, FirstSaid]
) -> Iterable[Conflict]:
    for entry, answer in zip(entries, answers, strict=True):
        if answer.outcome == "conflict":
            if answer.key in first_said:
                first = first_said[answer.key]._asdict()
                del first["key"]
            else:  # nothing was written: the other version stands in this call
                first = _said(next(other for other in entries if other.key == entry.key))
            yield Conflict(entry.position, answer.key, first, _said(entry))


def _said(entry: Entry) -> dict[str, str | Decimal | int | None]:
    return {
        "actor": entry.actor,
        "category": entry.category,
        "source": entry.source,
        "description": entry.description,
        "amount": entry.amount,
        "entity": entry.entity,
        "period": entry.period,
    }


def recorded(answers: Sequence[Answer]) -> Recorded:
    """The reply to a call of which nothing was refused."""
    inserted = [answer.amount for answer in answers if answer.outcome == "inserted"]
    replayed = sum([answer.outcome == "replayed" for answer in answers])
    return Recorded(len(inserted), replayed, total_of(inserted), tuple([recorded_entry(a) for a in answers]))
