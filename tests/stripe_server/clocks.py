"""Time passing: everything that falls due is done in its order, each at its own moment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.stripe_server import shapes
from tests.stripe_server.invoices import attempt, finalize_draft, void
from tests.stripe_server.refusals import invalid
from tests.stripe_server.standing import UPDATED, end
from tests.stripe_server.subscription_invoices import period_of
from tests.stripe_server.subscriptions import renew
from tests.stripe_server.world import DAY_S, HOUR_S, Thing, World

TRIAL_WARNING_S = 3 * DAY_S
FIRST_PAYMENT_S = 23 * HOUR_S
_RENEWS = {"active", "trialing", "past_due", "unpaid"}


@dataclass(frozen=True, order=True, slots=True)
class Due:
    """`order`: what goes first among what is due at the same moment."""

    at: int
    order: int
    act: Callable[[World, Thing], object] = field(compare=False)
    thing: Thing = field(compare=False)


def advance(world: World, clock: str | None, to: int) -> None:
    """Of a test clock, or (None) of everybody who has none."""
    while (due := min(_all_due(world, clock), default=None)) and due.at <= to:
        world.set_time(clock, max(due.at, world.time(clock)))
        due.act(world, due.thing)
    world.set_time(clock, max(to, world.time(clock)))


def _all_due(world: World, clock: str | None) -> Iterator[Due]:
    for invoice in world.of("invoice"):
        if invoice["status"] in {"draft", "open"} and world.clock_of(invoice) == clock:
            yield from _due_of_invoice(invoice)
    for subscription in world.of("subscription"):
        if subscription["status"] not in {"canceled", "incomplete_expired"} and world.clock_of(subscription) == clock:
            yield from _due_of_subscription(world, subscription)


def _due_of_invoice(invoice: Thing) -> Iterator[Due]:
    if invoice["status"] == "draft" and invoice["automatically_finalizes_at"]:
        yield Due(invoice["automatically_finalizes_at"], 0, _finalize, invoice)
    if invoice["status"] == "open" and invoice["next_payment_attempt"]:
        yield Due(invoice["next_payment_attempt"], 1, attempt, invoice)


def _finalize(world: World, invoice: Thing) -> None:
    """Automatic collection: the first attempt follows at once."""
    finalize_draft(world, invoice)
    if invoice["status"] == "open" and invoice["collection_method"] == "charge_automatically":
        attempt(world, invoice)


def _due_of_subscription(world: World, subscription: Thing) -> Iterator[Due]:
    status = subscription["status"]
    if subscription["cancel_at"]:
        yield Due(subscription["cancel_at"], 2, _cancel, subscription)
    if status in _RENEWS:
        yield Due(period_of(subscription).end, 3, renew, subscription)
    if status == "incomplete":
        yield Due(subscription["created"] + FIRST_PAYMENT_S, 2, _expire, subscription)
    if status == "trialing" and subscription["id"] not in world.told:
        yield Due(subscription["trial_end"] - TRIAL_WARNING_S, 2, _warn_of_trial_end, subscription)
    if subscription["pause_collection"] and subscription["pause_collection"]["resumes_at"]:
        yield Due(subscription["pause_collection"]["resumes_at"], 2, _collect_again, subscription)


def _cancel(world: World, subscription: Thing) -> None:
    end(world, subscription, "cancellation_requested")


def _warn_of_trial_end(world: World, subscription: Thing) -> None:
    world.told.add(subscription["id"])
    world.emit("customer.subscription.trial_will_end", subscription)


def _expire(world: World, subscription: Thing) -> None:
    """The first invoice was never paid."""
    latest = world.find("invoice", subscription["latest_invoice"])
    world.change(subscription, UPDATED, status="incomplete_expired", ended_at=world.time_of(subscription))
    if latest and latest["status"] == "open":
        void(world, {}, latest["id"])


def _collect_again(world: World, subscription: Thing) -> None:
    world.change(subscription, UPDATED, pause_collection=None)


# ----------------------------------------------------------------------------------------------------------------- test clocks


def create(world: World, params: Thing) -> Thing:
    clock = shapes.test_clock(world.new_id("clock"), world.now, params["frozen_time"], params.get("name"))
    world.emit("test_helpers.test_clock.created", world.add(clock))
    return clock


def advance_clock(world: World, params: Thing, clock_id: str) -> Thing:
    """Done when this returns, where Stripe's own takes a while and is `advancing` meanwhile."""
    clock = world.get("test_helpers.test_clock", clock_id)
    if params["frozen_time"] < clock["frozen_time"]:
        raise invalid("A test clock can only be advanced into the future.", param="frozen_time")
    world.emit("test_helpers.test_clock.advancing", clock)
    advance(world, clock_id, params["frozen_time"])
    world.emit("test_helpers.test_clock.ready", clock)
    return clock
