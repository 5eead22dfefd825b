"""Periods and charges of all payers, by pages."""

from datetime import datetime

from litestar import Response, get

from meterbook.console.asking import ROWS_PER_PAGE, number_of
from meterbook.console.desk import Asked, GivenDesk
from meterbook.console.rendering import address, page
from meterbook.errors import InvalidUsage, Problem

OPEN = {"scope": "open"}
STATES = ("open", "closed")


@get("/billing", opt={**OPEN, "query": ("state", "periods_before", "charges_before")})
async def billing(request: Asked, desk: GivenDesk) -> Response[str]:
    asked = request.query_params
    state = asked.get("state") if asked.get("state") in STATES else None
    before_period, before_charge = asked.get("periods_before"), asked.get("charges_before")
    before = None if not before_period else _place(before_period)
    before_id = None if not before_charge else number_of(before_charge, "charges_before")
    periods = await desk.book.all_periods(state=state, before=before, limit=ROWS_PER_PAGE + 1)
    charges = await desk.book.all_charges(before=before_id, limit=ROWS_PER_PAGE + 1)
    shown, last = periods[:ROWS_PER_PAGE], charges[:ROWS_PER_PAGE]
    more_periods = f"{shown[-1].ends_at.isoformat()}~{shown[-1].id}" if len(periods) > ROWS_PER_PAGE else None
    more_charges = last[-1].charge.id if len(charges) > ROWS_PER_PAGE else None
    return page(
        request,
        desk,
        "billing.html",
        periods=shown,
        charges=last,
        state=state,
        states=STATES,
        next_periods=more_periods and address("/billing", state=state, periods_before=more_periods),
        next_charges=more_charges and address("/billing", state=state, charges_before=more_charges),
    )


def _place(text: str) -> tuple[datetime, int]:
    """Where the page before ended. Raises `InvalidUsage`."""
    ends_at, _, id_ = text.partition("~")
    try:
        at = datetime.fromisoformat(ends_at)
    except ValueError:
        raise InvalidUsage([Problem(None, "periods_before", "invalid_cursor", "is no place in this list")]) from None
    if at.utcoffset() is None:
        raise InvalidUsage([Problem(None, "periods_before", "invalid_cursor", "is no place in this list")])
    return at, number_of(id_, "periods_before")


ROUTES = (billing,)
