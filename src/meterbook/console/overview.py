"""The first page: what is spent over all payers, who spends it, and whether the ledger is well."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from litestar import Response, get
from litestar.response import Redirect

from meterbook.console.charts import Bar, columns
from meterbook.console.desk import Asked, GivenDesk
from meterbook.console.rendering import address, page
from meterbook.core.money import EXACT
from meterbook.core.overviews import DaySpent, Overview

OPEN = {"scope": "open"}
DAYS = 30
LAG_MAX = timedelta(minutes=1)
OUTBOX_AGE_MAX = timedelta(minutes=15)


@get("/", opt=OPEN)
async def overview(request: Asked, desk: GivenDesk) -> Response[str]:
    seen = await desk.book.overview(days=DAYS)
    days = _whole(seen.days, seen.waiting.at)
    return page(
        request,
        desk,
        "overview.html",
        seen=seen,
        chart=columns([Bar(str(each.day), EXACT.subtract(each.amount, each.refresh), each.refresh) for each in days]),
        today=days[-1],
        yesterday=days[-2],
        health=_health(seen),
        days=DAYS,
    )


@get("/find", opt={**OPEN, "query": ("q",)})
async def find(request: Asked, desk: GivenDesk) -> Response[str] | Redirect:
    """Payers whose id begins so; the only one is shown at once."""
    text = request.query_params.get("q", "").strip()
    kind, _, rest = text.partition(":")
    wanted = rest if kind in {"user", "organization"} else text
    found = await desk.book.find_entities(wanted) if wanted else []
    if kind in {"user", "organization"}:
        found = [each for each in found if each.startswith(f"{kind}:")]
    if len(found) == 1:
        return Redirect(address("/entity", entity=found[0]), status_code=303)
    return page(request, desk, "find.html", text=text, found=found)


def _whole(days: Sequence[DaySpent], at: datetime) -> list[DaySpent]:
    """Every date of the span, also those without usage."""
    known = {each.day: each for each in days}
    last = at.astimezone(UTC).date()
    dates: list[date] = [last - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    return [known.get(day, DaySpent(day, Decimal(0), Decimal(0))) for day in dates]


def _health(seen: Overview) -> list[tuple[str, object, bool, str]]:
    """What to watch: name, value, whether it is well, and what it means."""
    waiting = seen.waiting
    lag = None if waiting.oldest_delta is None else max(timedelta(0), waiting.at - waiting.oldest_delta)
    age = None if waiting.oldest_outbox is None else max(timedelta(0), waiting.at - waiting.oldest_outbox)
    return [
        ("Compaction lag", lag, lag is None or lag <= LAG_MAX, "Reads stay exact; they get slower. A worker folds."),
        ("Oldest in the outbox", age, age is None or age <= OUTBOX_AGE_MAX, f"{waiting.outbox} to tell."),
        ("Given up", waiting.dead, waiting.dead == 0, "Outbox rows that nobody will try again by themselves."),
        ("Closes that wait", seen.sums.deferred, seen.sums.deferred == 0, "Charges that can't be addressed yet."),
        ("Conflicts, 24 h", waiting.conflicts_of_a_day, True, "Keys used again for something else: refused, not charged."),
    ]  # fmt: skip


ROUTES = (overview, find)
