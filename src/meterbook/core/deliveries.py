"""Deliveries of the outbox: how long to wait, when to give up, and under which key a step is sent (BEHAVIOUR §11). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

RETRY_AFTER_MAX_S = 3600
MONEY_TRIED_FOR = timedelta(days=3)
OTHERS_TRIED_FOR = timedelta(days=1)
KEY_KEPT = timedelta(hours=23)
"""Stripe forgets an idempotency key after 24 hours."""

Step = Literal["create", "item", "finalize", "pay"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One outbox row under a lease, with how far its steps have come. `at`: when it was claimed.

    `holds`: of what is told of a `subscription`, what holds now: whether it is to cancel, or its seats.
    """

    id: int
    lease: int
    kind: str
    entity_id: int
    entity: str
    payload: Mapping[str, Any]
    created_at: datetime
    attempts: int
    first_try_at: datetime
    step: str
    step_since: datetime | None
    round: int
    invoice: str | None
    item: str | None
    ledger: UUID
    currency: str
    period_starts_at: datetime | None
    period_ends_at: datetime | None
    holds: bool | int | None
    subscription: str | None
    stripe_subscription: str | None
    at: datetime

    def in_round_of(self, step: Step) -> "Delivery":
        """The same, or in its next round if Stripe may have forgotten the key under which this step was first sent."""
        since = self.step_since if self.step == step else None
        return replace(self, round=self.round + 1) if since is not None and self.at - since > KEY_KEPT else self

    def may_have_done(self, step: Step) -> bool:
        """Whether the step is to be looked for before it is sent: it was begun, or the row is older than Stripe's memory of its key.

        A row as old as that may have been sent by the ledger of which this one is a backup, restored.
        """
        return self.step == step or self.at - self.created_at > KEY_KEPT

    @property
    def charge(self) -> str:
        """Names the charge among all ledgers."""
        return f"{self.ledger}:{self.entity_id}:{self.payload['charge']}"

    def key(self, step: Step, round_: int) -> str:
        """The idempotency key: the charge and the step; `round_` counts keys that are of no use any more."""
        return f"meterbook:{self.charge}:{step}:{round_}"

    @property
    def is_given_up(self) -> bool:
        """Whether it has been tried for as long as it is worth: three days for money, a day for the rest."""
        return self.at - self.first_try_at >= (MONEY_TRIED_FOR if self.kind == "charge" else OTHERS_TRIED_FOR)


def retry_after(attempts: int, per_mille: int) -> timedelta:
    """2, 4, 8, … seconds, an hour at most, and up to a quarter more by chance (`per_mille`, 0 to 999), so that not all come at once."""
    milliseconds = 2 ** min(attempts, 20) * 1000
    return timedelta(milliseconds=min(milliseconds + milliseconds * per_mille // 4000, RETRY_AFTER_MAX_S * 1000))


def seat_steps(now: int, paid: int, wanted: int) -> tuple[tuple[int, bool], ...]:
    """The quantities to set one after the other, and whether Stripe asks money for each.

    Fewer are sent without proration, and so cost less from the next period on (BEHAVIOUR §7); up to as many as are `paid` for this period
    are taken back the same way, and only what is beyond is charged, at once.
    """
    free = min(wanted, max(now, paid))
    unpaid = ((wanted, True),) if wanted > free else ()
    return unpaid if free == now else ((free, False), *unpaid)


def invoice_text(starts_at: datetime, ends_at: datetime, kind: str) -> str:
    """What stands on the invoice."""
    what = "Usage beyond the plan" if kind == "final" else "Usage beyond the plan, so far"
    return f"{what}: {starts_at:%Y-%m-%d} to {ends_at:%Y-%m-%d}"
