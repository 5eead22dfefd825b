"""What recording answers."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple

from meterbook.errors import Conflict, Problem

Outcome = Literal["inserted", "replayed", "unchanged"]
WRITTEN = frozenset({"inserted", "replayed", "unchanged"})


class Answer(NamedTuple):
    """The type meterbook.recorded: what became of one entry, `n` from 1. Outcomes are listed at the type."""

    n: int
    key: str
    outcome: str
    entity: str | None
    period: int | None
    belongs_to: int | None
    amount: Decimal
    recorded_at: datetime | None


class RecordedEntry(NamedTuple):
    """One entry as the ledger has it. Of a late one, `belongs_to` is the closed period, `period` the open one that bears it."""

    id: str
    outcome: Outcome
    entity: str
    period: int
    belongs_to: int | None
    amount: Decimal
    recorded_at: datetime


def recorded_entry(answer: Answer) -> RecordedEntry:
    """Of an answer whose outcome is WRITTEN: its fields from `key` on are those of the entry, in this order."""
    return tuple.__new__(RecordedEntry, answer[1:])


class Recorded(NamedTuple):
    """What became of a call: entries inserted now and replayed, the amount inserted, and the entries in the call's order.

    Entries of amount 0 are accepted, write nothing and are not listed.
    """

    inserted: int
    replayed: int
    amount: Decimal
    entries: tuple[RecordedEntry, ...]


@dataclass(frozen=True, slots=True)
class BulkRecorded:
    """What became of a bulk: entries inserted now and replayed, the amount inserted, and the entries refused, by their index."""

    inserted: int
    replayed: int
    amount: Decimal
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class EachRecorded:
    """What became of one entry of a call that takes what is sound. `nothing`: an amount of 0, which writes no row."""

    outcome: Literal["inserted", "replayed", "unchanged", "conflict", "refused", "nothing"]
    entry: RecordedEntry | None = None
    problem: Problem | None = None
    conflict: Conflict | None = None
