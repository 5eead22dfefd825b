"""One payer: where they stand, what was used, by whom and for what, its entries, and why each figure is what it is."""

from dataclasses import dataclass
from datetime import UTC, timedelta
from decimal import Decimal
from typing import Any

from litestar import Response, get, post
from litestar.response import Stream

from meterbook.book import Book
from meterbook.console.asking import ENTRY_FILTERS, ROWS_PER_PAGE, arguments_of, entity_of, filter_of, period_of
from meterbook.console.charts import Bar, Chart, LimitBar, columns, limit_bar, share
from meterbook.console.desk import PREFIX, Asked, GivenDesk, read_form, visitor_of
from meterbook.console.rendering import address, page, places_of
from meterbook.core.admission import limit_derivation
from meterbook.core.bill_derivation import money
from meterbook.core.charges import unbilled_cents
from meterbook.core.derivation import Derivation
from meterbook.core.entry_pages import EntrySummary
from meterbook.core.money import EXACT
from meterbook.core.usage_report import UsageReport
from meterbook.csv_export import CSV, csv_of
from meterbook.errors import InvalidUsage, Problem, UnknownEntity

OPEN = {"scope": "open"}
ROWS_MAX = 12
SUMS_KEPT = frozenset({"actor", "source"})
LINK_DAYS_MAX = 90
COUNTED_MAX = 200_000
"""A filter whose sum is not kept is summed row by row: of a period with more entries it isn't, on a page."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a period. `term`: its name in the derivation, if that tells more than the whole."""

    label: str
    amount: Decimal
    term: str
    note: str = ""


@get("/entity", opt={**OPEN, "query": ("entity", "period", "cursor", *ENTRY_FILTERS)})
async def entity_page(request: Asked, desk: GivenDesk) -> Response[str]:
    entity, book = await entity_of(request, desk), desk.book
    usage = await book.usage(entity, period_of(request))
    facts: dict[str, Any] = {
        "members": await book.member_caps(entity.partition(":")[2]) if entity.startswith("organization:") else [],
        "credits": await book.credits(entity),
        "charges": await book.charges(entity),
        "periods": await book.periods(entity),
        "holds": await book.holds(entity, limit=20),
        "listing": await listing_of(request, book, usage, "/entity"),
        "keeps_links": desk.keeps_links,
    }
    return page(request, desk, "entity.html", **facts, **seen_of(usage))


@get("/explain", opt={**OPEN, "query": ("entity", "period", "figure")})
async def explain(request: Asked, desk: GivenDesk) -> Response[str]:
    """The derivation of a period, or of one figure of it, down to rows."""
    entity = await entity_of(request, desk)
    usage = await desk.book.usage(entity, period_of(request))
    whole = await desk.book.explain(entity, usage.period.id)
    wanted = request.query_params.get("figure", "")
    figure = limit_derivation(usage) if wanted == "limit" else found_in(whole, wanted) if wanted else whole
    if figure is None:
        raise UnknownEntity(f"This period has no figure named “{wanted}”.")
    places = places_of(each.value for each in _walk(figure) if isinstance(each.value, Decimal))
    return page(request, desk, "explain.html", usage=usage, figure=figure, whole=not wanted, places=places)


@get("/entries.csv", opt={**OPEN, "query": ("entity", "period", *ENTRY_FILTERS)}, media_type=CSV)
async def entries_csv(request: Asked, desk: GivenDesk) -> Stream:
    """Every entry of the filter, as the API exports them."""
    entity = await entity_of(request, desk)
    wanted = arguments_of(filter_of(request))
    if "period" in request.query_params:
        wanted["period"] = (await desk.book.usage(entity, period_of(request))).period.id
    return await csv_answer(desk.book, entity, wanted)


@post("/links", opt={**OPEN}, status_code=200)
async def make_link(request: Asked, desk: GivenDesk) -> Response[str]:
    """A customer's link: this payer alone, for some days. Noted in the log of acts."""
    form = await read_form(request)
    entity, days = form.get("entity", ""), form.get("days", "")
    if not (days.isascii() and days.isdecimal() and 1 <= int(days[:4]) <= LINK_DAYS_MAX):
        said = f"is not a number of days from 1 to {LINK_DAYS_MAX}"
        raise InvalidUsage([Problem(None, "days", "invalid_number", said)])
    if not await desk.book.knows(entity):
        raise UnknownEntity(f"{entity} is not known here.")
    until = desk.now() + timedelta(days=int(days))
    request_id = str(request.scope["state"].get("request_id", ""))
    said_of_it = {"until": until.astimezone(UTC).isoformat()}
    async with desk.book.act(visitor_of(request).by, "make_customer_link", entity, said_of_it, request_id):
        link = f"{str(request.base_url).rstrip('/')}{PREFIX}/customer/{desk.link(entity, until)}"
    return page(request, desk, "link.html", entity=entity, link=link, until=until, keeps_links=desk.keeps_links)


