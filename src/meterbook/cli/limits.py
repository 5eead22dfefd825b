"""``meterbook plans``, ``limits``, ``caps``, ``check``, ``block`` and ``unblock``: what may be used, and by whom."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated

import typer

from meterbook.catalogs import load_catalog
from meterbook.cli.acting import noted
from meterbook.cli.command import Session, command
from meterbook.cli.exits import Exit
from meterbook.cli.opening import open_book
from meterbook.cli.reading import Entity
from meterbook.cli.screen import amount_shown, console, table
from meterbook.core.admission import Admission
from meterbook.core.derivation import amount_text
from meterbook.core.ledgers import MemberCap
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import UsageReport
from meterbook.plain import json_text

NO_CAP = "none"
OVERSHOOT = (
    "Nothing is set aside by a check: how far work may go beyond the limit is not bounded. `meterbook hold` bounds it."
)

app = typer.Typer()

User = Annotated[str, typer.Argument(metavar="USER", help="Whose work it is: their id.", show_default=False)]
Workspace = Annotated[str | None, typer.Option(help="Where it is done; its payer pays.", show_default=False)]
Reason = Annotated[str, typer.Option(help="payment_failed, dispute or administrative.", show_default=False)]
Reference = Annotated[str, typer.Option(help="The invoice or dispute; the block ends with it.", show_default=False)]


@command(app, "plans")
async def plans(session: Session) -> Exit:
    """The catalog: what each plan costs, includes and refreshes. Needs no ledger."""
    catalog = load_catalog(session.catalog)
    if session.json:
        print(json_text(_catalog_data(catalog)))
    else:
        _show_plans(catalog)
    return Exit.DONE


def _catalog_data(catalog: Catalog) -> Mapping[str, object]:
    return {
        "currency": catalog.currency,
        "threshold": catalog.threshold,
        "smallest_charge": catalog.smallest_charge,
        "settlement_grace_minutes": int(catalog.settlement_grace.total_seconds()) // 60,
        "free_period": catalog.free_period,
        "plans": catalog.plans,
    }


def _show_plans(catalog: Catalog) -> None:
    on = console()
    columns = ("price", "included", "refresh", "limit", "rank")
    made = table(on, "plan", *columns, numbers=columns)
    for plan in sorted(catalog.plans, key=lambda plan: plan.rank):
        price = "contract" if plan.price is None else amount_shown(plan.price, 2)
        included = "" if plan.included is None else amount_shown(plan.included, 2)
        limit = "" if plan.limit is None else amount_shown(plan.limit, 2)
        made.add_row(plan.code, price, included, amount_shown(plan.refresh, 2), limit, str(plan.rank))
    on.print(made)
    minutes = int(catalog.settlement_grace.total_seconds()) // 60
    on.print(f"{catalog.currency}; price and included a month and seat, refresh a day and seat.")
    on.print(
        f"Overage is charged from {amount_text(catalog.threshold)} on, the rest {minutes} min after a period's end."
    )


@command(app, "limits")
async def limits(
    session: Session,
    entity: Entity,
    *,
    set_: Annotated[
        str | None, typer.Option("--set", metavar="AMOUNT", help="Store a limit, half up to cents.", show_default=False)
    ] = None,
    by: Annotated[str | None, typer.Option(help="The user who edits; else an operator.", show_default=False)] = None,
) -> Exit:
    """How much an entity may use now and where it stands, or a new limit with --set."""
    async with open_book(session) as book:
        if set_ is not None:
            async with noted(book, "set_limit", entity, amount=set_, by=by):
                await book.set_limit(entity, set_, by=by)
        report = await book.usage(entity)
    if session.json:
        print(json_text(_limits_data(report)))
    else:
        _show_limits(report)
    return Exit.DONE


def _limits_data(report: UsageReport) -> Mapping[str, object]:
    return {
        "entity": report.entity,
        "limit": report.limit,
        "stored": report.facts.stored,
        "minimum": report.facts.included_now,
        "credits": report.facts.credits_for_limit,
        "used": report.effective,
        "held": report.held,
        "percent": report.percent,
        "status": report.status,
        "blocks": report.facts.blocks,
    }


def _show_limits(report: UsageReport) -> None:
    on, facts = console(), report.facts
    made = table(on, report.entity, "amount", "", numbers=["amount"])
    made.add_row("limit", amount_shown(report.limit), f"plan {report.period.plan}")
    made.add_row("stored", "" if facts.stored is None else amount_shown(facts.stored), _stored_note(facts.stored))
    if facts.included_now is not None:
        made.add_row("minimum", amount_shown(facts.included_now), "what the plan includes now: no edit goes below")
    made.add_row("credits", amount_shown(facts.credits_for_limit), "left, and spent on this period")
    made.add_row("used", amount_shown(report.effective), f"{report.percent} %: {report.status}")
    made.add_row("held", amount_shown(report.held), "set aside, in no percentage")
    on.print(made)
    for reason in facts.blocks:
        on.print(f"blocked: {reason}")


def _stored_note(stored: Decimal | None) -> str:
    return "by an edit" if stored is not None else "nothing: nobody has edited it"


@command(app, "caps")
async def caps(
    session: Session,
    organization: Annotated[str, typer.Argument(metavar="ORGANIZATION", help="Its id.", show_default=False)],
    user: Annotated[str | None, typer.Argument(metavar="[USER]", help="A member.", show_default=False)] = None,
    amount: Annotated[
        str | None,
        typer.Argument(metavar="[AMOUNT|none]", help="The new cap; 0 allows nothing, none all.", show_default=False),
    ] = None,
) -> Exit:
    """What each member may use of an organization's period, before any refresh; with an amount, a new cap for one."""
    async with open_book(session) as book:
        if user is not None and amount is not None:
            async with noted(book, "set_member_cap", f"organization:{organization}", user=user, cap=amount):
                await book.set_member_cap(organization, user, None if amount == NO_CAP else amount)
        members = await book.member_caps(organization)
    shown = [member for member in members if user in (None, member.user)]
    if session.json:
        print(json_text({"organization": organization, "members": shown}))
    else:
        _show_caps(shown)
    return Exit.DONE


