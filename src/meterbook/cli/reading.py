"""``meterbook usage``, ``entries`` and ``explain``: what was used, row by row, and why a number is what it is."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.screen import AMOUNT_PLACES, amount_shown, bar, cents_shown, console, is_plain, table, time_shown
from meterbook.core.breakdown import apportion
from meterbook.core.charges import unbilled_cents
from meterbook.core.derivation import amount_text, as_data, counted, render
from meterbook.core.entry_pages import EntryPage, UsageEntry
from meterbook.core.period_facts import Period
from meterbook.core.usage_report import UsageReport
from meterbook.errors import InvalidRequest
from meterbook.plain import json_text, usage_data

BAR_WIDTH = 30
PARTS_SHOWN_MAX = 15
PAGE_ENTRIES = 50
WIDTH_FOR_ALL_COLUMNS = 120
USER = "user:"

app = typer.Typer()

Entity = Annotated[
    str, typer.Argument(metavar="ENTITY", help="Who pays: user:ID or organization:ID.", show_default=False)
]
PeriodNamed = Annotated[str, typer.Option("--period", help="current, last, or the id of a period.")]


@command(app, "usage")
async def usage(
    session: Session,
    entity: Entity,
    period: PeriodNamed = "current",
    *,
    last: Annotated[bool, typer.Option("--last", help="The same as --period last.")] = False,
) -> Exit:
    """What an entity used in a period: exact while others write, however many entries there are."""
    async with open_book(session) as book:
        report = await book.usage(entity, period="last" if last else period_asked(period))
    if session.json:
        print(json_text(usage_data(report)))
    else:
        show_usage(console(), report)
    return Exit.DONE


@command(app, "explain")
async def explain(
    session: Session,
    entity: Entity,
    period: PeriodNamed = "current",
    *,
    last: Annotated[bool, typer.Option("--last", help="The same as --period last.")] = False,
    denial: Annotated[bool, typer.Option("--denial", help="Why `check` answers what it answers, of user:ID.")] = False,
    workspace: Annotated[
        str | None, typer.Option(help="With --denial: where the work is done.", show_default=False)
    ] = None,
) -> Exit:
    """Why a number is what it is: a period's bill from its rows on, or with --denial the answer of a check."""
    if denial and not entity.startswith(USER):
        raise InvalidRequest(f"a check is of a person: explain user:ID --denial, not {entity}")
    async with open_book(session) as book:
        if denial:
            derivation = await book.explain_check(entity.removeprefix(USER), workspace=workspace)
        else:
            derivation = await book.explain(entity, period="last" if last else period_asked(period))
    print(json_text(as_data(derivation)) if session.json else render(derivation))
    return Exit.DONE


@command(app, "entries")
async def entries(
    session: Session,
    entity: Entity,
    *,
    source: Annotated[str | None, typer.Option(help="Only this source.", show_default=False)] = None,
    category: Annotated[str | None, typer.Option(help="Only model, tool or fixed.", show_default=False)] = None,
    actor: Annotated[str | None, typer.Option(help="Only this actor's.", show_default=False)] = None,
    workspace: Annotated[str | None, typer.Option(help="Only in this workspace.", show_default=False)] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Happened at or after; UTC unless it says.", show_default=False),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Happened before.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="Entries on a page.")] = PAGE_ENTRIES,
    cursor: Annotated[
        str | None, typer.Option(help="The next page, as the page before names it.", show_default=False)
    ] = None,
) -> Exit:
    """The entries of an entity, newest first, and the sum of the whole filter beside the page."""
    async with open_book(session) as book:
        page = await book.entries(
            entity,
            source=source,
            category=category,
            actor=actor,
            workspace=workspace,
            start=time_asked("--from", start),
            end=time_asked("--to", end),
            limit=limit,
            cursor=cursor,
        )
    if session.json:
        print(json_text(page))
    else:
        _show_entries(console(), entity, page)
    return Exit.DONE


def period_asked(named: str) -> str | int:
    return int(named) if named.isdecimal() else named


