"""Routes that record: one entry, batches, CloudEvents, running totals, corrections; and who would pay."""

from typing import Annotated, Any

from litestar import Request, post
from litestar.params import QueryParameter

from meterbook.core.entries import Usage
from meterbook.core.recorded import EachRecorded
from meterbook.errors import Problem
from meterbook.http.acts import noted
from meterbook.http.bodies import all_sound, read_batch, read_body
from meterbook.http.cloud_events import read_events
from meterbook.http.door import Door, GivenDoor
from meterbook.http.wire import (
    AttributionOut,
    BatchOut,
    CorrectionIn,
    CumulativeIn,
    EntryIn,
    PartyIn,
    RecordedOut,
    arguments_of,
    batch_entry_out,
    recorded_out,
)

Read = Request[Any, Any, Any]
Partial = Annotated[
    bool,
    QueryParameter(description="Take what is sound, and say of each entry what became of it; else all or nothing."),
]


@post("/entries", opt={"scope": "record", "body": EntryIn}, status_code=200)
async def record_entry(request: Read, door: GivenDoor) -> RecordedOut:
    """Record one entry, exactly once: the same key again is replayed, or refused if it says something else."""
    said = await read_body(request, EntryIn)
    return await _record(door, [said.usage()])


@post("/entries/batch", opt={"scope": "record", "batch": True}, status_code=200)
async def record_batch(request: Read, door: GivenDoor, *, partial: Partial = False) -> RecordedOut | BatchOut:
    """Record many entries: a JSON array, or NDJSON read as it comes. All or nothing, unless `partial`."""
    said: list[Usage | Problem] = []
    async for part in read_batch(request):
        said += part
    return await (_record_each(door, said) if partial else _record(door, all_sound(said)))


@post("/events", opt={"scope": "record", "events": True}, status_code=200)
async def record_events(request: Read, door: GivenDoor, *, partial: Partial = False) -> RecordedOut | BatchOut:
    """Record CloudEvents 1.0 of the type meterbook.usage: structured, batched or binary. Their source and id are the key."""
    said = await read_events(request)
    return await (_record_each(door, said) if partial else _record(door, all_sound(said)))


@post("/cumulative", opt={"scope": "record", "body": CumulativeIn}, status_code=200)
async def record_cumulative(request: Read, door: GivenDoor) -> RecordedOut:
    """Keep the maximum of a request's running total: record the rise, if there is one."""
    said = await read_body(request, CumulativeIn)
    recorded = await door.book.record_cumulative(**arguments_of(said))
    door.metrics.count_recorded(recorded.inserted, recorded.replayed)
    return recorded_out(recorded)


@post("/corrections", opt={"scope": "admin", "body": CorrectionIn}, status_code=200)
async def correct_entry(request: Read, door: GivenDoor) -> RecordedOut:
    """Add an amount to an entry, or take it back, by a new entry that points at it; together never below zero."""
    said = await read_body(request, CorrectionIn)
    async with noted(request, "correct", said.entry, said):
        return recorded_out(await door.book.correct(**arguments_of(said)))


@post("/attributions", opt={"scope": "record", "body": PartyIn}, status_code=200)
async def resolve_attribution(request: Read, door: GivenDoor) -> AttributionOut:
    """Who pays now, as a token: resolved before work begins, given when it is recorded. It does not expire."""
    said = await read_body(request, PartyIn)
    found = await door.book.resolve(said.actor, said.workspace)
    return AttributionOut(found.token, found.actor, found.workspace, found.entity, found.period)


async def _record(door: Door, entries: list[Usage]) -> RecordedOut:
    recorded = await door.book.record_many(entries)
    door.metrics.count_recorded(recorded.inserted, recorded.replayed)
    return recorded_out(recorded)


async def _record_each(door: Door, said: list[Usage | Problem]) -> BatchOut:
    """Those that could not be read are refused in their place."""
    readable = [each for each in said if not isinstance(each, Problem)]
    recorded = iter(await door.book.record_each(readable))
    became = [EachRecorded("refused", problem=each) if isinstance(each, Problem) else next(recorded) for each in said]
    results = [batch_entry_out(index, each) for index, each in enumerate(became)]
    counts = dict.fromkeys(("inserted", "replayed", "conflict", "refused", "nothing"), 0)
    for each in became:
        counts["replayed" if each.outcome == "unchanged" else each.outcome] += 1
    for outcome, count in counts.items():
        if count:
            door.metrics.entries.labels(outcome).inc(count)
    return BatchOut(**counts, results=results)


ROUTES = (record_entry, record_batch, record_events, record_cumulative, correct_entry, resolve_attribution)
