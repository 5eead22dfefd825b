"""``meterbook worker``: the upkeep of a ledger, by the clock, until it is told to stop."""

from functools import partial
from typing import Annotated

import typer

from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.worker import RHYTHM, Rhythm, work, work_once

app = typer.Typer()


@command(app, "worker")
async def worker(
    session: Session,
    *,
    once: Annotated[
        bool,
        typer.Option("--once", help="Do what is due now and end: exit code 1 if a close waits or something failed."),
    ] = False,
    sweep_every: Annotated[float, typer.Option(help="Seconds between sweeps.", min=0.1)] = RHYTHM.sweep_s,
    fold_every: Annotated[float, typer.Option(help="Seconds between folds.", min=0.1)] = RHYTHM.fold_s,
) -> Exit:
    """Fold, sweep and make partitions by the clock, until SIGTERM or Ctrl-C. Several at once are safe.

    It waits for a database that is away, and logs one line an event to standard error.
    """
    if once:
        async with open_book(session) as book:
            swept = await work_once(book)
        return Exit.FINDINGS if swept.deferred or swept.failed else Exit.DONE
    await work(partial(open_book, session), Rhythm(sweep_s=sweep_every, fold_s=fold_every))
    return Exit.DONE
