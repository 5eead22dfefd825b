"""What an event of Stripe's means here, by name."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from meterbook.errors import MeterbookError

CREATED, UPDATED, DELETED = range(3)


@dataclass(frozen=True, slots=True)
class Order:
    """Where an event of a subscription stands among the others: by Stripe's own time, which has whole seconds. Deleted is final."""

    at: datetime
    rank: int
    event: str

    def is_newer_than(self, other: "Order") -> bool:
        """Of one second's the kind decides, then the id: whatever the order of arrival, the answer is the same."""
        return self.place > other.place

    def is_tied_with(self, other: "Order") -> bool:
        """Which of the two came last can't be told by them."""
        return self.at == other.at and self.event != other.event and DELETED not in (self.rank, other.rank)

    @property
    def place(self) -> tuple[bool, datetime, int, str]:
        """What is compared."""
        return (self.rank == DELETED, self.at, self.rank, self.event)


@dataclass(frozen=True, slots=True)
class OwnerSaid:
    """Whom the metadata name: in our words (`entity`), or by the origin's `reference`, beside the `user` who subscribed."""

    entity: str | None = None
    reference: str | None = None
    user: str | None = None

    @property
    def text(self) -> str | None:
        """What is remembered, to see that it changed."""
        return self.entity or (None if self.reference is None else f"reference {self.reference}")


@dataclass(frozen=True, slots=True)
class PutSubscription:
    """A subscription as an event says it is. `named`: which of ours its metadata say it is.

    `effective_at`: since when, None: from now on; `monthly_price`: of a contract, the limit that it stores.
    """

    subscription: str
    customer: str
    order: Order
    owner: OwnerSaid
    named: str | None
    plan: str
    seats: int
    monthly_price: Decimal | None
    status: str
    starts_at: datetime
    ends_at: datetime
    interval: str
    interval_months: int
    anchor: datetime
    cancel_at_period_end: bool
    cancel_at: datetime | None
    currency: str
    effective_at: datetime | None

    def holds_as(self, other: "PutSubscription") -> bool:
        """Whether both say the same plan, seats, status, period and owner."""
        mine, theirs = ((each.plan, each.seats, each.status, each.starts_at, each.owner.text) for each in (self, other))
        return mine == theirs

    @property
    def is_entitled(self) -> bool:
        return self.status in ("active", "trialing", "past_due")

    @property
    def has_ended(self) -> bool:
        return self.status in ("canceled", "incomplete_expired")


@dataclass(frozen=True, slots=True)
class EndSubscription:
    """The end of one whose plan can't be told any more, `because` of this: an end needs none."""

    subscription: str
    order: Order
    ended_at: datetime
    because: MeterbookError


@dataclass(frozen=True, slots=True)
class RenewPeriod:
    """A renewal was invoiced for `[starts_at, ends_at)`."""

    subscription: str
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class LookAtCloses:
    """Something ended, perhaps: the clock decides."""

    subscription: str


@dataclass(frozen=True, slots=True)
class BlockForInvoice:
    invoice: str
    subscription: str


@dataclass(frozen=True, slots=True)
class BlockForDispute:
    """Whoever pays with the customer of `charge`; `customer` if the event brought it along."""

    dispute: str
    charge: str
    customer: str | None


@dataclass(frozen=True, slots=True)
class Settle:
    """An invoice or a dispute that blocks nobody any more."""

    reference: str
    outcome: str


@dataclass(frozen=True, slots=True)
class GrantPurchase:
    """Credits that a paid invoice bought."""

    invoice: str
    owner: OwnerSaid
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class TellProration:
    """Stripe gave `cents` back for a decrease that was to wait for the period's end."""

    invoice: str
    subscription: str
    cents: int


@dataclass(frozen=True, slots=True)
class Ignore:
    """Kept, and nothing else."""

    why: str


Effect = (
    PutSubscription
    | EndSubscription
    | RenewPeriod
    | LookAtCloses
    | BlockForInvoice
    | BlockForDispute
    | Settle
    | GrantPurchase
    | TellProration
    | Ignore
)
