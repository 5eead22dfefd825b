"""``meterbook credits``, ``charges``, ``periods``, ``close`` and ``sweep``: what is billed, and what is owed no more."""

from collections.abc import Sequence
from datetime import UTC
from typing import Annotated

import typer

from meterbook.book import Book
from meterbook.cli.acting import noted
from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.reading import Entity, period_asked, time_asked
from meterbook.cli.screen import amount_shown, cents_shown, console, table, time_shown
from meterbook.core.ledgers import Charge, CreditAccount
from meterbook.core.period_facts import Period
from meterbook.errors import InvalidRequest
from meterbook.operations.grant_credit import PRIORITY
from meterbook.plain import as_json, json_text

DEFERRALS = {
    "no_stripe_ids": "its subscription has no Stripe customer and subscription id: put_subscription with them",
    "no_owner": "the organization has no owner to bill: put_organization or transfer_ownership",
    "event_waits": "Stripe told something of its subscription that could not be applied: `meterbook stripe events --state failed`",
}

app = typer.Typer()


@command(app, "credits")
async def credits_(
    session: Session,
    entity: Entity,
    *,
    grant: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Grant this much, whole cents.", show_default=False)
    ] = None,
    grant_id: Annotated[
        str | None, typer.Option("--id", help="Your name for the grant; takes effect once.", show_default=False)
    ] = None,
    source: Annotated[str, typer.Option(help="What it is for.")] = "promotion",
    priority: Annotated[int, typer.Option(help="The lowest number is spent first.")] = PRIORITY,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not spendable from then on.", show_default=False)
    ] = None,
) -> Exit:
    """An entity's credit grants, what is left of each, and the balance; or a new grant with --grant and --id."""
    async with open_book(session) as book:
        if grant is not None:
            if grant_id is None:
                raise InvalidRequest(
                    "a grant needs a name of yours, so that a retry grants nothing twice: --id promo_1"
                )
            async with noted(book, "grant_credit", entity, amount=grant, grant_id=grant_id, source=source):
                await book.grant_credit(
                    entity,
                    amount=grant,
                    grant_id=grant_id,
                    source=source,
                    priority=priority,
                    expires_at=time_asked("--expires", expires),
                )
        account = await book.credits(entity)
    if session.json:
        print(json_text({"entity": entity, "balance_cents": account.balance_cents, "grants": as_json(account.grants)}))
    else:
        _show_credits(account)
    return Exit.DONE


def _show_credits(account: CreditAccount) -> None:
    on = console()
    columns = ("amount", "left", "priority")
    made = table(on, "grant", "source", "granted", "expires", *columns, numbers=columns)
    for each in account.grants:
        expires = "never" if each.expires_at is None else f"{each.expires_at.astimezone(UTC):%Y-%m-%d %H:%M}"
        granted = f"{each.granted_at.astimezone(UTC):%Y-%m-%d}"
        amounts = cents_shown(each.amount_cents), cents_shown(each.remaining_cents), str(each.priority)
        made.add_row(each.grant_id, each.source, granted, expires, *amounts)
    on.print(made)
    on.print(f"balance {cents_shown(account.balance_cents)}, spendable now")


@command(app, "charges")
async def charges(
    session: Session,
    entity: Entity,
    period: Annotated[
        str | None, typer.Option(help="current, last, or the id of a period; else all.", show_default=False)
    ] = None,
) -> Exit:
    """What was billed, oldest first: the overage it was computed from, credits, the charge."""
    async with open_book(session) as book:
        found = await book.charges(entity, None if period is None else period_asked(period))
    if session.json:
        print(json_text({"entity": entity, "charges": found}))
    else:
        _show_charges(found)
    return Exit.DONE


