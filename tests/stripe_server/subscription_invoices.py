"""The invoices that subscriptions make by themselves: their lines, whether they are collected at once, prorations."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.stripe_server import shapes
from tests.stripe_server.calendar_periods import share
from tests.stripe_server.invoices import (
    add_line,
    attempt,
    draft,
    finalize_draft,
    mark_uncollectible,
    parent_of_item,
    settle_amounts,
    take_pending,
    void,
)
from tests.stripe_server.refusals import not_here
from tests.stripe_server.world import Thing, World

WHOLE = (1, 1)


@dataclass(frozen=True, slots=True)
class Period:
    start: int
    end: int

    def share_left(self, at: int) -> tuple[int, int]:
        return self.end - at, self.end - self.start


def items_of(subscription: Thing) -> list[Thing]:
    items: list[Thing] = subscription["items"]["data"]
    return items


def period_of(subscription: Thing) -> Period:
    """All items share one here: one interval, one anchor."""
    first = items_of(subscription)[0]
    return Period(first["current_period_start"], first["current_period_end"])


def rhythm_of(items: Sequence[Thing]) -> tuple[str, int]:
    rhythms = {(item["price"]["recurring"]["interval"], item["price"]["recurring"]["interval_count"]) for item in items}
    if len(rhythms) > 1:
        raise not_here("items of several intervals in one subscription")
    interval, every = rhythms.pop()
    return str(interval), int(every)


def items_with_period(subscription: Thing, items: Sequence[Thing], period: Period) -> Thing:
    """The list of items as a subscription has it, each with these bounds."""
    bounds = {"current_period_start": period.start, "current_period_end": period.end}
    return {**subscription["items"], "data": [{**item, **bounds} for item in items]}


def amount_of(item: Thing) -> int:
    return int(item["price"]["unit_amount"] * item["quantity"])


def make_invoice(
    world: World,
    subscription: Thing,
    reason: str,
    covers: Period,
    *,
    full: bool,
    part: tuple[int, int] = WHOLE,
    free: bool = False,
) -> Thing:
    """A draft of the items' own period (`full`: with a line for each) and of all that is pending; `covers` is the invoice's period."""
    customer = world.things[subscription["customer"]]
    invoice = draft(
        world,
        customer,
        subscription["currency"],
        subscription,
        billing_reason=reason,
        collection_method=subscription["collection_method"],
        period_start=covers.start,
        period_end=covers.end,
    )
    take_pending(world, invoice)
    for item in items_of(subscription) if full else ():
        _add_item_line(world, invoice, subscription, item, 0 if free else share(amount_of(item), *part))
    settle_amounts(world, invoice)
    return invoice


def _add_item_line(world: World, invoice: Thing, subscription: Thing, item: Thing, amount: int) -> None:
    price, period = item["price"], {"start": item["current_period_start"], "end": item["current_period_end"]}
    line = shapes.line_item(
        world.new_id("il"),
        invoice_id=invoice["id"],
        amount=amount,
        currency=invoice["currency"],
        period=period,
        quantity=item["quantity"],
    )
    line.update(
        description=f"{item['quantity']} × {price['nickname'] or price['id']}",
        parent=shapes.parent_of_subscription_line(item, subscription["id"]),
        pricing=shapes.pricing(price, price["unit_amount"]),
        subscription=subscription["id"],
    )
    add_line(world, invoice, line)


def collect_at_once(world: World, invoice: Thing, *, waits: bool = False) -> None:
    """What a change asks for is due now; `waits`: the client will pay it. An invoice to be sent is left an hour to be looked at."""
    world.emit("invoice.created", invoice)
    if invoice["collection_method"] == "send_invoice":
        leave_to_the_clock(world, invoice)
        return
    finalize_draft(world, invoice)
    if invoice["status"] == "open" and not waits:
        attempt(world, invoice)


def leave_to_the_clock(world: World, invoice: Thing) -> None:
    invoice.update(auto_advance=True, automatically_finalizes_at=world.time_of(invoice) + 3_600)


def collect_renewal(world: World, subscription: Thing, invoice: Thing) -> None:
    """An hour to change the draft, then Stripe goes on by itself; unless collection is paused, or was given up."""
    pause = subscription["pause_collection"]
    if not pause and subscription["status"] != "unpaid":
        leave_to_the_clock(world, invoice)
    world.emit("invoice.created", invoice)
    if not pause or pause["behavior"] == "keep_as_draft":
        return
    finalize_draft(world, invoice)
    if invoice["status"] == "open":
        settle = void if pause["behavior"] == "void" else mark_uncollectible
        settle(world, {}, invoice["id"])


def prorate(world: World, subscription: Thing, gone: Sequence[Thing], come: Sequence[Thing], at: int) -> bool:
    """Items to invoice: what is left of the period given back at the old price, and asked for at the new one."""
    period = period_of(subscription)
    for item, sign, word in [(item, -1, "Unused") for item in gone] + [(item, 1, "Remaining") for item in come]:
        amount = sign * share(amount_of(item), *period.share_left(at))
        _add_proration(
            world, subscription, item, amount, f"{word} time on {item['quantity']} × {item['price']['id']}", at
        )
    return bool(gone or come)


def _add_proration(world: World, subscription: Thing, item: Thing, amount: int, description: str, at: int) -> None:
    customer = world.things[subscription["customer"]]
    proration = shapes.invoice_item(
        world.new_id("ii"), at, customer, amount=amount, currency=subscription["currency"], quantity=item["quantity"]
    )
    proration.update(
        description=description,
        parent=parent_of_item(subscription["id"], item["id"]),
        period={"start": at, "end": period_of(subscription).end},
        pricing=shapes.pricing(item["price"], item["price"]["unit_amount"]),
        proration=True,
    )
    world.emit("invoiceitem.created", world.add(proration))
