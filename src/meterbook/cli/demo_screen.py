"""What ``meterbook demo`` shows: who pays, for what, when, and what the ledger did with what went wrong."""

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, timedelta
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.table import Table

from meterbook.cli.command import DEFAULT_HOME
from meterbook.cli.outbox import told
from meterbook.cli.reading import parts_table
from meterbook.cli.screen import amount_shown, bar, cents_shown, is_plain, table
from meterbook.core.breakdown import apportion
from meterbook.core.derivation import Derivation, abridged, amount_text, render
from meterbook.core.ledgers import OutboxRow
from meterbook.core.money import EXACT, ZERO
from meterbook.core.upkeep import Difference
from meterbook.core.usage_report import UsageReport
from meterbook.demo.bill import EXPLAINED, MonthBilled
from meterbook.demo.play import Played
from meterbook.plain import usage_data
from meterbook.pricing import PRICES_VERSION

CHART_WIDTH = 40
PAYERS_SHOWN = 12
ALERTS_SHOWN = 6
TERMS_SHOWN = 2
LONG_LISTS = ("total", "daily refresh")
ID_LENGTH, SHORT_ID = 36, 8
_PAYER_NUMBERS = ("entries", "total", "used", "limit")
TITLE = "One month of a made-up AI platform. Synthetic and seeded: nobody's data."


NEXT = (
    "usage organization:acme --last",
    "charges organization:acme",
    "credits organization:hooli",
    "explain organization:hooli --last",
    "entries user:greta --limit 10",
    "verify",
)


@dataclass(frozen=True, slots=True)
class MonthSeen:
    """The month as it was played, and what the ledger says of it afterwards."""

    played: Played
    billed: MonthBilled
    reports: Sequence[UsageReport]
    differences: Sequence[Difference]
    seconds_opening: float
    seconds_recording: float

    @property
    def total(self) -> Decimal:
        return _sum(report.total for report in self.reports)

    @property
    def entries(self) -> int:
        return sum(report.count for report in self.reports)

    @property
    def by_description(self) -> dict[str, Decimal]:
        return _sums((what, amount) for report in self.reports for (_, what), amount in report.by_description.items())

    @property
    def by_date(self) -> dict[date, Decimal]:
        days = _sums(
            (_date(report, day).isoformat(), amount) for report in self.reports for day, amount in report.by_day.items()
        )
        return {date.fromisoformat(day): days[day] for day in sorted(days)}


def _date(report: UsageReport, day: int) -> date:
    return (report.period.starts_at.astimezone(UTC) + timedelta(days=day)).date()


