"""A subscription in Stripe's shape as ours: the plan by its price, the period of the item that has it, and since when all that holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meterbook.core.plans import Catalog, Plan
from meterbook.core.windows import interval_months
from meterbook.errors import BadEvent, UnknownPrice
from meterbook.stripe.effects import CREATED, DELETED, UPDATED, Order, PutSubscription
from meterbook.stripe.fields import Fields
from meterbook.stripe.metadata import money, owner_said, seats, subscription_named

_RANKS = {"customer.subscription.created": CREATED, "customer.subscription.deleted": DELETED}
_ENDED = ("canceled", "incomplete_expired")


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The plan, and the item that has its period."""

    plan: Plan
    item: Fields


@dataclass(frozen=True, slots=True)
class SeatsSeen:
    """The item that has the plan, its quantity, and since when Stripe's present period runs."""

    item: str
    quantity: int
    since: datetime


def seats_at_stripe(about: Mapping[str, Any], catalog: Catalog) -> SeatsSeen:
    """Raises `BadEvent`, `UnknownPrice`."""
    said = Fields("", about)
    item = _choose(said, said.find_table("metadata"), catalog).item
    return SeatsSeen(item.id("id"), item.number("quantity", 1), item.instant("current_period_start"))


def put_subscription(
    event: str,
    kind: str,
    created_at: datetime,
    about: Mapping[str, Any],
    previous: Mapping[str, Any],
    catalog: Catalog,
) -> PutSubscription:
    """Raises `BadEvent`, `UnknownPrice`, `UnknownInterval`."""
    said = Fields("", about)
    metadata = said.find_table("metadata")
    chosen = _choose(said, metadata, catalog)
    price = chosen.item.table("price")
    recurring = price.table("recurring")
    count = recurring.number("interval_count", 1)
    status = "canceled" if kind.endswith(".deleted") else said.text("status")
    starts_at, ends_at = chosen.item.instant("current_period_start"), chosen.item.instant("current_period_end")
    by_contract = chosen.plan.price is None
    cancels = said.flag("cancel_at_period_end")
    return PutSubscription(
        subscription=said.id("id"),
        customer=said.id("customer"),
        order=Order(created_at, _RANKS.get(kind, UPDATED), event),
        owner=owner_said(metadata),
        named=subscription_named(metadata),
        plan=chosen.plan.code,
        seats=seats(metadata) if by_contract else chosen.item.number("quantity", 1),
        monthly_price=money(metadata, "monthlyPrice") if by_contract else None,
        status=status,
        starts_at=starts_at,
        ends_at=ends_at,
        interval=f"{count} {recurring.text('interval')}s",
        interval_months=interval_months(recurring.text("interval"), count),
        anchor=said.find_instant("billing_cycle_anchor") or starts_at,
        cancel_at_period_end=cancels,
        cancel_at=None if cancels else said.find_instant("cancel_at"),
        currency=price.text("currency"),
        effective_at=_effective_at(said, kind, created_at, status, starts_at, previous),
    )


def _choose(said: Fields, metadata: Fields, catalog: Catalog) -> _Chosen:
    """By contract if the metadata name such a plan; else the item whose price is in the catalog. Never a default."""
    items = list(said.rows("items"))
    if not items:
        raise said.bad("items", "has none")
    contract = next(
        (plan for plan in catalog.plans if plan.price is None and plan.code == metadata.of.get("plan")), None
    )
    if contract is not None:
        return _Chosen(contract, items[0])
    prices = {item.table("price").id("id"): item for item in items}
    known = [_Chosen(plan, item) for price, item in prices.items() if (plan := catalog.find_plan_of_price(price))]
    if not known:
        raise UnknownPrice(list(prices))
    if len(known) > 1:
        raise BadEvent(f"{said.id('id')} has prices of several plans: {', '.join(each.plan.code for each in known)}")
    return known[0]


def _effective_at(
    said: Fields, kind: str, created_at: datetime, status: str, starts_at: datetime, previous: Mapping[str, Any]
) -> datetime:
    """An end: when it ended. Where the period is new: its start. Else the event's own time."""
    if status in _ENDED:
        return said.find_instant("ended_at") or created_at
    return starts_at if kind.endswith(".created") or _has_moved(starts_at, previous) else created_at


def _has_moved(starts_at: datetime, previous: Mapping[str, Any]) -> bool:
    before = Fields("previous_attributes.", previous)
    starts = {each for item in before.rows("items") if (each := item.find_instant("current_period_start"))}
    return bool(starts) and starts_at not in starts
