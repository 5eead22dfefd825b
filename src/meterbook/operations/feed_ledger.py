"""Feeds the ledger from the audit log while counters still count, and compares the two in one snapshot (BEHAVIOUR §13, shadow)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.cutover import Reading
from meterbook.core.cutover_plan import amount_problem
from meterbook.core.entries import Usage, check_each_entry
from meterbook.core.money import ZERO, total_of
from meterbook.operations.begin_counters import begin_again, note_refusal, set_baseline_of
from meterbook.operations.cutover_step import CutoverStep
from meterbook.operations.record_usage import record_usage
from meterbook.postgres import cutover
from meterbook.postgres.cutover import LegacyTables

ROWS_PER_LOOK_MAX = 20_000
ROWS_PER_COUNTER_MIN = 100
AHEAD_MAX = timedelta(minutes=5)
OVERLAP_S = 600
"""How far back rows are looked for that became visible late: longer than any of the product's transactions."""


@dataclass(slots=True)
class FreshRow:
    """A row of the audit log that nobody had looked at. `recorded`: what the ledger has of it; `in_base`: the baseline has it too."""

    id: str
    reading: Reading
    entity_id: int
    epoch: int
    amount: Decimal
    occurred_at: datetime | None
    said: Mapping[str, Any]
    recorded: Decimal | None
    in_base: bool = False
    refused: str | None = None


