"""Stripe's events as its webhooks send them, signed by the SDK; and the account, catalog and books that tests of them share."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from stripe import WebhookSignature

from meterbook import Book, Catalog, load_catalog
from meterbook.core.ledgers import StripeApplied
from meterbook.stripe.gateway import API_VERSION, StripeAccount
from tests.ledger import P1, Window, query

Thing = dict[str, Any]
SECRET, OTHER_SECRET = "whsec_now", "whsec_next"
ACCOUNT = StripeAccount(webhook_secrets=(SECRET, OTHER_SECRET))
"""Without a key: nothing can be asked of Stripe."""
CENTS = {"free": 0, "pro": 2000, "pro_6000": 2500, "team_6000": 2500}


def priced(catalog: Catalog | None = None) -> Catalog:
    """The origin's catalog, each plan that is paid for with the price `price_<plan>` at Stripe."""
    catalog = catalog or load_catalog()
    plans = [replace(plan, prices=(f"price_{plan.code}",)) if plan.price else plan for plan in catalog.plans]
    return replace(catalog, plans=tuple(plans))


def seconds(at: datetime) -> int:
    return int(at.timestamp())


@dataclass
class Subscription:
    """A subscription at Stripe as it is now; `event` tells of it. `metadata` name its owner."""

    id: str
    owner: str | None = None
    plan: str = "pro_6000"
    seats: int = 1
    window: Window = P1
    status: str = "active"
    interval: str = "month"
    interval_count: int = 1
    anchor: datetime | None = None
    cancel_at_period_end: bool = False
    cancel_at: datetime | None = None
    ended_at: datetime | None = None
    currency: str = "usd"
    customer: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def paying(self) -> str:
        return self.customer or f"cus_{self.id}"

    @property
    def object(self) -> Thing:
        owner = {"billing_entity": self.owner} if self.owner else {}
        return {
            "id": self.id,
            "object": "subscription",
            "billing_cycle_anchor": seconds(self.anchor or self.window[0]),
            "cancel_at": None if self.cancel_at is None else seconds(self.cancel_at),
            "cancel_at_period_end": self.cancel_at_period_end,
            "canceled_at": None if self.ended_at is None else seconds(self.ended_at),
            "currency": self.currency,
            "customer": self.paying,
            "ended_at": None if self.ended_at is None else seconds(self.ended_at),
            "items": {"object": "list", "data": [self.item], "has_more": False},
            "metadata": {**owner, **self.metadata},
            "status": self.status,
        }

    @property
    def item(self) -> Thing:
        recurring = {"interval": self.interval, "interval_count": self.interval_count, "usage_type": "licensed"}
        return {
            "id": f"si_{self.id}",
            "object": "subscription_item",
            "current_period_start": seconds(self.window[0]),
            "current_period_end": seconds(self.window[1]),
            "price": {
                "id": f"price_{self.plan}",
                "object": "price",
                "currency": self.currency,
                "recurring": recurring,
                "unit_amount": CENTS.get(self.plan, 10_000),
            },
            "quantity": self.seats,
            "subscription": self.id,
        }

    def event(self, kind: str, at: datetime, event_id: str = "", **new: Any) -> Thing:
        """Sets fields, and tells: what an update changed of the item is told as Stripe does, by the item as it was."""
        before = self.item
        for name, value in new.items():
            setattr(self, name, value)
        previous = {"items": {"data": [before]}} if before != self.item and kind == "updated" else {}
        return event(f"customer.subscription.{kind}", self.object, at, event_id, previous)


_count = 0


def event(kind: str, about: Thing, at: datetime, event_id: str = "", previous: Thing | None = None) -> Thing:
    global _count  # noqa: PLW0603  ids are new wherever they are made
    _count += 1
    return {
        "id": event_id or f"evt_{_count:06d}",
        "object": "event",
        "api_version": API_VERSION,
        "created": seconds(at),
        "data": {"object": about, **({"previous_attributes": previous} if previous else {})},
        "livemode": False,
        "type": kind,
    }


def invoice(invoice_id: str, of: Subscription | None, status: str = "paid", **more: Any) -> Thing:
    """One that Stripe made for a renewal: its first line is something else, as on the invoices that misled the origin."""
    lines = [line("il_other", None, P1, 100)]
    if of is not None:
        lines.append(line(f"il_{of.id}", of, of.window, 2500))
    parent = (
        None
        if of is None
        else {"type": "subscription_details", "subscription_details": {"subscription": of.id, "metadata": {}}}
    )
    return {
        "id": invoice_id,
        "object": "invoice",
        "billing_reason": "manual" if of is None else "subscription_cycle",
        "currency": "usd",
        "customer": "cus_none" if of is None else of.paying,
        "lines": {"object": "list", "data": lines, "has_more": False},
        "metadata": {},
        "parent": parent,
        "period_start": seconds(P1[0]),
        "period_end": seconds(P1[1]),
        "status": status,
        **more,
    }


def line(line_id: str, of: Subscription | None, window: Window, cents: int, *, proration: bool = False) -> Thing:
    details = (
        None if of is None else {"subscription": of.id, "subscription_item": f"si_{of.id}", "proration": proration}
    )
    return {
        "id": line_id,
        "object": "line_item",
        "amount": cents,
        "parent": {
            "type": "subscription_item_details",
            "subscription_item_details": details,
            "invoice_item_details": None,
        },
        "period": {"start": seconds(window[0]), "end": seconds(window[1])},
    }


def body_of(said: Thing) -> bytes:
    return json.dumps(said).encode()


def signed(body: bytes, secret: str = SECRET, age_s: int = 0) -> str:
    """The header that Stripe would send with this body, so many seconds ago."""
    header: str = WebhookSignature.generate_signature_header(body.decode(), secret, int(time.time()) - age_s)
    return header


async def deliver(book: Book, *events: Thing) -> list[StripeApplied]:
    """As Stripe does: the raw body and its signature."""
    return [await book.apply_stripe_event(body := body_of(each), signed(body)) for each in events]


BOOKS = """
select p.kind, p.starts_at, p.ends_at, p.plan, p.seats, p.included, p.refresh_per_day, p.state, p.resting,
  (select coalesce(sum(c.charged_cents), 0) from meterbook.charge c where c.entity_id = p.entity_id and c.period_id = p.id),
  (select coalesce(sum(c.credits_cents), 0) from meterbook.charge c where c.entity_id = p.entity_id and c.period_id = p.id),
  (select coalesce(sum(l.amount), 0) from meterbook.usage_log l where l.entity_id = p.entity_id and l.period_id = p.id)
from meterbook.billing_period p where p.entity_id = meterbook.entity_id_of(%s) order by p.starts_at, p.kind
"""
STANDING = """
select s.plan, s.seats, s.status, s.starts_at, s.ends_at, s.anchor, s.interval_months, s.cancel_at_period_end, s.ended_at,
  (select array_agg(b.reason order by b.reason) from meterbook.entity_block b where b.entity_id = s.owner_id),
  (select coalesce(sum(g.remaining), 0) from meterbook.grants_of(s.owner_id) g),
  (select l.stored from meterbook.entity_limit l where l.entity_id = s.owner_id)
from meterbook.subscription s where s.owner_id = meterbook.entity_id_of(%s)
"""


def books(database_url: str, entity: str) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """All that must not depend on the order of arrival: periods with what was billed of them, the subscription, blocks, credits, limit."""
    return query(database_url, BOOKS, entity), query(database_url, STANDING, entity)