def _sums(pairs: Iterable[tuple[str, Decimal]]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for name, amount in pairs:
        sums[name] = EXACT.add(sums.get(name, ZERO), amount)
    return dict(sorted(sums.items(), key=lambda each: (-each[1], each[0])))


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def month_data(seen: MonthSeen) -> dict[str, object]:
    """The same for a program."""
    return {
        "synthetic": True,
        "played": seen.played,
        "total": seen.total,
        "entries": seen.entries,
        "by_entity": [usage_data(report) for report in seen.reports],
        "charges": seen.billed.charges,
        "outbox": seen.billed.outbox,
        "swept": seen.billed.swept,
        "by_description": seen.by_description,
        "by_date": {day.isoformat(): amount for day, amount in seen.by_date.items()},
        "differences": seen.differences,
        "seconds_opening": seen.seconds_opening,
        "seconds_recording": seen.seconds_recording,
    }


def show_month(on: Console, seen: MonthSeen, home: Path) -> None:
    largest = seen.reports[0]
    on.print(f"{TITLE} Model prices: genai-prices {PRICES_VERSION}.")
    for part in (
        _payers(on, seen.reports),
        parts_table(on, "What it was spent on", seen.by_description),
        parts_table(on, f"Who used it in {largest.entity}", largest.by_actor),
        _chart(on, seen.by_date),
        _troubles(on, seen.played),
        _bills(on, seen.reports),
        _told(on, seen.billed.outbox),
    ):
        on.print()
        on.print(part)
    on.print()
    _explain(on, seen.billed.explained)
    on.print()
    for line in _closing_lines(seen):
        on.print(line)
    on.print("\nLook around in it:")
    for line in _next_commands(home):
        on.print(line, soft_wrap=True)


def show_bills(
    on: Console, billed: MonthBilled, reports: Sequence[UsageReport], differences: Sequence[Difference]
) -> None:
    """The same in short: what was billed, why, and whether it adds up."""
    on.print(TITLE)
    on.print()
    on.print(_bills(on, reports))
    on.print()
    _explain(on, billed.explained)
    on.print()
    on.print(_proof(differences))
    on.print()


def _payers(on: Console, reports: Sequence[UsageReport]) -> Table:
    made = table(on, "Who pays", "plan", "entries", "total", "used", "limit", "", numbers=_PAYER_NUMBERS)
    for report in reports[:PAYERS_SHOWN]:
        made.add_row(
            report.entity,
            report.period.plan,
            f"{report.count:,}",
            amount_shown(report.total, 2),
            amount_shown(report.effective, 2),
            amount_shown(report.limit, 2) if report.limit else "none set",
            report.status if report.limit else "",
        )
    rest = reports[PAYERS_SHOWN:]
    if rest:
        sums = [_sum(getattr(each, name) for each in rest) for name in ("total", "effective")]
        made.add_row(
            f"{len(rest)} more people", "", f"{sum(each.count for each in rest):,}", *(amount_shown(s, 2) for s in sums)
        )
    return made


def _chart(on: Console, days: Mapping[date, Decimal]) -> Table:
    made = table(on, "When", "amount", "", numbers=["amount"])
    shown = apportion(days, 2)
    most = max(shown.values(), default=ZERO)
    for day, amount in shown.items():
        made.add_row(f"{day:%a %d %b}", amount_shown(amount, 2), bar(amount, most, CHART_WIDTH, plain=is_plain(on)))
    return made


def _troubles(on: Console, played: Played) -> Table:
    made = table(on, "What happened on the way", "", "what the ledger did", numbers=[""])
    made.add_row("entries recorded", f"{played.inserted:,}", f"added {amount_text(played.amount)}")
    made.add_row("entries sent again", f"{played.replayed:,}", "knew them, wrote nothing")
    made.add_row("with another amount for a used key", f"{played.conflicts:,}", "refused, as conflicts")
    if played.held or played.denied or played.turned:
        made.add_row("long runs that hold money first", f"{played.held:,}", "set aside, then took the real cost")
        made.add_row("holds beyond what was left", f"{played.denied:,}", "denied: holds never overshoot")
        made.add_row("free users who ask with nothing left", f"{played.turned:,}", "denied")
    return made


def _bills(on: Console, reports: Sequence[UsageReport]) -> Table:
    """Who had a subscription; on the others nothing is ever charged."""
    columns = ("total", "refresh", "included", "overage", "credits", "charged")
    made = table(on, "Bills of May, closed", *columns, numbers=columns)
    for report in reports:
        if report.period.kind != "dated":
            continue
        figures = (report.total, -report.refresh, report.included or ZERO, report.overage)
        cents = (report.credits_cents, report.charged_cents)
        made.add_row(report.entity, *(amount_shown(each, 2) for each in figures), *map(cents_shown, cents))
    charged, credited = (
        sum(getattr(report, name) for report in reports) for name in ("charged_cents", "credits_cents")
    )
    made.add_row("all", *[""] * 4, cents_shown(credited), cents_shown(charged))
    written_off = [report for report in reports if report.facts.written_off_cents]
    made.caption = "; ".join(
        f"{cents_shown(each.facts.written_off_cents)} of {each.entity} written off" for each in written_off
    )
    made.caption_justify = "left"
    return made


def _told(on: Console, outbox: Sequence[OutboxRow]) -> Table:
    made = table(on, "Told to others", "", "entity", "", whole=["Told to others"])
    charges = [row for row in outbox if row.kind == "charge"]
    alerts = [row for row in outbox if row.kind == "alert"]
    for row in (*alerts[-ALERTS_SHOWN:], *charges):
        made.add_row(f"{row.created_at:%d %b %H:%M}", row.kind, row.entity, told(row))
    made.add_row("", "", f"and {len(outbox) - len(charges) - min(len(alerts), ALERTS_SHOWN)} earlier alerts", "")
    return made


def _explain(on: Console, explained: Derivation) -> None:
    """The tree, cut to its largest terms, and at the terminal's width."""
    on.print(f"Why {EXPLAINED} was billed what it was:")
    on.print()
    for line in render(_page(explained)).splitlines():
        on.print(line, no_wrap=True, overflow="crop" if is_plain(on) else "ellipsis")


def _page(derivation: Derivation) -> Derivation:
    """The long lists cut to their largest terms, ids to their beginnings."""
    if derivation.name in LONG_LISTS:
        return _with_short_ids(abridged(derivation, TERMS_SHOWN))
    return replace(derivation, terms=tuple(map(_page, derivation.terms)))


def _with_short_ids(derivation: Derivation) -> Derivation:
    name = derivation.name[:SHORT_ID] if len(derivation.name) == ID_LENGTH else derivation.name
    return replace(derivation, name=name, terms=tuple(map(_with_short_ids, derivation.terms)))


def _closing_lines(seen: MonthSeen) -> list[str]:
    played = seen.played
    handled = played.inserted + played.replayed
    pace = int(handled / max(seen.seconds_recording, 0.001))
    took = f"{handled:,} entries in {played.calls:,} calls took {seen.seconds_recording:.1f} s, {pace:,} a second"
    lines = [
        f"{seen.entries:,} entries in the ledger, {amount_text(seen.total)} in all.",
        f"Opened in {seen.seconds_opening:.1f} s; {took}, each acknowledged after its commit.",
    ]
    if not played.inserted:
        lines.append("All of it was recorded by an earlier run: every key was known, and 0.00 was added.")
    return [*lines, _proof(seen.differences)]


def _proof(differences: Sequence[Difference]) -> str:
    if differences:
        return f"verify: {len(differences)} DIFFERENCES, the first: {differences[0]}"
    return "verify: clean. Every total was recomputed from the entries, and agrees."


def _next_commands(home: Path) -> list[str]:
    options = "--demo" if home == DEFAULT_HOME else f"--demo --home {shlex.quote(str(home))}"
    return [f"  {program_name()} {each} {options}" for each in NEXT]


def program_name() -> str:
    """How this program was called, for the next command to copy."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m meterbook.cli"
    if shutil.which(called.name) == str(called.absolute()):
        return called.name
    return (
        str(called.relative_to(Path.cwd()))
        if called.is_absolute() and called.is_relative_to(Path.cwd())
        else str(called)
    )