def _show_caps(members: list[MemberCap]) -> None:
    on = console()
    made = table(on, "member", "role", "cap", numbers=["cap"])
    for member in members:
        made.add_row(member.user, member.role, "none" if member.cap is None else amount_shown(member.cap))
    on.print(made)


@command(app, "check")
async def check(session: Session, user: User, workspace: Workspace = None) -> Exit:
    """May this user's work begin? Exit code 5 if not, 4 if it could not be determined: then it may not either."""
    async with open_book(session) as book:
        admission = await book.check(user, workspace=workspace)
    if session.json:
        print(json_text(admission))
    else:
        _show_admission(admission)
    if admission.allowed:
        return Exit.DONE
    return Exit.RETRY if admission.retryable else Exit.DENIED


def _show_admission(admission: Admission) -> None:
    on = console()
    word = "allowed" if admission.allowed else f"denied ({admission.code})"
    on.print(f"{word}: {admission.message}")
    if admission.limit is not None and admission.used is not None and admission.held is not None:
        of = "cap" if admission.scope == "member" else "limit"
        numbers = f"used {amount_text(admission.used)}, held {amount_text(admission.held)}"
        on.print(f"{admission.entity} pays; {numbers}, {of} {amount_text(admission.limit)}")
    if admission.overshoot is None:
        on.print(OVERSHOOT)


@command(app, "block")
async def block(session: Session, entity: Entity, reason: Reason, reference: Reference = "") -> Exit:
    """Stop an entity's usage: of an organization, all of its members'."""
    async with open_book(session) as book, noted(book, "block", entity, reason=reason, reference=reference):
        changed = await book.block(entity, reason=reason, reference=reference)
    return _tell_block(session, entity, changed=changed, word="blocked")


@command(app, "unblock")
async def unblock(session: Session, entity: Entity, reason: Reason, reference: Reference = "") -> Exit:
    """End one block; others stay, and nothing that was billed changes."""
    async with open_book(session) as book, noted(book, "unblock", entity, reason=reason, reference=reference):
        changed = await book.unblock(entity, reason=reason, reference=reference)
    return _tell_block(session, entity, changed=changed, word="unblocked")


def _tell_block(session: Session, entity: str, *, changed: bool, word: str) -> Exit:
    if session.json:
        print(json_text({"entity": entity, "changed": changed}))
    else:
        console().print(f"{entity} {word}" if changed else f"nothing to do: {entity} was {word} before")
    return Exit.DONE