def _show_charges(found: Sequence[Charge]) -> None:
    on = console()
    columns = ("overage", "credits", "charged", "written off")
    made = table(on, "when (UTC)", "period", "kind", *columns, "id", numbers=[*columns, "period"], whole=["when (UTC)"])
    for each in found:
        cents = (each.credits_cents, each.amount_cents, each.written_off_cents)
        made.add_row(
            time_shown(each.at),
            str(each.period),
            each.kind,
            amount_shown(each.overage),
            *(cents_shown(c) for c in cents),
            str(each.id),
        )
    on.print(made)
    paid, charged = sum(each.credits_cents for each in found), sum(each.amount_cents for each in found)
    on.print(f"{cents_shown(charged)} charged and {cents_shown(paid)} paid by credits in all")


@command(app, "periods")
async def periods(session: Session, entity: Entity) -> Exit:
    """Every period of an entity, newest first, with its allowance and its state."""
    async with open_book(session) as book:
        found = await book.periods(entity)
    if session.json:
        print(json_text({"entity": entity, "periods": found}))
    else:
        _show_periods(found)
    return Exit.DONE


def _show_periods(found: Sequence[Period]) -> None:
    on = console()
    columns = ("id", "seats", "included", "a day")
    made = table(on, "id", "from (UTC)", "to", "plan", *columns[1:], "state", numbers=columns)
    for each in found:
        dated = each.kind != "free"
        span = [f"{each.starts_at.astimezone(UTC):%Y-%m-%d}", f"{each.ends_at.astimezone(UTC):%Y-%m-%d}"]
        allowed = [
            "" if each.included is None else amount_shown(each.included, 2),
            amount_shown(each.refresh_per_day, 2),
        ]
        shown = span if dated else ["free", ""]
        made.add_row(str(each.id), *shown, each.plan, str(each.seats), *(allowed if dated else ["", ""]), each.state)
    on.print(made)


@command(app, "close")
async def close(session: Session, entity: Entity) -> Exit:
    """Close what is due of one entity, oldest first: exit code 1 if a period has to wait, with what it waits for."""
    async with open_book(session) as book:
        async with noted(book, "close", entity):
            closed = await book.close(entity)
        waiting = await _deferrals(book, entity) if closed.deferred else []
    if session.json:
        print(json_text({"entity": entity, "closed": closed.closed, "deferred": waiting}))
    elif not closed.closed and not waiting:
        console().print("nothing is due: a period closes at its end and the settlement grace")
    else:
        console().print(f"closed {closed.closed:,} periods of {entity}")
        for each in waiting:
            console().print(f"period {each['period']} waits: {DEFERRALS.get(str(each['reason']), each['reason'])}")
    return Exit.FINDINGS if waiting else Exit.DONE


async def _deferrals(book: Book, entity: str) -> list[dict[str, object]]:
    """Periods that had to wait and are still not closed, with the reason that was told."""
    still = {each.id for each in await book.periods(entity) if each.state != "closed"}
    told = [row.payload for row in await book.outbox(entity) if row.payload.get("alert") == "close_deferred"]
    newest = {each["period"]: each["reason"] for each in told if each["period"] in still}
    return [{"period": period, "reason": reason} for period, reason in newest.items()]


@command(app, "sweep")
async def sweep(session: Session) -> Exit:
    """Do everything that is due now: fold, open, close, bill, alert. A worker does it by itself.

    Exit code 1 if a close waits or something failed.
    """
    async with open_book(session) as book, noted(book, "sweep", "all that is due"):
        swept = await book.sweep()
    if session.json:
        print(json_text(swept))
    else:
        on = console()
        on.print(f"folded {swept.deltas:,} deltas, opened for {swept.opened:,}, closed {swept.closed:,} periods")
        on.print(f"billed {swept.billed:,} thresholds, told {swept.alerts:,} alerts")
        if swept.deferred:
            on.print(f"{swept.deferred:,} closes wait: `meterbook outbox` names them")
        for failure in swept.failed:
            on.print(f"failed, and to be tried again: {failure}", soft_wrap=True)
    return Exit.FINDINGS if swept.deferred or swept.failed else Exit.DONE
