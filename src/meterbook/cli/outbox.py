"""``meterbook outbox``, ``dead-letters``, ``redrive`` and ``relay``: what others have to be told, and what became of it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Annotated

import typer

from meterbook.cli.acting import noted
from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.screen import amount_shown, cents_shown, console, table, time_shown
from meterbook.core.deliveries import Delivery
from meterbook.core.ledgers import DeliveryState, OutboxRow
from meterbook.plain import json_text

app = typer.Typer()
ROWS_SHOWN = 100

OutboxEntity = Annotated[
    str | None, typer.Argument(metavar="[ENTITY]", help="Only this one's; else all.", show_default=False)
]
Limit = Annotated[int, typer.Option(help="How many of the newest.", min=1, max=1000)]


@command(app, "outbox")
async def outbox(session: Session, entity: OutboxEntity = None, limit: Limit = ROWS_SHOWN) -> Exit:
    """What has to be told to others, oldest first: charges to invoice, cancellations, alerts, and what became of each."""
    async with open_book(session) as book:
        rows = await book.deliveries(entity, limit=limit)
    _show(session, rows[::-1], "outbox")
    return Exit.DONE


@command(app, "dead-letters")
async def dead_letters(session: Session, entity: OutboxEntity = None, limit: Limit = ROWS_SHOWN) -> Exit:
    """What was given up after days of trying: exit code 1 if there is any. `meterbook redrive ID` sends it again."""
    async with open_book(session) as book:
        rows = await book.deliveries(entity, state="dead", limit=limit)
    _show(session, rows[::-1], "dead_letters")
    return Exit.FINDINGS if rows else Exit.DONE


@command(app, "redrive")
async def redrive(
    session: Session,
    row: Annotated[int, typer.Argument(metavar="ID", help="The row's number in the outbox.")],
    gone: Annotated[
        bool, typer.Option("--invoice-is-gone", help="Its draft was deleted at Stripe: another invoice is made.")
    ] = False,
) -> Exit:
    """Send a dead letter again, from the step where it stopped; what was made at Stripe before is found, not made twice."""
    async with open_book(session) as book, noted(book, "redrive", f"outbox {row}", invoice_is_gone=gone):
        again = await book.redrive(row, invoice_is_gone=gone)
    if session.json:
        print(json_text({"id": row, "due": again}))
    else:
        console().print(f"row {row} is due again" if again else f"row {row} is no dead letter: nothing to do")
    return Exit.DONE


@command(app, "relay")
async def relay(session: Session) -> Exit:
    """Deliver what is due now, once: what the worker does every second. Exit code 1 if something was put off or given up.

    Needs METERBOOK_STRIPE_API_KEY for what goes to Stripe; alerts are printed.
    """
    alerts: list[Delivery] = []

    async def tell(alert: Delivery) -> None:
        alerts.append(alert)

    async with open_book(session) as book:
        relayed = await book.relay(tell=tell)
    if session.json:
        said = [{"id": alert.id, "entity": alert.entity, "payload": alert.payload} for alert in alerts]
        print(json_text({**asdict(relayed), "alerts": said}))
    else:
        on = console()
        for alert in alerts:
            on.print(f"alert {alert.entity}: {told(alert)}", soft_wrap=True)
        on.print(f"delivered {relayed.delivered:,}, put off {relayed.postponed:,}, given up {relayed.dead:,}")
    return Exit.FINDINGS if relayed.postponed or relayed.dead else Exit.DONE


def _show(session: Session, rows: Sequence[DeliveryState], name: str) -> None:
    if session.json:
        print(json_text({name: rows}))
        return
    on = console()
    made = table(
        on, "when (UTC)", "kind", "entity", "what", "state", "id", numbers=["id"], whole=["when (UTC)", "state"]
    )
    for row in rows:
        made.add_row(time_shown(row.created_at), row.kind, row.entity, _what(row), row.state, str(row.id))
    on.print(made)


def _what(row: DeliveryState) -> str:
    tries = f" ({row.attempts} tries)" if row.attempts > 1 else ""
    return f"{told(row)}: {row.note}{tries}" if row.note else told(row)


def told(row: OutboxRow | DeliveryState | Delivery) -> str:
    """One line for a person; the payload as it stands for what has no sentence yet."""
    said = row.payload
    match row.kind, said:
        case "charge", {"amount_cents": int(cents), "kind": kind, "period": period}:
            line = f"{kind}, {cents_shown(cents)}, period {period}"
        case "cancel_now", {"stripe_subscription": subscription}:
            line = f"end {subscription} now: its customer was deleted"
        case "seats", {"subscription": subscription, "seats": seats}:
            line = f"{subscription} is to have {seats} seats"
        case "alert", {"alert": "close_deferred", "period": period, "reason": reason}:
            line = f"period {period} can't be closed: {reason}"
        case "alert", {"alert": "dead_letter", "outbox": number, "reason": reason}:
            line = f"row {number} was given up: {reason}"
        case "alert", {"used": used, "limit": limit}:
            line = f"used {amount_shown(Decimal(used), 2)} of {amount_shown(Decimal(limit), 2)}"
        case "cancel_at_period_end", {"subscription": subscription, "cancel_at_period_end": cancel}:
            line = f"{'cancel' if cancel else 'take back the cancellation of'} {subscription} at its period's end"
        case _:
            line = json.dumps(dict(said), ensure_ascii=False)
    return line
