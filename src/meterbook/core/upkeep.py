"""What proof, compaction and the doctor answer."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Difference:
    """A derived figure that the entries do not bear out. `ledger_…` is what they say, `derived_…` what was found; None: nothing there."""

    claim: str
    entity_id: int
    entity: str | None
    period: int | None
    grain: str
    part: str
    detail: str
    ledger_amount: Decimal | None
    derived_amount: Decimal | None
    ledger_entries: int | None
    derived_entries: int | None

    def __str__(self) -> str:
        figure = " ".join(part for part in (self.grain, self.part, self.detail) if part)
        said, found = (
            f"{self.ledger_amount} ({self.ledger_entries} entries)",
            f"{self.derived_amount} ({self.derived_entries})",
        )
        return f"{self.entity} period {self.period} {figure}: the entries say {said}, found {found} — {self.claim}"


@dataclass(frozen=True, slots=True)
class Compacted:
    """Deltas folded, and the entities whose total moved: those are looked at for thresholds and alerts."""

    deltas: int
    entities: frozenset[int]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's; `advice` is empty while all is well."""

    name: str
    value: str
    ok: bool
    advice: str


@dataclass(frozen=True, slots=True)
class LedgerGauges:
    """What an operator watches: counts, and ages in seconds."""

    deltas_waiting: int
    oldest_delta_s: Decimal
    outbox_waiting: int
    oldest_outbox_s: Decimal
    dead_letters: int
    closes_deferred: int
    stripe_events_waiting: int
    key_conflicts: int
    acts_without_outcome: int
