"""Counters that old instances still move after the switch (BEHAVIOUR §13): absorbed as entries, never lost and never counted twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.cutover import Movement, Reading, movements, outstanding, recordable
from meterbook.core.entries import Usage, check_entries
from meterbook.core.event_keys import of_event_key, plain
from meterbook.core.money import EXACT, ZERO, total_of
from meterbook.operations.attribute_usage import Attribute, Parties
from meterbook.operations.begin_counters import set_baseline_of
from meterbook.operations.correct_entry import correct_entry
from meterbook.operations.cutover_step import LATE_SOURCE, CutoverStep
from meterbook.operations.feed_ledger import OVERLAP_S, FreshRow, look_at, note_recorded
from meterbook.operations.record_usage import record_usage
from meterbook.postgres import cutover

NEWCOMERS_PER_PAGE = 500
CORRECTED = "was recorded by its writer as well"
LATE_DESCRIPTION = "increment by an old instance"


@dataclass(slots=True)
class _Settled:
    """A counter after this round."""

    reading: Reading
    moved: Decimal
    absorbed: Decimal
    absorptions: int
    base: Decimal
    rows: Decimal
    note: str
    fall_id: int

    @property
    def over(self) -> Decimal:
        """What the ledger has of it beyond what it moved."""
        return EXACT.subtract(EXACT.add(self.rows, self.absorbed), self.moved)


@dataclass(frozen=True, slots=True)
class AbsorbedHere:
    counters: int
    recorded: Decimal
    taken_back: Decimal
    waiting: Decimal
    notes: tuple[str, ...]


async def absorb_increments(
    conn: AsyncConnection[Any], step: CutoverStep, entities: Sequence[int], overlap_s: int = OVERLAP_S
) -> AbsorbedHere:
    """Of these switched entities, in the connection's transaction: what their counters moved and nobody recorded."""
    looked = await look_at(conn, step.tables, entities, overlap_s, switched=True)
    while looked.has_more:
        await note_recorded(conn, looked.rows, switched=True)
        looked = await look_at(conn, step.tables, entities, overlap_s, switched=True)
    await note_recorded(conn, looked.rows, switched=True)
    own = _recorded_themselves(looked.rows)
    usage: list[Usage] = []
    settled: list[_Settled] = []
    for entity_id, readings in looked.readings.items():
        moved = {one.name: one for one in movements(readings)}
        for reading in readings:
            epoch, number = looked.epochs[reading.name], looked.absorptions[reading.name]
            fall = looked.fall_ids[reading.name]
            one = _settle(reading, moved.get(reading.name), own.get(reading.name, ZERO), number, fall)
            if one.absorptions > number:
                amount = EXACT.subtract(one.absorbed, reading.absorbed)
                usage.append(_late(reading, amount, f"cutover:late:{reading.name}:{epoch}:{one.absorptions}"))
            settled.append(one)
        await _take_back(conn, step, entity_id, [one for one in settled if one.reading in readings])
    if usage:
        await record_usage(conn, check_entries(usage, step.catalog.currency), step.attribute, step.clock)
    for one in settled:
        if one.over > ZERO and one.absorbed > ZERO:
            await _correct(conn, step, one, looked.epochs[one.reading.name])
    await _note(conn, settled, step.at)
    done = _summed(settled)
    return replace(
        done, notes=(*done.notes, *(f"{problem}: nothing of it is absorbed" for problem in looked.odd.values()))
    )


async def begin_newcomers(
    conn: AsyncConnection[Any], step: CutoverStep, attribute: Attribute, after: str
) -> str | None:
    """Counters that appeared since everybody was switched: all that they say is late. Gives where the next page goes on."""
    found = await cutover.records_of(conn, "list_newcomers", {"after": after, "rows": NEWCOMERS_PER_PAGE})
    users = [one["user_id"] for one in found]
    if users:
        await attribute(Parties(tuple(users)))
        await cutover.change(conn, "begin_newcomers", {"users": users, "at": step.at})
    return users[-1] if len(users) == NEWCOMERS_PER_PAGE else None


