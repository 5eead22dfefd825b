"""Rows of the billing ledgers, as they are shown: charges, credits, holds, what is to be told."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from meterbook.core.money import ZERO


@dataclass(frozen=True, slots=True)
class Charge:
    """What was billed of a period at once: cents invoiced, paid by credits, written off; `overage` is what it was computed from.

    `carried`: billed elsewhere, before the cutover.
    """

    id: int
    period: int
    kind: Literal["threshold", "final", "carried"]
    amount_cents: int
    credits_cents: int
    written_off_cents: int
    overage: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class GrantState:
    """A credit grant and what is left of it."""

    grant_id: str
    amount_cents: int
    remaining_cents: int
    source: str
    priority: int
    expires_at: datetime | None
    granted_at: datetime


@dataclass(frozen=True, slots=True)
class CreditAccount:
    """`balance_cents`: what can be spent now; grants in the order they were given."""

    balance_cents: int
    grants: tuple[GrantState, ...]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """Something that has to be told: a charge to invoice, a cancellation to pass on, an alert."""

    id: int
    kind: Literal["charge", "cancel_at_period_end", "cancel_now", "seats", "alert"]
    payload: Mapping[str, Any]
    created_at: datetime
    entity: str


@dataclass(frozen=True, slots=True)
class HoldState:
    """Money set aside, and what became of it. `settled`: the real cost."""

    id: str
    entity: str
    actor: str
    workspace: str | None
    amount: Decimal
    granted_at: datetime
    expires_at: datetime
    state: Literal["active", "settled", "released", "expired"]
    ended_at: datetime | None
    settled: Decimal | None

    @property
    def overshoot(self) -> Decimal:
        """How far beyond the limit the work can end: not at all while it is settled at no more than was held, within its time."""
        return ZERO


@dataclass(frozen=True, slots=True)
class MemberCap:
    """A member, and what they may use of the organization's period; `cap` None: no cap, 0: nothing."""

    user: str
    role: str
    cap: Decimal | None


@dataclass(frozen=True, slots=True)
class Billed:
    """What a look at the threshold did; `reason` says why it did nothing."""

    charged_cents: int
    credits_cents: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did. `failed`: what could not be done, a sentence each; the next sweep tries it again."""

    deltas: int
    opened: int
    closed: int
    deferred: int
    billed: int
    alerts: int
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Relayed:
    """What a run of the relay did with outbox rows: delivered, put off to a later try, given up."""

    delivered: int
    postponed: int
    dead: int


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """What became of an outbox row. `due_at`: its next try or the end of its lease; `note`: the last error, or what came of it."""

    id: int
    kind: str
    entity: str
    payload: Mapping[str, Any]
    created_at: datetime
    state: Literal["due", "leased", "delivered", "dead"]
    attempts: int
    due_at: datetime
    step: str
    invoice: str | None
    note: str | None


StripeState = Literal["pending", "applied", "ignored", "stale", "failed"]


@dataclass(frozen=True, slots=True)
class StripeEventState:
    """A webhook event and what became of it. `subject`: the object it is about; `note`: why it failed, or what came of it."""

    id: str
    kind: str
    subject: str
    created_at: datetime
    received_at: datetime
    state: StripeState
    attempts: int
    note: str | None
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class StripeApplied:
    """What became of an event that was handed in. `replayed`: it had been applied before, and nothing was done."""

    id: str
    kind: str
    state: StripeState
    note: str | None = None
    replayed: bool = False
