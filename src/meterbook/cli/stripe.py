"""``meterbook stripe events``, ``replay`` and ``listen-url``: what Stripe told, what became of it, and what it is to tell."""

from collections.abc import Sequence
from typing import Annotated

import typer

from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.screen import console, table, time_shown
from meterbook.core.ledgers import StripeApplied, StripeEventState
from meterbook.plain import json_text
from meterbook.stripe.events import KINDS, WEBHOOK_PATH
from meterbook.stripe.gateway import API_VERSION

STATES = ("pending", "applied", "ignored", "stale", "failed")

app = typer.Typer(
    name="stripe",
    help="What Stripe tells by webhooks: see it, apply again what failed, set it up.",
    no_args_is_help=True,
)


@command(app, "events")
async def events(
    session: Session,
    state: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(STATES)}.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1, max=1000)] = 100,
) -> Exit:
    """Webhook events that were received and what became of them. Exit code 1 if one has failed."""
    if state is not None and state not in STATES:
        raise typer.BadParameter(f"{state!r} is not one of {', '.join(STATES)}", param_hint="--state")
    async with open_book(session) as book:
        found = await book.stripe_events(state=state, limit=limit)
    if session.json:
        print(json_text({"events": found}))
    else:
        _show_events(found)
    return Exit.FINDINGS if any(each.state == "failed" for each in found) else Exit.DONE


def _show_events(found: Sequence[StripeEventState]) -> None:
    on = console()
    made = table(
        on, "created", "event", "kind", "about", "state", "tries", "note", numbers=["tries"], whole=["created", "event"]
    )
    for each in found:
        row = (
            time_shown(each.created_at),
            each.id,
            each.kind,
            each.subject,
            each.state,
            str(each.attempts),
            each.note or "",
        )
        made.add_row(*row)
    on.print(made)


@command(app, "replay")
async def replay(
    session: Session,
    event: Annotated[
        str | None, typer.Argument(metavar="[EVENT]", help="An event's id: evt_….", show_default=False)
    ] = None,
    *,
    failed: Annotated[
        bool, typer.Option("--failed", help="All that failed or never came to an end, in Stripe's order.")
    ] = False,
) -> Exit:
    """Apply again what failed, once it is mended: one event, or all. What was applied before is left as it is."""
    if (event is None) != failed:
        raise typer.BadParameter("name an event, or say --failed")
    async with open_book(session) as book:
        done = await book.replay_stripe_events() if event is None else [await book.replay_stripe_event(event)]
    if session.json:
        print(json_text({"replayed": done}))
    else:
        _show_replayed(done)
    return Exit.FINDINGS if any(each.state == "failed" for each in done) else Exit.DONE


def _show_replayed(done: Sequence[StripeApplied]) -> None:
    on = console()
    for each in done:
        word = f"{each.state} before" if each.replayed else each.state
        on.print(
            " ".join(part for part in (each.id, f"{word}:" if each.note else word, each.note) if part), soft_wrap=True
        )
    if not done:
        on.print("nothing to do: no event waits")


@command(app, "listen-url")
async def listen_url(
    session: Session,
    base: Annotated[
        str,
        typer.Argument(metavar="BASE", help="Where Stripe reaches your application: https://….", show_default=False),
    ],
) -> Exit:
    """The webhook endpoint to make at Stripe: its URL, the API version, and the exact events to enable."""
    url = base.rstrip("/") + WEBHOOK_PATH
    if session.json:
        print(json_text({"url": url, "api_version": API_VERSION, "events": KINDS}))
        return Exit.DONE
    on = console()
    on.print(f"url          {url}", soft_wrap=True)
    on.print(f"api version  {API_VERSION}")
    for number, kind in enumerate(KINDS):
        on.print(f"{'events' if number == 0 else '':<12} {kind}")
    on.print(f"try it       stripe listen --events {','.join(KINDS)} --forward-to {url}", soft_wrap=True)
    return Exit.DONE
