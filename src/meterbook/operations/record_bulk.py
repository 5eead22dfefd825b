"""Many entries at once: what is sound lands, what is not is named. New keys go by COPY where that is allowed, the rest by statements."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.bulk_rows import Row, first_of_each_key, place_at_home, said_of
from meterbook.core.entries import Entry
from meterbook.core.money import EXACT, ZERO
from meterbook.core.recorded import Answer, BulkRecorded, EachRecorded
from meterbook.errors import InvalidUsage, KeyConflict, MeterbookError, Problem
from meterbook.operations.attribute_usage import Attribute, Parties
from meterbook.operations.record_usage import answer_usage, find_refusal
from meterbook.postgres import bulk

ENTRIES_PER_STATEMENT_MAX = 1_000
COPY_FROM = 200
"""A batch with fewer new keys is written by one statement."""


@dataclass(slots=True)
class BulkTally:
    """What became of the entries so far; `repeats_seen` says whether to look for known keys before the next COPY."""

    inserted: int = 0
    replayed: int = 0
    amount: Decimal = ZERO
    problems: list[Problem] = field(default_factory=list)
    repeats_seen: bool = False

    def count_copied(self, rows: Sequence[Row]) -> None:
        self.inserted += len(rows)
        for row in rows:
            self.amount = EXACT.add(self.amount, row.entry.amount)

    def count(self, answer: Answer) -> None:
        if answer.outcome == "inserted":
            self.inserted += 1
            self.amount = EXACT.add(self.amount, answer.amount)
        else:
            self.replayed += 1
            self.repeats_seen = True

    def result(self) -> BulkRecorded:
        problems = tuple(sorted(self.problems, key=lambda problem: problem.index or 0))
        return BulkRecorded(self.inserted, self.replayed, self.amount, problems)


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """Rows to COPY, all recorded at one moment, and the entries that statements have to record."""

    rows: Sequence[Row]
    moment: datetime | None
    rest: list[Entry]


async def plan_copy(
    conn: AsyncConnection[Any], entries: Sequence[Entry], attribute: Attribute, at: datetime | None, tally: BulkTally
) -> CopyPlan:
    """What is new and goes home. Attributes where needed, so it comes before the transaction that copies."""
    firsts, others = first_of_each_key(entries)
    if tally.repeats_seen:
        known = await bulk.list_known_keys(conn, [entry.key for entry in firsts])
        others += [entry for entry in firsts if entry.key in known]
        firsts = [entry for entry in firsts if entry.key not in known]
        tally.repeats_seen = bool(known)
    if len(firsts) < COPY_FROM:
        return CopyPlan((), None, firsts + others)
    said = list({said_of(entry) for entry in firsts})
    parties, moment = await bulk.list_parties(conn, said, at)
    if len(parties) < len(said):
        await attribute(Parties.of([entry for entry in firsts if said_of(entry) not in parties]))
        parties, moment = await bulk.list_parties(conn, said, at)
    if moment is None:
        return CopyPlan((), None, firsts + others)
    rows, elsewhere = place_at_home(firsts, parties, moment)
    return CopyPlan(rows, moment, elsewhere + others)


async def copy_usage(conn: AsyncConnection[Any], plan: CopyPlan, tally: BulkTally) -> None:
    """In the connection's transaction. Raises `KeyAlreadyThere` when another writer was first: then the transaction is lost."""
    if plan.moment is not None and plan.rows:
        await bulk.copy_rows(conn, plan.rows, plan.moment)
        tally.count_copied(plan.rows)


async def record_rest(
    conn: AsyncConnection[Any], entries: Sequence[Entry], attribute: Attribute, at: datetime | None, tally: BulkTally
) -> None:
    """By statements of bounded size, each a transaction of its own: in the order of the call, since a key may be there twice."""
    ordered = sorted(entries, key=lambda entry: entry.position)
    for start in range(0, len(ordered), ENTRIES_PER_STATEMENT_MAX):
        await _record_sound(conn, ordered[start : start + ENTRIES_PER_STATEMENT_MAX], attribute, at, tally)


async def _record_sound(
    conn: AsyncConnection[Any], entries: Sequence[Entry], attribute: Attribute, at: datetime | None, tally: BulkTally
) -> None:
    """Without those that are refused for good, as often as it takes. Raises what is retryable."""
    while entries:
        answers = await answer_usage(conn, entries, attribute, at, note_conflicts=True)
        refusal = await find_refusal(conn, entries, answers)
        if refusal is None:
            for answer in answers:
                tally.count(answer)
            return
        problems = _problems(refusal)
        tally.problems += problems
        refused = {problem.index for problem in problems}
        entries = [entry for entry in entries if entry.position not in refused]


def refused_each(refusal: MeterbookError) -> dict[int | None, EachRecorded]:
    """What a refusal says of each entry that it names. Raises it where it names none: what is retryable."""
    match refusal:
        case InvalidUsage(problems=problems):
            return {each.index: EachRecorded("refused", problem=each) for each in problems}
        case KeyConflict(conflicts=conflicts):
            return {each.index: EachRecorded("conflict", conflict=each) for each in conflicts}
        case _:
            raise refusal


def _problems(refusal: MeterbookError) -> list[Problem]:
    if isinstance(refusal, InvalidUsage):
        return list(refusal.problems)
    if isinstance(refusal, KeyConflict):
        return [Problem(conflict.index, "event_key", refusal.code, conflict.versions) for conflict in refusal.conflicts]
    raise refusal
