"""``meterbook record`` and ``meterbook correct``: usage, one by one or from a pipe."""

import json
import sys
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import typer

from meterbook.catalogs import load_catalog
from meterbook.cli.acting import noted
from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.screen import console
from meterbook.core.derivation import amount_text
from meterbook.core.entries import check_each_entry
from meterbook.core.recorded import Recorded
from meterbook.errors import InvalidUsage, Problem
from meterbook.plain import json_text

STDIN = "-"
STDIN_ENTRIES_MAX = 10_000
STDIN_BYTES_MAX = 67_108_864

app = typer.Typer()


def _option(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


@command(app, "record")
async def record(
    session: Session,
    actor: Annotated[
        str,
        typer.Argument(help="Whose action cost money; - reads entries from standard input, one JSON object a line."),
    ],
    *,
    source: Annotated[str | None, _option("What kind of work: workflow, copilot, …")] = None,
    description: Annotated[str | None, _option("What it was: a model, a tool.")] = None,
    amount: Annotated[str | None, _option("What it cost, in the ledger's currency: 0.0123.")] = None,
    event_key: Annotated[
        str | None, _option("Your name for this intent to charge. Takes effect once, for ever.")
    ] = None,
    category: Annotated[str | None, _option("model (unless you say otherwise), tool or fixed.")] = None,
    line: Annotated[str | None, _option("Which of several equal pieces of work in one execution.")] = None,
    entity: Annotated[str | None, _option("Who pays, user:ID or organization:ID; else it is found.")] = None,
    period: Annotated[int | None, _option("The id of a period of the payer; else it is found.")] = None,
    workspace: Annotated[str | None, _option("Where the work was done; its payer pays.")] = None,
    workflow: Annotated[str | None, _option("Which workflow.")] = None,
    execution: Annotated[str | None, _option("Which run of it.")] = None,
    source_reference: Annotated[str | None, _option("Your id of the piece of work.")] = None,
    occurred_at: Annotated[str | None, _option("When it happened, ISO 8601; now, if left out.")] = None,
    metadata: Annotated[str | None, _option("A JSON object to keep with the entry.")] = None,
    attribution: Annotated[str | None, _option("A token that says who pays, resolved before the work.")] = None,
) -> Exit:
    """Record usage once: the same event key again is the same usage.

    `meterbook record -` takes up to 10,000 entries from standard input, all or nothing. Their fields are named like
    these options (event_key, occurred_at, …); amounts are strings.
    """
    if actor == STDIN:
        entries = _entries_from(sys.stdin.buffer.read(STDIN_BYTES_MAX + 1), load_catalog(session.catalog).currency)
    else:
        said = {
            "actor": actor,
            "source": source,
            "description": description,
            "amount": amount,
            "event_key": event_key,
            "category": category,
            "line": line,
            "entity": entity,
            "period": period,
            "workspace": workspace,
            "workflow": workflow,
            "execution": execution,
            "source_reference": source_reference,
            "occurred_at": occurred_at,
            "metadata": None if metadata is None else _json(None, "metadata", metadata),
            "attribution": attribution,
        }
        entries = [_timed(None, {name: value for name, value in said.items() if value is not None})]
    async with open_book(session) as book:
        recorded = await book.record_many(entries)
    _tell(session, recorded)
    return Exit.DONE


@command(app, "correct")
async def correct(
    session: Session,
    entry: Annotated[str, typer.Argument(help="The entry's id, as `record` and `entries` show it.")],
    amount: Annotated[str, _option("What to add; negative takes back: --amount=-0.01.")],
    reason: Annotated[str, _option("Why; kept with the correction.")],
    event_key: Annotated[str, _option("Your name for this correction. Takes effect once, for ever.")],
) -> Exit:
    """Correct an entry by a new one that points at it; entries themselves never change."""
    async with (
        open_book(session) as book,
        noted(book, "correct", entry, amount=amount, reason=reason, event_key=event_key),
    ):
        recorded = await book.correct(entry, amount=amount, reason=reason, event_key=event_key)
    _tell(session, recorded)
    return Exit.DONE


def _entries_from(read: bytes, currency: str) -> list[dict[str, Any]]:
    """Every bad line is named: those that can't be read, and what is wrong with the others."""
    written = [line for line in read.split(b"\n") if line.strip()]
    if len(written) > STDIN_ENTRIES_MAX or len(read) > STDIN_BYTES_MAX:
        reason = f"one call takes at most {STDIN_ENTRIES_MAX:,} entries, 64 MiB; `meterbook import -` takes any number"
        raise InvalidUsage([Problem(None, "entry", "too_many", reason)])
    entries: dict[int, dict[str, Any]] = {}
    problems: list[Problem] = []
    for index, line in enumerate(written):
        try:
            entries[index] = _timed(index, _json(index, "entry", line))
        except InvalidUsage as unread:
            problems += unread.problems
    if problems:
        positions = list(entries)
        _, others = check_each_entry(list(entries.values()), currency)
        problems += [replace(one, index=positions[one.index]) for one in others if one.index is not None]
        raise InvalidUsage(sorted(problems, key=lambda one: one.index or 0))
    return list(entries.values())


def _json(index: int | None, field: str, text: str | bytes) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidUsage([Problem(index, field, "invalid_json", f"is not JSON: {error}")]) from error
    if not isinstance(read, dict):
        raise InvalidUsage([Problem(index, field, "invalid_json", "is not a JSON object")])
    return read


def _timed(index: int | None, said: dict[str, Any]) -> dict[str, Any]:
    """The entry with its time read; a missing amount and other mistakes are the ledger's to name."""
    if "occurred_at" not in said:
        return said
    return {**said, "occurred_at": _time(index, said["occurred_at"])}


def _time(index: int | None, text: object) -> datetime:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError as error:
        raise InvalidUsage([Problem(index, "occurred_at", "invalid_time", f"{text!r} is not ISO 8601")]) from error


def _tell(session: Session, recorded: Recorded) -> None:
    if session.json:
        print(json_text(recorded))
    else:
        show_recorded(recorded)


def show_recorded(recorded: Recorded) -> None:
    on = console()
    for entry in recorded.entries:
        late = "" if entry.belongs_to is None else f", late: it belongs to period {entry.belongs_to}"
        on.print(
            f"{entry.outcome} {amount_text(entry.amount)}  {entry.entity}, period {entry.period}{late}  id {entry.id}"
        )
    on.print(
        f"{recorded.inserted:,} inserted, {recorded.replayed:,} replayed, amount inserted {amount_text(recorded.amount)}"
    )
