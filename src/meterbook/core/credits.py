"""Credits (BEHAVIOUR §9): which grant pays which part, in whole cents. What is spent is never taken back."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """What is left of one grant. `expires_at` None: never."""

    id: int
    remaining_cents: int
    priority: int
    expires_at: datetime | None
    granted_at: datetime

    def spendable_at(self, at: datetime) -> bool:
        return self.expires_at is None or at < self.expires_at


@dataclass(frozen=True, slots=True)
class Spend:
    grant_id: int
    cents: int


def spendable_cents(grants: Iterable[Grant], at: datetime) -> int:
    return sum(grant.remaining_cents for grant in grants if grant.spendable_at(at))


def spend_credits(grants: Iterable[Grant], wanted_cents: int, at: datetime) -> tuple[Spend, ...]:
    """Lowest priority number first, then the earliest expiry, the oldest, the id. `at`: now at a threshold, the period's end at a close."""
    spends = []
    for grant in sorted((grant for grant in grants if grant.spendable_at(at)), key=_order):
        cents = min(grant.remaining_cents, wanted_cents)
        if cents > 0:
            spends.append(Spend(grant.id, cents))
            wanted_cents -= cents
    return tuple(spends)


def _order(grant: Grant) -> tuple[int, bool, datetime, datetime, int]:
    return (grant.priority, grant.expires_at is None, grant.expires_at or grant.granted_at, grant.granted_at, grant.id)
