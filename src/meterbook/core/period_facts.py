"""What the database knows of one period, from one snapshot: the terms that every figure is computed from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple

from meterbook.core.credits import Grant, spendable_cents


@dataclass(frozen=True, slots=True)
class Period:
    """One period of an entity, `[starts_at, ends_at)`. `included` None: a plan without overage. `subscription` None: of none."""

    id: int
    kind: Literal["dated", "free", "history"]
    starts_at: datetime
    ends_at: datetime
    plan: str
    seats: int
    included: Decimal | None
    refresh_per_day: Decimal
    state: Literal["open", "closing", "closed"]
    subscription: str | None = None


class Term(NamedTuple):
    """A sum of entries, for those who are shown what it is made of: grain `actor` or `description`; of the last, part is the source."""

    grain: str
    part: str
    detail: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Addressee:
    """Where a charge would go: the subscription's status and ids, and whether somebody owns the entity."""

    status: str | None
    stripe_customer: str | None
    stripe_subscription: str | None
    has_owner: bool


@dataclass(frozen=True, slots=True)
class PeriodFacts:
    """`recorded` is what the `entries` cost by 24-hour bucket, without `given_back`: corrections that were given back in money (§3.7).

    `stored` None: no limit was ever stored. Of the baseline, `baseline_days` have a day, the rest has none.

    `included_now`: what plan and seats give at this moment, where `period.included` is the largest of the period.
    """

    at: datetime = field(compare=False)
    entity: str
    entity_id: int
    period: Period
    recorded: Mapping[int, Decimal]
    given_back: Decimal
    entries: int
    breakdown: tuple[Term, ...]
    baseline: Decimal
    baseline_days: Mapping[int, Decimal]
    stored: Decimal | None
    charged_cents: int
    credits_cents: int
    written_off_cents: int
    grants: tuple[Grant, ...]
    held: Decimal
    blocks: tuple[str, ...]
    included_now: Decimal | None
    addressee: Addressee

    @property
    def billed_cents(self) -> int:
        return self.charged_cents + self.credits_cents

    @property
    def credits_for_limit(self) -> Decimal:
        """The spendable balance, and what credits have already paid of this period (§8)."""
        return Decimal(spendable_cents(self.grants, self.at) + self.credits_cents).scaleb(-2)
