"""What a person sees of the whole ledger: sums over all payers, and what needs somebody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from meterbook.core.ledgers import Charge, DeliveryState, StripeEventState
from meterbook.core.upkeep import Finding
from meterbook.core.usage_report import UsageReport


@dataclass(frozen=True, slots=True)
class DaySpent:
    """What was recorded, and what the daily refresh took of it, in the 24-hour buckets that begin on this date (UTC)."""

    day: date
    amount: Decimal
    refresh: Decimal


@dataclass(frozen=True, slots=True)
class RunningSums:
    """Over the periods that run now; what is owed over all that are not closed. `largest`: the payers that used most."""

    total: Decimal
    refresh: Decimal
    effective: Decimal
    payers: int
    unbilled_cents: int
    deferred_cents: int
    blocked_cents: int
    deferred: int
    largest: Sequence[str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is not folded or told yet, as of `at`; `late_cents`: charges that wait for over an hour, `dead`: rows that were given up."""

    at: datetime
    oldest_delta: datetime | None
    outbox: int
    oldest_outbox: datetime | None
    late_cents: int
    dead: int
    dead_cents: int
    conflicts_of_a_day: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Each part is exact in itself; parts are read one after the other. `largest`: the reports of those that used most."""

    days: Sequence[DaySpent]
    sums: RunningSums
    waiting: Waiting
    largest: Sequence[UsageReport]

    @property
    def at_risk_cents(self) -> int:
        """Owed, but something stands between it and an invoice: a close that waits, a block, a charge
        that waits for over an hour, or was given up.
        """
        return self.sums.deferred_cents + self.sums.blocked_cents + self.waiting.late_cents + self.waiting.dead_cents


@dataclass(frozen=True, slots=True)
class Conflict:
    """A key that was used again for something else: what it said first, and then."""

    key: str
    at: datetime
    first: Mapping[str, Any]
    then: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeferredClose:
    entity: str
    period: int
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Blocked:
    entity: str
    reason: str
    reference: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Troubles:
    """Everything that needs somebody; all empty: nothing does."""

    findings: Sequence[Finding]
    stuck: Sequence[DeliveryState]
    events: Sequence[StripeEventState]
    deferred: Sequence[DeferredClose]
    blocked: Sequence[Blocked]
    conflicts: Sequence[Conflict]

    @property
    def count(self) -> int:
        """Conflicts are told, but were refused: nothing waits for them."""
        return sum(map(len, (self.findings, self.stuck, self.events, self.deferred, self.blocked)))


@dataclass(frozen=True, slots=True)
class ListedPeriod:
    """A dated period of some payer. `overage` is known once it is closed."""

    entity: str
    id: int
    kind: str
    starts_at: datetime
    ends_at: datetime
    plan: str
    seats: int
    state: str
    overage: Decimal | None
    charged_cents: int
    credits_cents: int
    written_off_cents: int


@dataclass(frozen=True, slots=True)
class ListedCharge:
    entity: str
    charge: Charge
