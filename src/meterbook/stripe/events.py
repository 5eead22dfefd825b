"""Stripe's webhook events as what they mean here (BEHAVIOUR §11). Pure: strict about what is needed, blind to the rest.

Shapes are those of `API_VERSION`: a subscription's periods stand on its items, an invoice's subscription under its parent.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from meterbook.core.plans import Catalog
from meterbook.errors import BadEvent, UnknownInterval, UnknownPlan
from meterbook.stripe.effects import (
    DELETED,
    BlockForDispute,
    BlockForInvoice,
    Effect,
    EndSubscription,
    GrantPurchase,
    Ignore,
    LookAtCloses,
    Order,
    RenewPeriod,
    Settle,
    TellProration,
)
from meterbook.stripe.fields import Fields
from meterbook.stripe.gateway import CHARGE, SUBSCRIPTION
from meterbook.stripe.metadata import CREDIT_PURCHASE, money, owner_said
from meterbook.stripe.subscriptions import put_subscription

DISPUTE_RELEASES = ("won", "warning_closed")


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it came. `object`: what it is about, as it was then; `previous`: what an update changed; `body`: the raw text."""

    id: str
    kind: str
    created_at: datetime
    subject: str
    object: Mapping[str, Any]
    previous: Mapping[str, Any]
    body: str


def read_event(body: str) -> Event:
    """The envelope. Raises `BadEvent`."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadEvent(f"the body is no JSON: {error}") from error
    if not isinstance(said, Mapping):
        raise BadEvent("the body is no JSON object")
    envelope = Fields("", said)
    content = envelope.table("data")
    about = content.table("object")
    return Event(
        envelope.id("id"),
        envelope.id("type"),
        envelope.instant("created"),
        about.find_id("id") or "",
        about.of,
        content.find_table("previous_attributes").of,
        body,
    )


def effects_of(event: Event, catalog: Catalog) -> tuple[Effect, ...]:
    """What to do, in order. Raises `BadEvent`, `UnknownPrice`, `UnknownInterval`: errors that wait."""
    if event.kind.startswith(SUBSCRIPTION_KIND):
        if event.kind not in KINDS:
            return (Ignore("nothing follows from this kind"),)
        return (_subscription(event, catalog),)
    translate = _TRANSLATORS.get(event.kind)
    if translate is None:
        return (Ignore("nothing follows from this kind"),)
    return tuple(translate(Fields("", event.object))) or (Ignore("it concerns no subscription and no credit"),)


def _subscription(event: Event, catalog: Catalog) -> Effect:
    try:
        return put_subscription(event.id, event.kind, event.created_at, event.object, event.previous, catalog)
    except (UnknownPlan, UnknownInterval, BadEvent) as error:
        if not event.kind.endswith(".deleted"):
            raise
        said = Fields("", event.object)
        ended_at = said.find_instant("ended_at") or event.created_at
        return EndSubscription(said.id("id"), Order(event.created_at, DELETED, event.id), ended_at, error)


# ------------------------------------------------------------------------------------------------------------------ invoices


def _finalized(invoice: Fields) -> Iterator[Effect]:
    yield from _looked_at(invoice)
    subscription = _subscription_of(invoice)
    prorated = sum(line.number("amount") for line, _ in _lines_of(invoice, subscription, proration=True))
    if subscription is not None and prorated < 0:
        yield TellProration(invoice.id("id"), subscription, -prorated)


def _paid(invoice: Fields) -> Iterator[Effect]:
    """`invoice.paid` and `invoice.payment_succeeded`: the same, said twice."""
    if invoice.find_text("status") not in (None, "paid"):
        return
    yield Settle(invoice.id("id"), "paid")
    metadata = invoice.find_table("metadata")
    if metadata.of.get("type") == CREDIT_PURCHASE:
        amount = money(metadata, "amount")
        yield GrantPurchase(invoice.id("id"), owner_said(metadata), amount, invoice.text("currency"))
    yield from _looked_at(invoice)


def _voided(invoice: Fields) -> Iterator[Effect]:
    yield Settle(invoice.id("id"), "void")


def _forgiven(invoice: Fields) -> Iterator[Effect]:
    yield Settle(invoice.id("id"), "uncollectible")


def _unpaid(invoice: Fields) -> Iterator[Effect]:
    subscription = _subscription_of(invoice)
    if subscription is not None:
        yield BlockForInvoice(invoice.id("id"), subscription)


def _looked_at(invoice: Fields) -> Iterator[Effect]:
    subscription = _subscription_of(invoice)
    if subscription is None:
        return
    if invoice.find_text("billing_reason") == "subscription_cycle":
        periods = [period for _, period in _lines_of(invoice, subscription, proration=False)]
        if periods:
            starts_at = max(start for start, _ in periods)
            # an add-on of the same subscription may be by the year, where the plan is by the month
            yield RenewPeriod(subscription, starts_at, min(end for start, end in periods if start == starts_at))
    yield LookAtCloses(subscription)


def _subscription_of(invoice: Fields) -> str | None:
    """Its parent's, else ours that our own invoice bills for."""
    named = invoice.find_table("parent").find_table("subscription_details").find_id("subscription")
    metadata = invoice.find_table("metadata")
    if named is None and metadata.find_text(CHARGE) is not None:
        return metadata.find_id(SUBSCRIPTION)
    return named


def _lines_of(
    invoice: Fields, subscription: str | None, *, proration: bool
) -> Iterator[tuple[Fields, tuple[datetime, datetime]]]:
    """The lines that bill this subscription, wherever they stand, each with its period."""
    for line in invoice.rows("lines"):
        details = line.find_table("parent").find_table("subscription_item_details")
        if details.find_id("subscription") == subscription is not None and details.flag("proration") == proration:
            period = line.table("period")
            yield line, (period.instant("start"), period.instant("end"))


# ------------------------------------------------------------------------------------------------------------------ disputes


def _disputed(dispute: Fields) -> Iterator[Effect]:
    customer = (
        dispute.find_table("charge").find_id("customer") if isinstance(dispute.of.get("charge"), Mapping) else None
    )
    yield BlockForDispute(dispute.id("id"), dispute.id("charge"), customer)


def _dispute_closed(dispute: Fields) -> Iterator[Effect]:
    status = dispute.text("status")
    if status in DISPUTE_RELEASES:
        yield Settle(dispute.id("id"), status)
    else:
        yield Ignore(f"a dispute that ends as {status} goes on blocking until an operator unblocks")


SUBSCRIPTION_KIND = "customer.subscription."
_TRANSLATORS: Mapping[str, Callable[[Fields], Iterator[Effect]]] = {
    "invoice.finalized": _finalized,
    "invoice.paid": _paid,
    "invoice.payment_succeeded": _paid,
    "invoice.payment_failed": _unpaid,
    "invoice.voided": _voided,
    "invoice.marked_uncollectible": _forgiven,
    "charge.dispute.created": _disputed,
    "charge.dispute.closed": _dispute_closed,
}
WEBHOOK_PATH = "/stripe/webhook"
"""Where our server takes them."""
KINDS = (
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    *_TRANSLATORS,
)
"""The events to enable at Stripe; others are kept and ignored."""
