"""``meterbook hold``, ``settle``, ``release`` and ``holds``: money set aside for work that has not finished."""

from collections.abc import Sequence
from typing import Annotated

import typer

from meterbook.book.holding import HOLD_TTL_S
from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.limits import User, Workspace
from meterbook.cli.opening import open_book
from meterbook.cli.reading import Entity, time_asked
from meterbook.cli.recording import show_recorded
from meterbook.cli.screen import amount_shown, console, table, time_shown
from meterbook.core.derivation import amount_text
from meterbook.core.ledgers import HoldState
from meterbook.plain import as_json, json_text

HOLDS_SHOWN = 100

app = typer.Typer()

HoldId = Annotated[str, typer.Argument(metavar="HOLD", help="The hold's id, as `hold` showed it.", show_default=False)]


@command(app, "hold")
async def hold(
    session: Session,
    user: User,
    amount: Annotated[str, typer.Argument(help="What the work may cost: 0.50.", show_default=False)],
    *,
    hold_id: Annotated[
        str | None, typer.Option("--id", help="Your name for it; the same again is the same hold.", show_default=False)
    ] = None,
    ttl: Annotated[int, typer.Option(help="Seconds until it ends by itself.")] = HOLD_TTL_S,
    workspace: Workspace = None,
) -> Exit:
    """Set money aside before work begins, if there is enough left: exit code 5 if there is not. Never overshoots."""
    async with open_book(session) as book:
        state = await book.place_hold(user, amount=amount, hold_id=hold_id, ttl_s=ttl, workspace=workspace)
    if session.json:
        print(json_text({"hold": state, "overshoot": state.overshoot}))
    else:
        until = time_shown(state.expires_at)
        console().print(f"{state.state} {amount_text(state.amount)}  {state.entity}, until {until} UTC  id {state.id}")
    return Exit.DONE


@command(app, "settle")
async def settle(
    session: Session,
    hold_id: HoldId,
    amount: Annotated[str, typer.Argument(help="What it really cost; 0 records nothing.", show_default=False)],
    *,
    source: Annotated[str, typer.Option(help="What kind of work: workflow, copilot, …", show_default=False)],
    description: Annotated[str, typer.Option(help="What it was: a model, a tool.", show_default=False)],
    event_key: Annotated[
        str | None, typer.Option(help="Your name for this charge; else the hold's id.", show_default=False)
    ] = None,
    category: Annotated[str, typer.Option(help="model, tool or fixed.")] = "model",
    execution: Annotated[str | None, typer.Option(help="Which run of it.", show_default=False)] = None,
    occurred_at: Annotated[
        str | None, typer.Option(help="When it happened, ISO 8601; now, if left out.", show_default=False)
    ] = None,
) -> Exit:
    """Record the real cost, below or above what was held, and end the hold; a dead hold's usage is recorded too."""
    async with open_book(session) as book:
        settled = await book.settle(
            hold_id,
            amount=amount,
            source=source,
            description=description,
            event_key=event_key,
            category=category,
            execution=execution,
            occurred_at=time_asked("--occurred-at", occurred_at),
        )
    if session.json:
        print(json_text({"state": settled.state, "recorded": as_json(settled.recorded)}))
        return Exit.DONE
    if settled.state != "settled":
        console().print(f"the hold had {settled.state} before; its usage is recorded all the same")
    show_recorded(settled.recorded)
    return Exit.DONE


@command(app, "release")
async def release(session: Session, hold_id: HoldId) -> Exit:
    """End a hold without a cost."""
    async with open_book(session) as book:
        released = await book.release(hold_id)
    if session.json:
        print(json_text({"released": released}))
    else:
        console().print("released" if released else "nothing to do: the hold had ended before")
    return Exit.DONE


@command(app, "holds")
async def holds(
    session: Session, entity: Entity, limit: Annotated[int, typer.Option(help="How many, newest first.")] = HOLDS_SHOWN
) -> Exit:
    """An entity's holds, newest first, and what became of them."""
    async with open_book(session) as book:
        states = await book.holds(entity, limit=limit)
    if session.json:
        print(json_text({"holds": states}))
    else:
        _show_holds(states)
    return Exit.DONE


def _show_holds(states: Sequence[HoldState]) -> None:
    on = console()
    columns = ("held", "settled")
    made = table(on, "granted (UTC)", "who", *columns, "state", "id", numbers=columns, whole=["granted (UTC)"])
    for state in states:
        settled = "" if state.settled is None else amount_shown(state.settled)
        made.add_row(
            time_shown(state.granted_at), state.actor, amount_shown(state.amount), settled, state.state, state.id
        )
    on.print(made)
