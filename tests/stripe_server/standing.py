"""What becomes of a subscription as its invoices are paid or not, and how one ends."""

from tests.stripe_server.payments import subscription_of
from tests.stripe_server.world import Thing, World

UPDATED = "customer.subscription.updated"
ENDED = {"canceled", "incomplete_expired"}
LIVING = {"active", "trialing", "past_due", "unpaid"}
_WAITING_FOR_MONEY = {"past_due", "unpaid", "incomplete", "paused"}


def after_payment(world: World, invoice: Thing) -> None:
    """The latest invoice paid, or forgiven, puts a subscription right; an older one doesn't."""
    subscription = world.find("subscription", subscription_of(invoice))
    if (
        subscription
        and subscription["latest_invoice"] == invoice["id"]
        and subscription["status"] in _WAITING_FOR_MONEY
    ):
        world.change(subscription, UPDATED, status="active")


def after_failure(world: World, invoice: Thing) -> None:
    subscription = world.find("subscription", subscription_of(invoice))
    if subscription and subscription["status"] in {"active", "trialing"}:
        world.change(subscription, UPDATED, status="past_due")


def after_last_failure(world: World, invoice: Thing) -> None:
    """No automatic attempt is left: the account's setting decides."""
    subscription = world.find("subscription", subscription_of(invoice))
    if not subscription or subscription["status"] != "past_due":
        return
    if world.after_retries == "cancel":
        end(world, subscription, "payment_failed")
    elif world.after_retries == "unpaid":
        world.change(subscription, UPDATED, status="unpaid")


def end(world: World, subscription: Thing, reason: str) -> None:
    """Now. Its drafts stay drafts: Stripe stops advancing them by itself."""
    at = world.time_of(subscription)
    for draft in world.of("invoice"):
        if draft["status"] == "draft" and subscription_of(draft) == subscription["id"]:
            world.change(draft, "invoice.updated", auto_advance=False, automatically_finalizes_at=None)
    world.change(
        subscription,
        "customer.subscription.deleted",
        canceled_at=subscription["canceled_at"] or at,
        cancellation_details={**subscription["cancellation_details"], "reason": reason},
        ended_at=at,
        status="canceled",
    )