def seen_of(usage: UsageReport) -> dict[str, Any]:
    """A report as pages show it: to operators and to the customer alike."""
    return {
        "usage": usage,
        "bar": _bar(usage),
        "chart": _chart(usage),
        "figures": _figures(usage),
        "breakdowns": [
            ("By member", [(name, amount) for name, amount in usage.by_actor.items()]),
            ("By source", [(name, amount) for name, amount in usage.by_source.items()]),
            ("By model", _models(usage)),
        ],
        "share": share,
        "rows_max": ROWS_MAX,
    }


def _models(usage: UsageReport) -> list[tuple[str, Decimal]]:
    """What was used, whatever it was used by."""
    sums: dict[str, Decimal] = {}
    for (_, name), amount in usage.by_description.items():
        sums[name] = EXACT.add(sums.get(name, Decimal(0)), amount)
    return sorted(sums.items(), key=lambda item: (-item[1], item[0]))


async def listing_of(request: Asked, book: Book, usage: UsageReport, path: str) -> dict[str, Any]:
    """A page of entries, and the addresses of the first and the next one. Without a filter the report has the sums already."""
    entity, period = usage.entity, usage.period.id
    typed = filter_of(request)
    cursor = request.query_params.get("cursor")
    wanted = {**arguments_of(typed), "period": period}
    summed = bool(typed) and ((len(typed) == 1 and not typed.keys() - SUMS_KEPT) or usage.count <= COUNTED_MAX)
    found = await book.entries(entity, **wanted, limit=ROWS_PER_PAGE, cursor=cursor, summary=summed)
    whole = EntrySummary(usage.count, EXACT.subtract(usage.total, usage.baseline))
    summary = found.summary if typed else whole
    asked = {**typed, "entity": entity, "period": period} if path == "/entity" else dict(typed)
    following = None if found.next_cursor is None else address(path, **asked, cursor=found.next_cursor)
    csv = address("/entries.csv" if path == "/entity" else f"{path}/entries.csv", **asked)
    addresses = {"next": following, "first": address(path, **asked), "csv": csv, "path": f"{PREFIX}{path}"}
    return {"page": found, "summary": summary, "typed": typed, "cursor": cursor, **addresses}


async def csv_answer(book: Book, entity: str, wanted: dict[str, Any]) -> Stream:
    first = await book.entries(entity, **wanted, limit=1000, summary=False)  # refusals before anything is sent
    headers = {"Content-Disposition": 'attachment; filename="entries.csv"'}
    return Stream(csv_of(book, entity, wanted, first), media_type=CSV, headers=headers)


def found_in(derivation: Derivation, name: str) -> Derivation | None:
    return next((each for each in _walk(derivation) if each.name == name), None)


def _walk(derivation: Derivation) -> list[Derivation]:
    return [derivation, *(each for term in derivation.terms for each in _walk(term))]


def _bar(usage: UsageReport) -> LimitBar:
    return limit_bar(
        baseline=usage.baseline,
        ledger=EXACT.subtract(usage.total, EXACT.add(usage.given_back, usage.baseline)),
        refresh=usage.refresh,
        effective=usage.effective,
        held=usage.held,
        limit=usage.limit,
    )


def _chart(usage: UsageReport) -> Chart:
    """Bucket by bucket; of a long period the last sixty."""
    refreshed = {each.day: each.refresh for each in usage.figure.effective.refresh.days}
    start, at, zero = usage.period.starts_at, usage.facts.at, Decimal(0)
    last = int((min(at, usage.period.ends_at - timedelta(microseconds=1)) - start) / timedelta(days=1))
    first = max(0, last - 59) if usage.period.kind != "free" else max(min(usage.by_day, default=last), last - 59)
    bars = []
    for day in range(first, last + 1):
        cost, refresh = usage.by_day.get(day, zero), refreshed.get(day, zero)
        bars.append(Bar(f"{start + timedelta(days=day):%Y-%m-%d}", EXACT.subtract(cost, refresh), refresh))
    return columns(bars)


def _figures(usage: UsageReport) -> list[Figure]:
    ledger = EXACT.subtract(usage.total, usage.baseline)
    found = (
        [Figure("Baseline", usage.baseline, "baseline", "held by a counter at the cutover")] if usage.baseline else []
    )
    found += [
        Figure("Ledger", ledger, "total", "every entry of the period"),
        Figure("Daily refresh", usage.refresh, "daily refresh", "not counted"),
    ]  # fmt: skip
    if usage.given_back:
        found.append(Figure("Given back in money", usage.given_back, "given back in money", "corrections"))
    found += [
        Figure("Effective usage", usage.effective, "effective usage", "what limits and charges know"),
        Figure("Limit", usage.limit, "limit"),
    ]
    if usage.figure.included is not None:
        billed = [("Paid by credits", usage.credits_cents, "paid by credits"), ("Charged", usage.charged_cents, "charged")]  # fmt: skip
        if usage.period.state != "closed":
            billed.append(("Unbilled", unbilled_cents(usage), "unbilled"))
        found += [
            Figure("Included", usage.figure.included, "included", "paid for by the plan"),
            Figure("Overage", usage.overage, "overage", "beyond the included"),
            *(Figure(label, money(amount), term) for label, amount, term in billed),
        ]
    return found


ROUTES = (entity_page, explain, entries_csv, make_link)
