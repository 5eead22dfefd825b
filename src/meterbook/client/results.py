"""What the client answers. Results that the ledger has too are the ledger's own classes, from `meterbook.core`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from meterbook.core.money import ZERO
from meterbook.core.period_facts import Period
from meterbook.core.recorded import Recorded, RecordedEntry

NOTHING_RECORDED = Recorded(0, 0, ZERO, ())


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a call that records.

    `recorded`: the server has committed it, and said the rest. `spooled`: it is on this machine's disk, `queued`: in this process's memory,
    and will be sent; nothing is known of it yet, and counts and amount are 0. `event_keys`: of the call's entries, in its order; None
    where the key follows from the entry's identity.
    """

    state: Literal["recorded", "spooled", "queued"]
    event_keys: tuple[str | None, ...]
    inserted: int = 0
    replayed: int = 0
    amount: Decimal = ZERO
    entries: tuple[RecordedEntry, ...] = ()

    @property
    def is_recorded(self) -> bool:
        return self.state == "recorded"


@dataclass(frozen=True, slots=True)
class SettleReceipt:
    """How a hold ended. None while the settle waits to be sent, as `receipt` says.

    `settled`; `expired` or `released` before, or `no_hold`, of one that the server never granted: the usage is recorded all the same.
    """

    state: Literal["settled", "expired", "released", "no_hold"] | None
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that the server refused for good, when it was sent later. `body` is what was said; `problem`, what the server said of it."""

    path: str
    body: Any
    code: str
    message: str
    said_at: datetime
    refused_at: datetime
    problem: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


@dataclass(frozen=True, slots=True)
class Spooled:
    """What waits to be sent. `exposure`: the money that is used and not yet recorded; a running total counts once, with its largest.

    `by_actor` has the same money by who used it; what is settled by the id of a hold alone stands under None. `refused` calls stand apart:
    they wait for a person. `trouble`: why the last try failed, None if it did not.
    """

    calls: int
    entries: int
    bytes: int
    oldest: datetime | None
    exposure: Decimal
    by_actor: Mapping[str | None, Decimal]
    refused: int
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class UsageFigures:
    """One period of an entity, from one snapshot, as `Book.usage` has it: the same names, without the facts behind them."""

    entity: str
    period: Period
    count: int
    total: Decimal
    baseline: Decimal
    given_back: Decimal
    refresh: Decimal
    effective: Decimal
    included: Decimal | None
    overage: Decimal
    limit: Decimal
    percent: Decimal
    status: str
    held: Decimal
    charged_cents: int
    credits_cents: int
    billed_cents: int
    unbilled_cents: int
    by_actor: Mapping[str, Decimal]
    by_source: Mapping[str, Decimal]
    by_description: Mapping[tuple[str, str], Decimal]
    by_day: Mapping[int, Decimal]
