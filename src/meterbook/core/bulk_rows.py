"""Rows for the COPY path: the placement and the deltas that SQL makes of entries that go home; the rest is left to SQL."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from operator import attrgetter
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


_KEY = attrgetter("entry.key")


class Delta(NamedTuple):
    entity_id: int
    period_id: int
    day: int
    actor_id: int
    source: str
    description: str


class DeltaSum(NamedTuple):
    amount: Decimal
    digest: Decimal
    keys: Sequence[str]


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
        happened = _time_at_home(entry, party, moment)
        if party is None or happened is None:
            others.append(entry)
        else:
            rows.append(Row(entry, party, day_of(happened, party.home_starts_at, party.home_ends_at), happened))
    rows.sort(key=_KEY)
    return rows, others


def _time_at_home(entry: Entry, party: Party | None, moment: datetime) -> datetime | None:
    """When an entry happened that goes to its party's home; None: it has to be looked where it goes, if anywhere."""
    occurred_at = entry.occurred_at
    if party is None or entry.period is not None or entry.payer_period is not None:
        return None
    if occurred_at is None:
        return moment if party.home_since <= moment else None
    if party.home_since <= occurred_at and occurred_at - moment <= AHEAD_MAX:
        return min(occurred_at, moment)
    return None


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
    groups: defaultdict[tuple[Party, int, str, str], list[Entry]] = defaultdict(list)
    for entry, party, day, _ in rows:
        groups[party, day, entry.source, entry.description].append(entry)
    return {
        Delta(party.entity_id, party.home_id, day, party.actor_id, source, description): _sum_of(entries)
        for (party, day, source, description), entries in groups.items()
    }


def _sum_of(entries: Iterable[Entry]) -> DeltaSum:
    amount = digest = ZERO
    keys: list[str] = []
    for entry in entries:
        amount = EXACT.add(amount, entry.amount)
        digest = EXACT.fma(int(entry.key[:8], 16), entry.amount, digest)
        keys.append(entry.key)
    return DeltaSum(amount, digest, keys)
