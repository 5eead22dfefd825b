"""Rows for the COPY path: the placement and the deltas that SQL makes of entries that go home; the rest is left to SQL."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import NamedTuple

from meterbook.core.entries import Entry
from meterbook.core.money import EXACT, ZERO
from meterbook.core.refresh import day_bucket

AHEAD_MAX = timedelta(minutes=5)

Said = tuple[str, str | None, str | None, int | None]
"""What decides who pays: actor, workspace, entity, the attribution's payer."""


class Party(NamedTuple):
    """Who pays, and the period where the entries that occurred since `home_since` go."""

    actor_id: int
    entity_id: int
    home_id: int
    home_since: datetime
    home_starts_at: datetime
    home_ends_at: datetime


class Row(NamedTuple):
    """An entry with its place."""

    entry: Entry
    party: Party
    day: int
    happened: datetime


class Delta(NamedTuple):
    entity_id: int
    period_id: int
    day: int
    actor_id: int
    source: str
    description: str


@dataclass(slots=True)
class DeltaSum:
    amount: Decimal
    digest: Decimal
    keys: list[str]


def said_of(entry: Entry) -> Said:
    return entry.actor, entry.workspace, entry.entity, entry.payer_id


def place_at_home(
    entries: Iterable[Entry], parties: dict[Said, Party], moment: datetime
) -> tuple[list[Row], list[Entry]]:
    """The entries of known parties that occurred since their home began, by key; and the others."""
    rows: list[Row] = []
    others: list[Entry] = []
    day_of = cache(day_bucket)  # entries without a time of their own all happened at `moment`
    for entry in entries:
        party = parties.get(said_of(entry))
        occurred_at = entry.occurred_at or moment
        if party is None or not _goes_home(entry, occurred_at, party, moment):
            others.append(entry)
        else:
            happened = min(occurred_at, moment)
            rows.append(Row(entry, party, day_of(happened, party.home_starts_at, party.home_ends_at), happened))
    rows.sort(key=lambda row: row.entry.key)
    return rows, others


def _goes_home(entry: Entry, occurred_at: datetime, party: Party, moment: datetime) -> bool:
    asked = entry.period is not None or entry.payer_period is not None
    return not asked and party.home_since <= occurred_at and occurred_at - moment <= AHEAD_MAX


def first_of_each_key(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Entries of distinct keys; and those that repeat one of them, to be recorded after it."""
    seen: set[str] = set()
    firsts: list[Entry] = []
    repeats: list[Entry] = []
    for entry in entries:
        (repeats if entry.key in seen else firsts).append(entry)
        seen.add(entry.key)
    return firsts, repeats


def deltas_of(rows: Iterable[Row]) -> dict[Delta, DeltaSum]:
    """What the rows add to each sum. A key's weight is its first 32 bits, as meterbook.key_weight in SQL."""
    deltas: dict[Delta, DeltaSum] = {}
    for row in rows:
        entry, party = row.entry, row.party
        which = Delta(party.entity_id, party.home_id, row.day, party.actor_id, entry.source, entry.description)
        total = deltas.get(which)
        if total is None:
            total = deltas[which] = DeltaSum(ZERO, ZERO, [])
        total.amount = EXACT.add(total.amount, entry.amount)
        total.digest = EXACT.add(total.digest, EXACT.multiply(Decimal(int(entry.key[:8], 16)), entry.amount))
        total.keys.append(entry.key)
    return deltas
