"""What needs somebody, each with what to do."""

from litestar import Response, get, post
from litestar.response import Redirect

from meterbook.console.asking import number_of
from meterbook.console.desk import Asked, GivenDesk, read_form, visitor_of
from meterbook.console.rendering import address, page

OPEN = {"scope": "open"}
DEFERRED = {
    "no_stripe_ids": (
        "Its subscription has no Stripe ids. Report the subscription with them (put_subscription, or Stripe's webhook); "
        "the next sweep closes it."
    ),
    "no_owner": "Nobody owns this organization. Name an owner (transfer_ownership); the next sweep closes it.",
}
BLOCKED = {
    "payment_failed": "An invoice was not paid. It ends when that invoice is paid, voided or marked uncollectible at Stripe.",
    "dispute": "A payment is disputed. It ends when the dispute is won or withdrawn at Stripe.",
    "administrative": "Somebody here blocked it: meterbook unblock, or DELETE /v1/blocks, ends it.",
}


@get("/problems", opt=OPEN)
async def problems(request: Asked, desk: GivenDesk) -> Response[str]:
    troubles = await desk.book.troubles()
    return page(request, desk, "problems.html", troubles=troubles, deferred=DEFERRED, blocked=BLOCKED)


@post("/problems/redrive", opt=OPEN, status_code=303)
async def redrive(request: Asked, desk: GivenDesk) -> Redirect:
    """Try an outbox row again that was given up; noted in the log of acts."""
    form = await read_form(request)
    row = number_of(form.get("id", ""), "id")
    request_id = str(request.scope["state"].get("request_id", ""))
    async with desk.book.act(visitor_of(request).by, "redrive", f"outbox {row}", {}, request_id):
        await desk.book.redrive(row)
    return Redirect(address("/problems"), status_code=303)


ROUTES = (problems, redrive)