def _recorded_themselves(rows: Sequence[FreshRow]) -> dict[str, Decimal]:
    """By counter: what writers of both put into the ledger under the audit row's key."""
    found: dict[str, Decimal] = {}
    for row in rows:
        if row.recorded is not None:
            found[row.reading.name] = EXACT.add(found.get(row.reading.name, ZERO), row.recorded)
    return found


def _settle(reading: Reading, movement: Movement | None, own: Decimal, number: int, fall: int) -> _Settled:
    if movement is None:
        return _Settled(reading, reading.moved, reading.absorbed, number, reading.base, reading.rows, "", fall)
    moved = EXACT.add(reading.moved, movement.rise)
    rest = EXACT.subtract(outstanding(reading, movement), own)
    late = recordable(rest) if rest > ZERO else ZERO
    absorbed = EXACT.add(reading.absorbed, late)
    return _Settled(
        reading,
        moved,
        absorbed,
        number + (late > ZERO),
        reading.base,
        EXACT.add(reading.rows, own),
        movement.note,
        fall,
    )


def _late(reading: Reading, amount: Decimal, key: str) -> Usage:
    return Usage(reading.owner, LATE_SOURCE, LATE_DESCRIPTION, amount, category="fixed", event_key=key)


async def _take_back(
    conn: AsyncConnection[Any], step: CutoverStep, entity_id: int, settled: Sequence[_Settled]
) -> None:
    """A writer of both, whose counter was in the baseline before its entry was in the ledger, is in both: the baseline gives way."""
    over = [one for one in settled if one.reading.kind == "running" and one.over > ZERO and one.base > ZERO]
    if not over:
        return
    (state,) = await cutover.records_of(conn, "find_state", {"entity_id": entity_id})
    if state["period_state"] != "open":
        return
    for one in over:
        part = min(one.over, one.base)
        one.base, one.moved = EXACT.subtract(one.base, part), EXACT.add(one.moved, part)
    await _note(conn, settled, step.at)
    await set_baseline_of(conn, step.tables, entity_id, state["period_id"], step.at)


async def _correct(conn: AsyncConnection[Any], step: CutoverStep, one: _Settled, epoch: int) -> None:
    """A writer of both was counted, absorbed, and recorded itself only then: what no baseline holds, late usage gives back."""
    arguments = {"name": one.reading.name, "epoch": epoch, "absorptions": one.absorptions}
    for late in await cutover.records_of(conn, "list_late", arguments):
        part = min(one.over, late["rest"])
        if part > ZERO:
            rest = EXACT.subtract(late["rest"], part)
            key, entry = f"{late['name']}:{plain(rest)}", str(of_event_key(late["name"]))
            await correct_entry(conn, entry, -part, CORRECTED, key, step.attribute, step.clock)
            one.absorbed = EXACT.subtract(one.absorbed, part)


async def _note(conn: AsyncConnection[Any], settled: Sequence[_Settled], at: datetime) -> None:
    if not settled:
        return
    columns: Mapping[str, list[Any]] = {
        "names": [one.reading.name for one in settled],
        "values": [one.reading.value for one in settled],
        "lasts": [one.reading.last for one in settled],
        "moveds": [one.moved for one in settled],
        "absorbeds": [one.absorbed for one in settled],
        "absorptions": [one.absorptions for one in settled],
        "bases": [one.base for one in settled],
        "notes": [one.note for one in settled],
        "falls": [one.fall_id for one in settled],
    }
    await cutover.change(conn, "note_absorbed", {**columns, "at": at})


def _summed(settled: Sequence[_Settled]) -> AbsorbedHere:
    recorded = taken = waiting = ZERO
    for one in settled:
        more = EXACT.subtract(one.absorbed, one.reading.absorbed)
        recorded = EXACT.add(recorded, max(more, ZERO))
        taken = total_of([taken, EXACT.subtract(one.reading.base, one.base), max(-more, ZERO)])
        waiting = EXACT.subtract(waiting, recordable(one.over))
    moved = sum(1 for one in settled if one.reading.has_moved)
    return AbsorbedHere(moved, recorded, taken, waiting, tuple(f"{o.reading.name} {o.note}" for o in settled if o.note))
