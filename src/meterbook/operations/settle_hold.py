"""Ends holds with the real cost, or without one (BEHAVIOUR §8): the ledger row and the end of the hold are one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection

from meterbook.core.entries import Entry, Usage, acted_by, check_entries, check_text
from meterbook.core.event_keys import of_event_key
from meterbook.core.money import ZERO
from meterbook.core.recorded import Answer, Recorded
from meterbook.errors import Conflict, KeyConflict, MeterbookError, UnknownHold
from meterbook.operations.attribute_usage import Attribute
from meterbook.operations.record_usage import record_usage, recorded
from meterbook.postgres import holds, recording
from meterbook.postgres.holds import EndedHold, EndingSaid

ERASED = "(erased)"
"""Who acted, where the person was deleted while the work ran: its cost is owed all the same, and nobody is named again."""
WRITTEN = ("inserted", "replayed")


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


class Ending(NamedTuple):
    """A settle or a release, checked. `entry`: of a settle with a cost, but for who acted and who pays, which the hold says."""

    said: EndingSaid
    entry: Entry | None

    @property
    def hold_id(self) -> str:
        return self.said.hold_id


Ended = Settled | bool
"""Of a release: whether the hold ended now."""


def check_settle(hold_id: str, said: Settlement, currency: str) -> Ending:
    """Raises `InvalidUsage`: what was said is looked at before it shares a transaction with others."""
    check_text("hold_id", hold_id)
    event_key = said.event_key or f"hold:{hold_id}"
    usage = Usage(
        ERASED,
        said.source,
        said.description,
        said.amount,
        category=said.category,
        event_key=event_key,
        execution=said.execution,
        occurred_at=said.occurred_at,
    )
    entries = check_entries([usage], currency)
    entry = entries[0] if entries else None
    key, amount = (entry.key, entry.amount) if entry else (of_event_key(event_key), ZERO)
    return Ending(EndingSaid(hold_id, "settled", key, amount), entry)


def check_release(hold_id: str) -> Ending:
    """Raises `InvalidUsage`."""
    check_text("hold_id", hold_id)
    return Ending(EndingSaid(hold_id, "released", None, None), None)


async def end_hold(
    conn: AsyncConnection[Any], ending: Ending, currency: str, attribute: Attribute, at: datetime | None
) -> Ended:
    """In the connection's transaction; waits for whoever is ending the same hold. The row goes to the hold's entity, whoever pays now.

    Raises `UnknownHold`, `KeyConflict`.
    """
    await holds.lock_hold(conn, ending.hold_id)
    (ended,) = await holds.end_holds(conn, [ending.said], at)
    refusal = _refusal(ended, ending)
    if refusal is not None:
        raise refusal
    entry = _entry(ended, ending, currency)
    return _ended(ended, ending, await record_usage(conn, [entry], attribute, at) if entry else NOTHING)


class Unended(MeterbookError):
    """Some of a group could not be ended with the others: undo what was written."""

    def __init__(self, guilty: frozenset[int]) -> None:
        super().__init__()
        self._guilty = guilty

    def guilty_of(self, names: Sequence[int]) -> list[int]:
        """Of the group's names, in its order, those of the guilty."""
        return [names[n] for n in sorted(self._guilty)]


async def end_holds(
    conn: AsyncConnection[Any], endings: Sequence[Ending], currency: str, at: datetime | None, key_wait_ms: int
) -> list[Ended | MeterbookError]:
    """Those of several callers, each hold once, in a transaction of their own; an answer each.

    Raises `Unended` for those that have to wait for somebody, to be attributed, or whose key is taken: none of them holds up the others.
    """
    ended = await holds.end_holds(conn, [ending.said for ending in endings], at)
    busy = frozenset(n for n, one in enumerate(ended) if one.outcome == "busy")
    if busy:
        raise Unended(busy)
    refusals = [_refusal(one, ending) for one, ending in zip(ended, endings, strict=True)]
    entries = {
        n: entry
        for n, (one, ending) in enumerate(zip(ended, endings, strict=True))
        if refusals[n] is None and (entry := _entry(one, ending, currency))
    }
    answers = await _record(conn, entries, at, key_wait_ms) if entries else {}
    return [
        refusal or _ended(one, ending, recorded([answers[n]]) if n in answers else NOTHING)
        for n, (refusal, one, ending) in enumerate(zip(refusals, ended, endings, strict=True))
    ]


async def _record(
    conn: AsyncConnection[Any], entries: dict[int, Entry], at: datetime | None, key_wait_ms: int
) -> dict[int, Answer]:
    answers = await recording.record_usage(
        conn, list(entries.values()), at, note_conflicts=False, key_wait_ms=key_wait_ms
    )
    by_place = dict(zip(entries, answers, strict=True))
    guilty = frozenset(n for n, answer in by_place.items() if answer.outcome not in (*WRITTEN, "not_written"))
    if guilty:
        raise Unended(guilty)
    return by_place


NOTHING = Recorded(0, 0, ZERO, ())


def _ended(ended: EndedHold, ending: Ending, written: Recorded) -> Ended:
    if ending.said.how == "released":
        return ended.outcome == "active"
    return Settled(ended.outcome if ended.outcome in ("expired", "released") else "settled", written)  # type: ignore[arg-type]


def _refusal(ended: EndedHold, ending: Ending) -> MeterbookError | None:
    if ended.outcome == "unknown":
        return UnknownHold(f"no hold has the id {ending.hold_id!r}")
    if ended.outcome == "conflict":
        key = None if ending.said.settle_key is None else str(UUID(ending.said.settle_key))
        first = {"amount": ended.first_settled, "entry": ended.first_key}
        return KeyConflict([Conflict(0, ending.hold_id, first, {"amount": ending.said.settled, "entry": key})])
    return None


def _entry(ended: EndedHold, ending: Ending, currency: str) -> Entry | None:
    entry = ending.entry
    if entry is not None and ended.actor is not None:
        entry = acted_by(entry, ended.actor, currency)
    return None if entry is None else entry._replace(payer_id=ended.entity_id, workspace=ended.workspace)