def time_asked(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(f"{option} {text!r} is no time like 2026-05-31T17:04:05Z") from error
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def show_usage(on: Console, report: UsageReport) -> None:
    named = {f"{description}  ({source})": amount for (source, description), amount in report.by_description.items()}
    parts = [_figures(on, report)]
    if report.count:
        parts += (
            parts_table(on, "who", report.by_actor),
            parts_table(on, "what", named),
            days_table(on, report.period, report.by_day),
        )
    on.print(_heading(report))
    for part in parts:
        on.print()
        on.print(part)
    if not report.count:
        on.print(f"\nnothing is known of {report.entity} in this period; is the id right?")


def _heading(report: UsageReport) -> str:
    period = report.period
    seats = f" × {period.seats} seats" if period.seats > 1 else ""
    return f"{report.entity}, plan {period.plan}{seats}, {_span(period)}, period {period.id} ({period.state})"


def _span(period: Period) -> str:
    if period.kind == "free":
        return "without a subscription"
    last = period.ends_at - timedelta(microseconds=1)
    return f"{period.starts_at.astimezone(UTC):%Y-%m-%d} to {last.astimezone(UTC):%Y-%m-%d}"


def _figures(on: Console, report: UsageReport) -> Table:
    made = table(on, "figure", "amount", "", numbers=["amount"])
    made.add_row("total", amount_shown(report.total), counted(report.count))
    if report.baseline:
        made.add_row("baseline", amount_shown(report.baseline), "of which from before the cutover")
    if report.given_back:
        made.add_row("given back in money", amount_shown(report.given_back), "in the total, in no limit")
    made.add_row("daily refresh", amount_shown(-report.refresh), "")
    made.add_row("used", amount_shown(report.effective), f"{report.percent} % of the limit: {report.status}")
    if report.held:
        made.add_row("held", amount_shown(report.held), "set aside, counts until it ends")
    made.add_row("limit", amount_shown(report.limit), "")
    if report.included is not None and report.period.kind == "dated":
        made.add_row("included", amount_shown(report.included), "")
        made.add_row("overage", amount_shown(report.overage), "")
        if report.credits_cents:
            made.add_row("paid by credits", cents_shown(report.credits_cents), "")
        made.add_row("charged", cents_shown(report.charged_cents), f"unbilled {cents_shown(unbilled_cents(report))}")
    return made


def parts_table(on: Console, name: str, parts: Mapping[str, Decimal]) -> Table:
    """A breakdown that adds up as it is shown, largest first, with bars; many small parts share the last line."""
    made = table(on, name, "amount", "", numbers=["amount"])
    shown = apportion(_gathered(parts), AMOUNT_PLACES)
    most = max(shown.values(), default=Decimal(0))
    for part, amount in shown.items():
        made.add_row(part, amount_shown(amount), bar(amount, most, BAR_WIDTH, plain=is_plain(on)))
    return made


def _gathered(parts: Mapping[str, Decimal]) -> dict[str, Decimal]:
    names = list(parts)
    rest = names[PARTS_SHOWN_MAX:]
    kept = {name: parts[name] for name in names[:PARTS_SHOWN_MAX]}
    return kept | ({f"{len(rest)} others": sum((parts[name] for name in rest), Decimal(0))} if rest else {})


def days_table(on: Console, period: Period, by_day: Mapping[int, Decimal]) -> Table:
    """Each day on which something was used. Days are 24 hours from the period's start."""
    made = table(on, "day", "amount", "", numbers=["amount"])
    shown = apportion(by_day, AMOUNT_PLACES)
    most = max(shown.values(), default=Decimal(0))
    for day, amount in shown.items():
        begins = period.starts_at.astimezone(UTC) + timedelta(days=day)
        made.add_row(f"{begins:%a %Y-%m-%d}", amount_shown(amount), bar(amount, most, BAR_WIDTH, plain=is_plain(on)))
    return made


def _show_entries(on: Console, entity: str, page: EntryPage) -> None:
    if not page.entries:
        on.print(f"nothing is known of {entity} that this asks for; is the id right?")
        return
    on.print(_wide_table(on, page) if on.width >= WIDTH_FOR_ALL_COLUMNS else _narrow_table(on, page))
    if page.summary is not None:
        on.print(f"{counted(page.summary.count)}, {amount_text(page.summary.amount)} in all")
    if page.next_cursor is not None:
        on.print(f"next page: --cursor {page.next_cursor}", soft_wrap=True)


def _wide_table(on: Console, page: EntryPage) -> Table:
    made = table(
        on,
        "recorded (UTC)",
        "who",
        "source",
        "what",
        "amount",
        "id",
        numbers=["amount"],
        whole=["recorded (UTC)", "id"],
    )
    for each in page.entries:
        recorded, amount = time_shown(each.recorded_at), amount_text(each.amount)
        made.add_row(recorded, each.actor, each.source, _described(each), amount, each.id)
    return made


def _narrow_table(on: Console, page: EntryPage) -> Table:
    """Each id under what was used, where it can be copied whole."""
    made = table(on, "recorded (UTC)", "who", "what, id", "amount", numbers=["amount"], whole=["recorded (UTC)"])
    for each in page.entries:
        what = f"{_described(each)}  ({each.source})\n{each.id}"
        made.add_row(time_shown(each.recorded_at), each.actor, what, amount_text(each.amount))
    return made


def _described(entry: UsageEntry) -> str:
    notes = [entry.description]
    if entry.corrects is not None:
        notes.append(f"correction: {entry.reason}")
    if entry.belongs_to is not None:
        notes.append(f"late, of period {entry.belongs_to}")
    return ", ".join(notes)
