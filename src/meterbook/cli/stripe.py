"""``meterbook stripe …``: what Stripe told and what became of it, what it is told, and whether an account takes it."""

from collections.abc import Sequence
from typing import Annotated

import typer

from meterbook.catalogs import load_catalog
from meterbook.cli.acting import noted
from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book, stripe_api_base
from meterbook.cli.screen import console, table, time_shown
from meterbook.core.ledgers import StripeApplied, StripeEventState
from meterbook.errors import MeterbookError
from meterbook.plain import json_text
from meterbook.stripe.events import KINDS, WEBHOOK_PATH
from meterbook.stripe.gateway import API_VERSION, StripeAccount, StripeGateway
from meterbook.stripe.rehearsal import TEST_KEYS, Say, rehearse

STATES = ("pending", "applied", "ignored", "stale", "failed")

app = typer.Typer(
    name="stripe",
    help="What Stripe tells and is told: see it, apply again what failed, set it up, try it.",
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
    async with open_book(session) as book, noted(book, "replay_stripe_events", event or "all that failed"):
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


@command(app, "dismiss")
async def dismiss(
    session: Session,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="An event's id: evt_….", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why it is to have no effect; kept with it.", show_default=False)],
) -> Exit:
    """Let an event that waits have no effect, so that what waits for it goes on: for what never was meant for this ledger."""
    async with open_book(session) as book, noted(book, "dismiss_stripe_event", event, reason=reason):
        dismissed = await book.dismiss_stripe_event(event, reason=reason)
    if session.json:
        print(json_text({"event": event, "dismissed": dismissed}))
    else:
        console().print(f"{event} dismissed" if dismissed else f"{event} does not wait: nothing to do")
    return Exit.DONE


@command(app, "seats")
async def seats(
    session: Session,
    subscription: Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="Its id here.", show_default=False)],
    number: Annotated[int, typer.Argument(metavar="SEATS", help="How many it is to have.", show_default=False)],
) -> Exit:
    """Have Stripe told how many seats a subscription is to have: more are charged at once, fewer count from its next period on."""
    async with open_book(session) as book, noted(book, "set_seats", subscription, seats=number):
        await book.set_seats(subscription, number)
    if session.json:
        print(json_text({"subscription": subscription, "seats": number}))
    else:
        console().print(f"{subscription}: Stripe is to be told {number} seats; `meterbook outbox` shows when it was")
    return Exit.DONE


@command(app, "check")
async def check(
    session: Session,
    api_key: Annotated[
        str,
        typer.Option(envvar="METERBOOK_STRIPE_API_KEY", help="Of test mode: sk_test_….", show_default=False),
    ],
) -> Exit:
    """Bill a small invoice in an account's test mode, the way the relay does, void another, and clean up. Needs no ledger.

    A live key is refused. Exit code 1 if Stripe does not take a step.
    """
    if not api_key.startswith(TEST_KEYS):
        raise typer.BadParameter(
            f"{api_key[:8]}… is no key of test mode: with a live one this would ask for real money. Use sk_test_…",
            param_hint="--api-key",
        )
    steps: list[tuple[str, str]] = []

    def say(step: str, what: str) -> None:
        steps.append((step, what))
        if not session.json:
            console().print(f"{step:<9} {what}", soft_wrap=True)

    gateway = StripeGateway(StripeAccount(api_key, api_base=stripe_api_base()))
    refusal = _rehearsed(gateway, load_catalog(session.catalog).currency, say)
    if session.json:
        said = [{"step": step, "what": what} for step, what in steps]
        print(json_text({"steps": said, "refused": refusal, "api_version": API_VERSION}))
    else:
        on = console()
        on.print(
            f"refused: {refusal}" if refusal else f"Stripe takes what it will be sent (API {API_VERSION})",
            soft_wrap=True,
        )
    return Exit.FINDINGS if refusal else Exit.DONE


def _rehearsed(gateway: StripeGateway, currency: str, say: Say) -> str | None:
    """Why it failed; None: it did not."""
    try:
        rehearse(gateway, currency, say)
    except MeterbookError as error:
        return f"{error.code}: {error}"
    return None


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
