"""``meterbook import``: files of usage."""

import dataclasses
import gc
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Annotated, BinaryIO, Self

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.screen import console, table
from meterbook.core.derivation import amount_text
from meterbook.importing.import_file import ImportReport, import_stream
from meterbook.importing.mapping import ColumnMapping, read_mapping_file, timezone_named
from meterbook.importing.refusal import ImportRefused
from meterbook.importing.rejects import Rejects
from meterbook.plain import json_text
from meterbook.pricing import PRICES_VERSION

STDIN = "-"
OBJECTS_BETWEEN_COLLECTIONS = 100_000
app = typer.Typer()


@command(app, "import")
async def import_file(
    session: Session,
    file: Annotated[str, typer.Argument(help="A CSV or NDJSON file; - is standard input.", show_default=False)],
    *,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="FIELD=COLUMN", help="Read a field from this column (or JSON path).", show_default=False
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=TEXT", help="The same text for a field in every row.", show_default=False),
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="A TOML file: tables columns and constants, timezone.", show_default=False)
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The import's name, part of each row's key; else the file's.", show_default=False),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of times without an offset; else UTC.", show_default=False)
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", metavar="csv|ndjson", help="Else seen from the first line.", show_default=False),
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Of a CSV file; else the one its header uses.", show_default=False)
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Where rows that don't land go; else FILE.rejects.csv.", show_default=False)
    ] = None,
) -> Exit:
    """Record every row of a file once: run it again, after a crash or when the file grew, and only new rows are added."""
    asked = _combined(mapping, map_ or [], set_ or [], timezone)
    path = None if file == STDIN else Path(file)
    if path is None and name is None:
        raise ImportRefused("standard input has no name of its own: give one with --name, the same each time")
    named = name or Path(file).name
    kept = Rejects(rejects or _rejects_path(path, named))
    _collect_rarely()
    with _opened(path) as stream, kept:
        async with open_book(session) as book:
            with _Progress(session, path, named) as progress:
                report = await import_stream(
                    book,
                    stream,
                    name=named,
                    mapping=asked,
                    rejects=kept,
                    now=datetime.now(UTC),
                    file_format=_known_format(file_format),
                    delimiter=delimiter,
                    on_progress=progress.show,
                )
    _tell(session, report, kept)
    return Exit.FINDINGS if report.rejected else Exit.DONE


def _collect_rarely() -> None:
    """Rows make no cycles, and looking for cycles among them took a fifth of the time."""
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def _combined(path: Path | None, maps: list[str], sets: list[str], timezone: str | None) -> ColumnMapping:
    """The mapping file, and over it what the command line says."""
    written = read_mapping_file(path) if path is not None else ColumnMapping()
    columns, constants = _pairs("--map", maps), _pairs("--set", sets)
    kept_columns = {name: column for name, column in written.columns.items() if name not in constants}
    kept_constants = {name: text for name, text in written.constants.items() if name not in columns}
    zone = timezone_named(timezone) if timezone is not None else written.timezone
    return ColumnMapping(kept_columns | columns, kept_constants | constants, zone)


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not value:
            raise ImportRefused(f"{option} takes FIELD=VALUE, not {each!r}")
        if name in pairs:
            raise ImportRefused(f"{option} names {name} twice")
        pairs[name] = value
    return pairs


def _known_format(named: str | None) -> str | None:
    if named not in {None, "csv", "ndjson"}:
        raise ImportRefused(f"--format is csv or ndjson, not {named!r}")
    return named


def _opened(path: Path | None) -> AbstractContextManager[BinaryIO]:
    if path is None:
        return nullcontext(sys.stdin.buffer)
    if path.is_dir():
        raise ImportRefused(f"{path} is a folder; name a file")
    try:
        return path.open("rb")
    except OSError as error:
        raise ImportRefused(f"{path} can't be read: {error.strerror}") from error


def _rejects_path(path: Path | None, name: str) -> Path:
    """Beside the file; in the working directory for standard input, or if that folder can't be written."""
    if path is not None and os.access(path.parent, os.W_OK):
        return path.with_name(f"{path.name}.rejects.csv")
    return Path(f"{name.replace(os.sep, '_')}.rejects.csv")


class _Progress:
    """A bar on standard error while a person watches; otherwise nothing."""

    def __init__(self, session: Session, path: Path | None, name: str) -> None:
        size = path.stat().st_size if path is not None and path.is_file() else None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TextColumn("{task.fields[pace]:,} rows/s"),
            TimeRemainingColumn(),
            console=console(sys.stderr),
            disable=session.json or not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task(name, total=size, rows=0, pace=0)
        self._started = monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def show(self, bytes_read: int, rows: int) -> None:
        pace = int(rows / max(monotonic() - self._started, 0.001))
        self._bar.update(self._task, completed=bytes_read, rows=rows, pace=pace)


def _tell(session: Session, report: ImportReport, rejects: Rejects) -> None:
    if session.json:
        print(json_text({**_data(report), "rejects": str(rejects.path) if report.rejected else None}))
        return
    on = console()
    made = table(on, report.name, "", numbers=[""])
    for label, shown in _lines(report):
        made.add_row(label, shown)
    on.print(made)
    if report.unused:
        on.print(f"Columns that were not read: {', '.join(report.unused)}")
    if report.rejected:
        _tell_rejected(report, rejects)


def _data(report: ImportReport) -> dict[str, object]:
    fields: dict[str, object] = {each.name: getattr(report, each.name) for each in dataclasses.fields(report)}
    return {**fields, "rows_per_second": _pace(report), "prices": f"genai-prices {PRICES_VERSION}"}


def _lines(report: ImportReport) -> list[tuple[str, str]]:
    return [
        ("rows read", f"{report.rows:,}"),
        ("recorded now", f"{report.inserted:,}"),
        ("recorded before", f"{report.replayed:,}"),
        ("worth nothing, not recorded", f"{report.zero:,}"),
        ("rejected", f"{report.rejected:,}"),
        ("amount added", amount_text(report.amount)),
        ("times without an offset are", report.timezone),
        ("model prices", f"genai-prices {PRICES_VERSION}"),
        ("seconds", f"{report.seconds:.2f}"),
        ("rows a second", f"{_pace(report):,}"),
    ]


def _pace(report: ImportReport) -> int:
    return int(report.rows / max(report.seconds, 0.001))


def _tell_rejected(report: ImportReport, rejects: Rejects) -> None:
    on = console(sys.stderr)
    on.print(f"{report.rejected:,} rows were rejected; each is in {rejects.path} with its reason:")
    for row, problem in rejects.first:
        on.print(f"  line {row.line}: {problem.message}")
    if report.rejected > len(rejects.first):
        on.print(f"  and {report.rejected - len(rejects.first):,} more")
    on.print("Mend them in the file and import it again: what has landed is not recorded twice.")