@dataclass(slots=True)
class Looked:
    """Counters from one snapshot, with their fresh rows. `has_more`: there were too many of them for one look. `odd`: entities with a
    counter that says no amount, and what it says; it counts as if it had not moved.
    """

    readings: dict[int, list[Reading]] = field(default_factory=dict)
    periods: dict[int, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    absorptions: dict[str, int] = field(default_factory=dict)
    fall_ids: dict[str, int] = field(default_factory=dict)
    rows: list[FreshRow] = field(default_factory=list)
    has_more: bool = False
    odd: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fed:
    rows: int
    refused: int
    has_more: bool


async def look_at(
    conn: AsyncConnection[Any],
    tables: LegacyTables,
    entities: Sequence[int],
    overlap_s: int,
    *,
    switched: bool,
    feeds: bool = False,
) -> Looked:
    """The counters of these entities, and their rows: what is recorded of these by now, the counters may have already. One snapshot.

    `feeds`: also the rows that nobody has recorded.
    """
    looked = Looked()
    looks = await cutover.records_of(conn, "list_looks", {"entities": list(entities), "overlap_s": overlap_s})
    if not looks:
        return looked
    rows_max = max(ROWS_PER_COUNTER_MIN, ROWS_PER_LOOK_MAX // len(looks))
    arguments = {
        "names": [one["name"] for one in looks],
        "since": [tables.earliest(one["since"]) for one in looks],
        "rows_max": rows_max,
        "switched": switched,
        "feeds": feeds,
    }
    for said in await cutover.records_of(conn, "read_counters", arguments):
        problem = amount_problem(said["name"], said["value"]) or (
            None if said["last"].is_finite() else "last is no number"
        )
        if problem is not None:
            looked.odd[said["entity_id"]] = problem
            said |= {"value": said["seen"], "last": said["seen_last"], "falls": None}
        reading = Reading(
            **{name: said[name] for name in Reading.__dataclass_fields__ if name != "falls"}, falls=_falls(said)
        )
        entity_id, fresh = said["entity_id"], said["fresh"] or []
        looked.readings.setdefault(entity_id, []).append(reading)
        looked.periods[entity_id] = said["period_id"]
        looked.epochs[reading.name], looked.absorptions[reading.name] = said["epoch"], said["absorptions"]
        looked.fall_ids[reading.name] = said["last_fall"]
        looked.rows += [_fresh(one, reading, entity_id, said["epoch"]) for one in fresh]
        looked.has_more = looked.has_more or len(fresh) == rows_max
    return looked


def _falls(said: Mapping[str, Any]) -> tuple[tuple[Decimal, Decimal], ...]:
    return tuple((Decimal(was), Decimal(is_now)) for was, is_now in said["falls"] or [])


def _fresh(said: Mapping[str, Any], reading: Reading, entity_id: int, epoch: int) -> FreshRow:
    recorded = None if said["recorded"] is None else Decimal(said["recorded"])
    amount = ZERO if said["amount"] is None else Decimal(said["amount"])
    at = None if said["occurred_at"] is None else datetime.fromisoformat(said["occurred_at"])
    return FreshRow(said["id"], reading, entity_id, epoch, amount, at, said, recorded, said["in_base"])


async def feed_entities(
    conn: AsyncConnection[Any], step: CutoverStep, entities: Mapping[int, str], overlap_s: int = OVERLAP_S
) -> Fed:
    """Records the fresh rows of these entities (by id, with their names), notes how much each differs; in the connection's transaction."""
    feeds = step.feed == "audit"
    looked = await look_at(conn, step.tables, list(entities), overlap_s, switched=False, feeds=feeds)
    fallen = [reading for readings in looked.readings.values() for reading in readings if reading.begins_again]
    fell = {reading.name for reading in fallen}
    kept = list({row.id: row for row in reversed(looked.rows) if row.reading.name not in fell}.values())
    await _refuse_odd(conn, looked, entities, step.at)
    await _record(conn, step, kept, looked, entities)
    await _note_rows(conn, kept, switched=False)
    await _note_looks(conn, looked, kept, fell, step.at)
    await _lower_bases(conn, step, looked, [row for row in kept if row.in_base])
    await _begin_fallen(conn, step, looked, fallen, overlap_s)
    refused = sum(1 for row in kept if row.refused is not None)
    return Fed(len(kept) - refused, refused, looked.has_more)


async def _refuse_odd(conn: AsyncConnection[Any], looked: Looked, entities: Mapping[int, str], at: datetime) -> None:
    for entity_id, reason in looked.odd.items():
        await note_refusal(conn, entities[entity_id], reason, at)


async def _record(
    conn: AsyncConnection[Any], step: CutoverStep, rows: Sequence[FreshRow], looked: Looked, entities: Mapping[int, str]
) -> None:
    """Under keys that say which row it was: whatever records it again, this or an application, is a replay."""
    fresh = [row for row in rows if row.recorded is None]
    for row in fresh:
        if row.occurred_at is None:
            row.refused = "occurred_at is no time"
        elif row.occurred_at > step.at + AHEAD_MAX:
            row.refused = "occurred_at is ahead of the clock"
    sound = [row for row in fresh if row.refused is None]
    said = [_usage(row, entities[row.entity_id], looked.periods[row.entity_id]) for row in sound]
    entries, problems = check_each_entry(said, step.catalog.currency)
    for problem in problems:
        if problem.index is not None:
            sound[problem.index].refused = str(problem.message)
    for row in sound:
        row.recorded = row.amount if row.refused is None else None
    await record_usage(conn, entries, step.attribute, step.clock, note_conflicts=False)


def _usage(row: FreshRow, entity: str, period: int) -> Usage:
    said = row.said
    return Usage(
        row.reading.owner,
        said["source"] or "legacy",
        said["description"] or "usage",
        row.amount,
        category=said["category"] or "model",
        event_key=f"legacy:{row.id}",
        entity=entity,
        period=period,
        workflow=said["workflow"],
        execution=said["execution"],
        occurred_at=row.occurred_at,
    )


async def note_recorded(conn: AsyncConnection[Any], rows: Sequence[FreshRow], *, switched: bool) -> None:
    """Rows that somebody has recorded under their own keys."""
    await _note_rows(conn, [row for row in rows if row.recorded is not None], switched=switched)


async def _note_rows(conn: AsyncConnection[Any], rows: Sequence[FreshRow], *, switched: bool) -> None:
    if not rows:
        return
    arguments = {
        "ids": [row.id for row in rows],
        "counters": [row.reading.name for row in rows],
        "epochs": [row.epoch for row in rows],
        "amounts": [row.recorded or ZERO for row in rows],
        "days": [None for _ in rows],
        "refused": [row.refused for row in rows],
        "switched": switched,
    }
    await cutover.change(conn, "note_rows", arguments)


async def _note_looks(
    conn: AsyncConnection[Any], looked: Looked, rows: Sequence[FreshRow], fell: set[str], at: datetime
) -> None:
    """What each counter said, and by how much each entity differs now that its rows are in."""
    added: dict[str, Decimal] = {}
    for row in (one for one in rows if not one.in_base):
        added[row.reading.name] = added.get(row.reading.name, ZERO) + (row.recorded or ZERO)
    readings = [reading for found in looked.readings.values() for reading in found if reading.name not in fell]
    if readings and not looked.has_more:
        arguments = {
            "names": [reading.name for reading in readings],
            "values": [reading.value for reading in readings],
            "lasts": [reading.last for reading in readings],
            "falls": [looked.fall_ids[reading.name] for reading in readings],
            "at": at,
        }
        await cutover.change(conn, "note_looks", arguments)
    differences = {
        entity: total_of(reading.difference - added.get(reading.name, ZERO) for reading in found)
        for entity, found in looked.readings.items()
    }
    arguments = {"entities": list(differences), "differences": list(differences.values()), "at": at}
    await cutover.change(conn, "note_difference", arguments)


async def _lower_bases(conn: AsyncConnection[Any], step: CutoverStep, looked: Looked, rows: Sequence[FreshRow]) -> None:
    """A writer of both had moved its counter before the epoch began, and was recorded after it: the baseline gives way."""
    parts: dict[str, Decimal] = {}
    for row in rows:
        parts[row.reading.name] = parts.get(row.reading.name, ZERO) + (row.recorded or ZERO)
    if not parts:
        return
    await cutover.change(conn, "lower_bases", {"names": list(parts), "amounts": list(parts.values())})
    for entity in sorted({row.entity_id for row in rows}):
        await set_baseline_of(conn, step.tables, entity, looked.periods[entity], step.at)


async def _begin_fallen(
    conn: AsyncConnection[Any], step: CutoverStep, looked: Looked, fallen: Sequence[Reading], overlap_s: int
) -> None:
    """A counter that began again does so here, with its part of the baseline."""
    place = {reading.name: entity for entity, found in looked.readings.items() for reading in found}
    counters = [(one.name, one.kind, one.owner, place[one.name], looked.periods[place[one.name]]) for one in fallen]
    for entity in await begin_again(conn, step.tables, counters, step.at - timedelta(seconds=overlap_s), step.at):
        await set_baseline_of(conn, step.tables, entity, looked.periods[entity], step.at)
