"""Routes that read: usage, entries, periods, charges, credits, holds, members, why.

Everything is named by a parameter, nothing by the path: an id may hold any character.
"""

from datetime import datetime
from typing import Annotated, Any

from litestar import get
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import Meta

from meterbook.core.derivation import as_data
from meterbook.csv_export import CSV, csv_of
from meterbook.errors import InvalidUsage, Problem
from meterbook.http.door import GivenDoor
from meterbook.http.wire import (
    ChargesOut,
    CreditsOut,
    DerivationOut,
    EntriesOut,
    HoldsOut,
    MembersOut,
    PeriodsOut,
    UsageOut,
    out,
)
from meterbook.plain import usage_data

READ = {"scope": "read"}
Entity = Annotated[
    str, QueryParameter(description="Who pays: user:<id> or organization:<id>.", min_length=1, max_length=268)
]
Period = Annotated[
    str,
    QueryParameter(
        description="current, last (the latest that has ended), or a period's id.",
        pattern="^(current|last|[0-9]{1,19})$",
    ),
]
Text = Annotated[str | None, QueryParameter(min_length=1, max_length=255)]
From = Annotated[datetime | None, Meta(tz=True), QueryParameter(description="Happened at or after.")]
To = Annotated[datetime | None, Meta(tz=True), QueryParameter(description="Happened before.")]


@get("/usage", opt=READ)
async def usage(door: GivenDoor, entity: Entity, period: Period = "current") -> UsageOut:
    """One period of an entity, from one snapshot: what was used, by whom, for what, and what that means."""
    return out(UsageOut, usage_data(await door.book.usage(entity, _period(period))))


@get("/entries", opt=READ)
async def entries(
    door: GivenDoor,
    entity: Entity,
    actor: Text = None,
    workspace: Text = None,
    source: Text = None,
    category: Text = None,
    start: From = None,
    end: To = None,
    period: Annotated[int | None, QueryParameter(ge=1, le=2**63 - 1, description="Where entries are booked.")] = None,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, QueryParameter(description="next_cursor of the page before.", max_length=512)] = None,
    *,
    summary: Annotated[bool, QueryParameter(description="Count and sum of the whole filter.")] = True,
) -> EntriesOut:
    """Newest first, by pages; the summary covers the whole filter."""
    page = await door.book.entries(
        entity,
        actor=actor,
        workspace=workspace,
        source=source,
        category=category,
        start=start,
        end=end,
        period=period,
        limit=limit,
        cursor=cursor,
        summary=summary,
    )
    return out(EntriesOut, page)


@get("/entries.csv", opt={**READ, "produces": CSV}, media_type=CSV)
async def entries_csv(
    door: GivenDoor,
    entity: Entity,
    actor: Text = None,
    workspace: Text = None,
    source: Text = None,
    category: Text = None,
    start: From = None,
    end: To = None,
    period: Annotated[int | None, QueryParameter(ge=1, le=2**63 - 1, description="Where entries are booked.")] = None,
) -> Stream:
    """All entries of a filter as CSV, newest first, as they are read; no cell is taken for a formula."""
    wanted: dict[str, Any] = {"actor": actor, "workspace": workspace, "source": source, "category": category}
    wanted |= {"start": start, "end": end, "period": period}
    first = await door.book.entries(entity, **wanted, limit=1000, summary=False)  # refusals before anything is sent
    headers = {"Content-Disposition": 'attachment; filename="entries.csv"'}
    return Stream(csv_of(door.book, entity, wanted, first), media_type=CSV, headers=headers)


@get("/periods", opt=READ)
async def periods(door: GivenDoor, entity: Entity) -> PeriodsOut:
    """Every period of an entity, newest first."""
    return out(PeriodsOut, {"periods": await door.book.periods(entity)})


@get("/charges", opt=READ)
async def charges(
    door: GivenDoor,
    entity: Entity,
    period: Annotated[
        str | None,
        QueryParameter(
            description="current, last, or a period's id; all without it.", pattern="^(current|last|[0-9]{1,19})$"
        ),
    ] = None,
) -> ChargesOut:
    """What was billed, oldest first."""
    return out(ChargesOut, {"charges": await door.book.charges(entity, None if period is None else _period(period))})


@get("/credits", opt=READ)
async def credit_account(door: GivenDoor, entity: Entity) -> CreditsOut:
    """Grants, what is left of each, and what can be spent now."""
    return out(CreditsOut, await door.book.credits(entity))


@get("/holds", opt=READ)
async def list_holds(
    door: GivenDoor, entity: Entity, limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100
) -> HoldsOut:
    """Money set aside, newest first, ended ones too."""
    return out(HoldsOut, {"holds": await door.book.holds(entity, limit=limit)})


@get("/explain", opt=READ)
async def explain(door: GivenDoor, entity: Entity, period: Period = "current") -> DerivationOut:
    """Why the figures of a period are what they are, down to rows."""
    return out(DerivationOut, as_data(await door.book.explain(entity, _period(period))))


@get("/explain/check", opt=READ)
async def explain_check(
    door: GivenDoor,
    actor: Annotated[str, QueryParameter(min_length=1, max_length=255)],
    workspace: Text = None,
) -> DerivationOut:
    """Why a check of this actor answers what it answers now."""
    return out(DerivationOut, as_data(await door.book.explain_check(actor, workspace=workspace)))


@get("/members", opt=READ)
async def members(
    door: GivenDoor, organization: Annotated[str, QueryParameter(min_length=1, max_length=255)]
) -> MembersOut:
    """Every member of an organization and what they may use."""
    return out(MembersOut, {"members": await door.book.member_caps(organization)})


def _period(named: str) -> str | int:
    if not named.isdecimal():
        return named
    if int(named) >= 2**63:
        raise InvalidUsage([Problem(None, "period", "invalid_period", "pass current, last or the id of a period")])
    return int(named)


ROUTES = (
    usage, entries, entries_csv, periods, charges, credit_account, list_holds, explain, explain_check, members,
)  # fmt: skip
