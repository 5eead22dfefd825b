"""What a customer sees by a signed link: their own usage, limit, history and entries, and nothing of anybody else."""

from typing import Any

from litestar import Response, get
from litestar.params import FromPath
from litestar.response import Stream

from meterbook.console.asking import ENTRY_FILTERS, arguments_of, filter_of, period_of
from meterbook.console.desk import Asked, Desk, GivenDesk
from meterbook.console.entity import csv_answer, listing_of, seen_of
from meterbook.console.rendering import page
from meterbook.errors import MeterbookError

OPEN = {"scope": "open"}


class LinkOver(MeterbookError):
    """The link has expired, or is not complete. Ask whoever gave it to you for a new one."""

    code = "link_over"


@get("/customer/{link:str}", opt={**OPEN, "query": ("period", "cursor", *ENTRY_FILTERS)})
async def customer(request: Asked, desk: GivenDesk, link: FromPath[str]) -> Response[str]:
    entity = _entity(desk, link)
    usage = await desk.book.usage(entity, period_of(request))
    facts: dict[str, Any] = {
        "link": link,
        "periods": await desk.book.periods(entity),
        "listing": await listing_of(request, desk.book, usage, f"/customer/{link}"),
    }
    ancestors = desk.settings.embed_origins or "'none'"
    answer = page(request, desk, "customer.html", ancestors=ancestors, **facts, **seen_of(usage))
    if desk.settings.embed_origins:
        answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        answer.headers["X-Frame-Options"] = ""  # the policy says who may; this header can't name origins
    return answer


@get("/customer/{link:str}/entries.csv", opt={**OPEN, "query": ENTRY_FILTERS})
async def customer_csv(request: Asked, desk: GivenDesk, link: FromPath[str]) -> Stream:
    return await csv_answer(desk.book, _entity(desk, link), arguments_of(filter_of(request)))


def _entity(desk: Desk, link: str) -> str:
    """Raises `LinkOver`."""
    entity = desk.read_link(link)
    if entity is None:
        raise LinkOver
    return entity


ROUTES = (customer, customer_csv)
