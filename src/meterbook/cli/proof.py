"""``meterbook verify`` and ``rebuild``: every derived figure against the entries."""

from typing import Annotated

import typer

from meterbook.cli.acting import noted
from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.screen import console
from meterbook.core.derivation import counted
from meterbook.plain import json_text

DIFFERENCES_SHOWN_MAX = 50

app = typer.Typer()


@command(app, "verify")
async def verify(
    session: Session,
    entity: Annotated[
        str | None, typer.Argument(metavar="[ENTITY]", help="Only this one; else the whole ledger.", show_default=False)
    ] = None,
) -> Exit:
    """Recompute every total from the entries and name each difference: exit code 1 if there is one."""
    async with open_book(session) as book:
        differences, unprovable = await book.verify(entity), await book.unprovable(entity)
    if session.json:
        print(json_text({"differences": differences, "unprovable": unprovable}))
    elif not differences:
        console().print("clean: every derived figure is what its entries add up to")
    else:
        on = console()
        for difference in differences[:DIFFERENCES_SHOWN_MAX]:
            on.print(str(difference), soft_wrap=True)
        on.print(
            f"{len(differences):,} differences; the entries are what counts: `meterbook rebuild ENTITY` derives its rollups anew"
        )
    if unprovable and not session.json:
        console().print(f"{counted(unprovable)} of erased persons: who acted can't be proven any more, the rest was")
    return Exit.FINDINGS if differences else Exit.DONE


@command(app, "rebuild")
async def rebuild(
    session: Session,
    entity: Annotated[str, typer.Argument(help="user:ID or organization:ID.", show_default=False)],
) -> Exit:
    """Derive an entity's totals anew from its entries, which stay as they are; exit code 1 if `verify` still finds something."""
    async with open_book(session) as book:
        async with noted(book, "rebuild", entity):
            made = await book.rebuild(entity)
        differences = await book.verify(entity)
    if session.json:
        print(json_text({"rollups": made, "differences": differences}))
    else:
        console().print(f"{made:,} rollups derived anew, {len(differences):,} differences left")
    return Exit.FINDINGS if differences else Exit.DONE
