"""``meterbook demo``: one made-up month in a real ledger, and what a person wants to see of it."""

import sys
from functools import partial
from time import monotonic
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from meterbook.book import Book
from meterbook.cli.command import Session, command
from meterbook.cli.demo_screen import MonthSeen, month_data, show_bills, show_month
from meterbook.cli.demo_serving import serve_demo
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_demo
from meterbook.cli.screen import console
from meterbook.cli.serving import fast_loop
from meterbook.demo import cast
from meterbook.demo.bill import bill_month
from meterbook.demo.play import DemoClock, is_billed, play, play_on, read_back
from meterbook.demo.workload import running_month, steps
from meterbook.plain import json_text

app = typer.Typer()


@command(app, "demo", "run", loop=fast_loop)
async def demo(
    session: Session,
    *,
    seed: Annotated[int, typer.Option(help="Another seed is another month; give it a --home of its own.")] = cast.SEED,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Then serve it: the API and the console, until Ctrl-C. Says where, and by which key."
        ),
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="With --serve; else 8080, or a free one if that is taken.", show_default=False)
    ] = None,
) -> Exit:
    """Play a synthetic month of an AI platform into a ledger of its own, bill it, and show what the ledger says.

    About 28,000 usage entries of 40 made-up people, with retries, conflicts, late reports, streams and corrections,
    holds, credits and upgrades, and the bills of June 1st. Playing it again adds nothing: every entry is known by its key.
    With --serve, also some days of June, so that something runs.
    """
    if serve:
        await serve_demo(session, port, partial(_prepare, session, seed))
        return Exit.DONE
    began = monotonic()
    month = steps(seed)
    clock = DemoClock()
    async with open_demo(session, clock) as book:
        opened = monotonic()
        with _progress(session) as progress:
            task = progress.add_task("playing May 2026", total=len(month))
            played = await play(book, clock, month, lambda done: progress.advance(task, done))
        recorded = monotonic()
        billed = await bill_month(book, clock)
        seen = MonthSeen(
            played=played,
            billed=billed,
            reports=await read_back(book),
            differences=await book.verify(),
            seconds_opening=opened - began,
            seconds_recording=recorded - opened,
        )
    if session.json:
        print(json_text(month_data(seen)))
    else:
        show_month(console(), seen, session.home)
    return Exit.FINDINGS if seen.differences else Exit.DONE


async def _prepare(session: Session, seed: int, book: Book, clock: DemoClock) -> None:
    """The month, its bills, and the days after it; what an earlier run has done is left alone."""
    await book.begin_demo()
    month, running = steps(seed), running_month(seed)
    with _progress(session) as progress:
        if not await is_billed(book):
            task = progress.add_task("playing May 2026", total=len(month))
            await play(book, clock, month, lambda done: progress.advance(task, done))
        billed = await bill_month(book, clock)
        task = progress.add_task("and some of June", total=len(running))
        await play_on(book, clock, running, lambda done: progress.advance(task, done))
    if not session.json:
        show_bills(console(), billed, await read_back(book), await book.verify())


def _progress(session: Session) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console(sys.stderr),
        disable=session.json or not sys.stderr.isatty(),
        transient=True,
    )
