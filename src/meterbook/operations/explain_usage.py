"""Why a figure is what it is (BEHAVIOUR §14): its formula, the terms, and the rows behind them; late rows apart."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import reduce
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.bill_derivation import bill_derivation
from meterbook.core.derivation import Derivation, counted
from meterbook.core.money import EXACT
from meterbook.core.usage_report import UsageReport
from meterbook.postgres import billing, reading
from meterbook.postgres.reading import EntryRow, LateSum

ROWS_PER_DESCRIPTION_MAX = 3
LATE_ROWS_MAX = 50
ROWS_READ_MAX = 10_000
"""A payer may have millions: sums are kept, rows are looked at up to here."""


async def explain_usage(
    conn: AsyncConnection[Any], usage: UsageReport, rows: int = ROWS_PER_DESCRIPTION_MAX, rows_read: int = ROWS_READ_MAX
) -> Derivation:
    """The derivation of a period's bill: its overage, with the usage down to rows, and what was billed of it.

    On a plan without overage, and with nothing billed, that of its usage alone. The rows that it shows are the largest among `rows_read`.
    """
    largest = await reading.list_largest_entries(
        conn, usage.entity, usage.period, rows=rows, late_rows=LATE_ROWS_MAX, rows_read=rows_read
    )
    late = await reading.sum_late(conn, usage.entity, usage.period.id)
    overage = usage.figure.derivation(_total(usage, largest, late, rows))
    if usage.figure.included is None and not usage.billed_cents:
        return overage
    entity_id, period_id = usage.facts.entity_id, usage.period.id
    charges = await billing.list_charges(conn, entity_id, period_id)
    spent = await billing.list_spent(conn, entity_id, period_id)
    given_back = await billing.sum_given_back(conn, entity_id, period_id)
    return bill_derivation(usage, overage, charges, spent, given_back)


def _total(usage: UsageReport, rows: Sequence[EntryRow], late: Sequence[LateSum], rows_max: int) -> Derivation:
    below: dict[tuple[str, str], list[EntryRow]] = defaultdict(list)
    for row in rows:
        below[row.source, row.description].append(row)
    terms = [_source(usage, source, below, rows_max) for source in usage.by_source]
    terms += [_late(one, rows) for one in late]
    if usage.baseline:
        terms.insert(0, Derivation("baseline", usage.baseline, "what a counter held at the cutover"))
    return Derivation("total", usage.total, f"Σ of {counted(usage.count)}", tuple(terms))


def _source(usage: UsageReport, source: str, below: dict[tuple[str, str], list[EntryRow]], rows_max: int) -> Derivation:
    descriptions = tuple(
        Derivation(description, amount, "", tuple(_rows(below[source, description], rows_max)))
        for (its_source, description), amount in usage.by_description.items()
        if its_source == source
    )
    return Derivation(source, usage.by_source[source], "", descriptions)


def _rows(rows: Sequence[EntryRow], rows_max: int) -> Iterator[Derivation]:
    """The largest of one description, and the others as a sum: nothing of a figure goes unsaid."""
    shown = rows[:rows_max]
    yield from map(_row, shown)
    if shown:
        yield from _others(shown, shown[0].entries_alike, shown[0].amount_alike)


def _others(shown: Sequence[EntryRow], entries: int, amount: Decimal) -> Iterator[Derivation]:
    if entries > len(shown):
        rest = reduce(EXACT.subtract, (row.amount for row in shown), amount)
        left = entries - len(shown)
        yield Derivation("others", rest, note=f"{counted(left)} more", stands_for=left)


def _late(late: LateSum, rows: Sequence[EntryRow]) -> Derivation:
    shown = [row for row in rows if row.belongs_to == late.belongs_to][:LATE_ROWS_MAX]
    return Derivation(
        "of which late",
        late.amount,
        f"{counted(late.entries)} of closed period {late.belongs_to}",
        (*map(_row, shown), *_others(shown, late.entries, late.amount)),
    )


def _row(row: EntryRow) -> Derivation:
    kind = (
        f"corrects {row.corrects}: {row.reason}"
        if row.corrects
        else f"{row.actor}, {row.occurred_at:%Y-%m-%d %H:%M:%S}"
    )
    return Derivation(row.id, row.amount, "", (), kind)
