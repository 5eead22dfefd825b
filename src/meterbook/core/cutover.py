"""The arithmetic of a cutover (BEHAVIOUR §13): what a counter owes the ledger, what has a day, and what moved after the switch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Literal

from meterbook.core.baselines import oldest_first
from meterbook.core.money import AMOUNT_PLACES_MAX, EXACT, ZERO, cents, total_of

CounterKind = Literal["running", "kept", "departed"]
State = Literal["shadow", "switched", "retired", "rolled_back"]
_STEP = Decimal(1).scaleb(-AMOUNT_PLACES_MAX)


@dataclass(frozen=True, slots=True)
class Reading:
    """A counter from one snapshot, with all that is known of it. `rows`: Σ of its audit rows that the ledger has, of this epoch.

    Until the switch the ledger should say `base + held + rows`, from then on it has absorbed what `moved`. `falls`: from what to what it
    fell since it was last read, oldest first, where a trigger notes that.
    """

    name: str
    kind: CounterKind
    owner: str
    base: Decimal
    held: Decimal
    rows: Decimal
    seen: Decimal
    seen_last: Decimal
    moved: Decimal
    absorbed: Decimal
    value: Decimal
    last: Decimal
    falls: tuple[tuple[Decimal, Decimal], ...] = ()

    @property
    def ledger(self) -> Decimal:
        return total_of([self.base, self.held, self.rows])

    @property
    def difference(self) -> Decimal:
        """What the counter says beyond the ledger, before the switch."""
        return EXACT.subtract(self.value, self.ledger)

    @property
    def has_moved(self) -> bool:
        return (self.value, self.last) != (self.seen, self.seen_last) or bool(self.falls)

    @property
    def has_fallen(self) -> bool:
        """It began again: the product closed a period, or moved it to another counter."""
        return self.value < self.seen

    @property
    def begins_again(self) -> bool:
        """Before the switch: it fell, or other counters were moved into it."""
        return self.has_fallen or (self.kind != "running" and self.value != self.seen)

    @property
    def base_at_switch(self) -> Decimal:
        """The counter is what is owed: the ledger's part of it stays in the ledger, all else is baseline."""
        return EXACT.subtract(self.value, EXACT.add(self.held, self.rows))


def pooled_days(bases: Mapping[str, Decimal], audit_days: Mapping[str, Mapping[int, Decimal]]) -> dict[int, Decimal]:
    """The dated part of a baseline: each counter's own rows, oldest first, until that counter is used up; and never more than their sum."""
    days: dict[int, Decimal] = {}
    for name, base in bases.items():
        for day, amount in oldest_first(max(base, ZERO), audit_days.get(name, {})).items():
            days[day] = EXACT.add(days.get(day, ZERO), amount)
    return oldest_first(max(total_of(bases.values()), ZERO), days)


# --------------------------------------------------------------------------------------------------------------- after the switch


@dataclass(frozen=True, slots=True)
class Movement:
    """By how much a counter rose since it was last read. `note`: what could not be understood and was counted as nothing."""

    name: str
    rise: Decimal
    note: str = ""


def movements(readings: Sequence[Reading]) -> list[Movement]:
    """What old instances added to the counters of one entity, read together.

    A counter whose falls were noted rose by all that lies between them. One that the product closed (its last-period value took it over)
    rose by what it still got before, and by what it has since. One that was moved into a kept or departed counter rose by what those got
    more than it lost. Any other fall takes nothing back.
    """
    found = [_movement(reading) for reading in readings if reading.kind == "running"]
    gained = total_of(EXACT.subtract(r.value, r.seen) for r in readings if r.kind != "running" and r.value > r.seen)
    fallen = {r.name: r for r in readings if r.kind == "running" and _is_unexplained(r)}
    if not fallen:
        return found
    lost = total_of(EXACT.subtract(r.seen, r.value) for r in fallen.values())
    first = next(iter(fallen))
    if gained >= lost:
        surplus = EXACT.subtract(gained, lost)
        return [Movement(m.name, surplus if m.name == first else ZERO) if m.name in fallen else m for m in found]
    return [_unmoved(m, fallen[m.name]) if m.name in fallen else m for m in found]


def _unmoved(movement: Movement, reading: Reading) -> Movement:
    """Nothing else took the counter over. If the last period's value was and is what it had risen to, that is a close of a like period."""
    if reading.last == reading.seen:
        return Movement(movement.name, max(reading.value, ZERO))
    return replace(movement, note=_fall_note(reading))


def _movement(reading: Reading) -> Movement:
    if reading.falls:
        return Movement(reading.name, _risen_between(reading))
    if _was_closed(reading):
        before = EXACT.subtract(reading.last, reading.seen)
        return Movement(reading.name, EXACT.add(before, max(reading.value, ZERO)))
    if not reading.has_fallen:
        return Movement(reading.name, EXACT.subtract(reading.value, reading.seen))
    return Movement(reading.name, ZERO)


def _risen_between(reading: Reading) -> Decimal:
    rise, low = ZERO, reading.seen
    for was, is_now in reading.falls:
        rise, low = EXACT.add(rise, max(EXACT.subtract(was, low), ZERO)), is_now
    return EXACT.add(rise, max(EXACT.subtract(reading.value, low), ZERO))


def _is_unexplained(reading: Reading) -> bool:
    return reading.has_fallen and not reading.falls and not _was_closed(reading)


def _was_closed(reading: Reading) -> bool:
    """Also where the counter has risen beyond what it was seen at since: by the mapping, only a close writes the last period's value."""
    return reading.last != reading.seen_last and reading.last >= reading.seen


def _fall_note(reading: Reading) -> str:
    return f"fell from {reading.seen:f} to {reading.value:f} without a close; nothing was taken back"


def outstanding(reading: Reading, movement: Movement) -> Decimal:
    """What is still to absorb. Negative: a writer of both was counted in the ledger before its counter, or in the baseline already."""
    moved = EXACT.add(reading.moved, movement.rise)
    return EXACT.subtract(moved, EXACT.add(reading.rows, reading.absorbed))


def recordable(amount: Decimal) -> Decimal:
    """Of a counter of more places than an amount of usage may have, what can be recorded; the rest waits for more."""
    return amount.quantize(_STEP, rounding=ROUND_DOWN, context=_WIDE).normalize(EXACT)


_WIDE = EXACT.copy()
_WIDE.clear_traps()


# ------------------------------------------------------------------------------------------------------------------- carried over


@dataclass(frozen=True, slots=True)
class Carried:
    """What goes over with a switch besides usage, in the product's own figures. `blocked`: the reason."""

    billed: Decimal
    credits: Decimal
    usage_limit: Decimal | None
    blocked: str | None

    @property
    def billed_cents(self) -> int:
        return cents(self.billed)

    @property
    def credits_cents(self) -> int:
        return cents(self.credits)

    @property
    def stored_limit(self) -> Decimal | None:
        return None if self.usage_limit is None else Decimal(cents(self.usage_limit)).scaleb(-2)


# ------------------------------------------------------------------------------------------------------------------------ reports


@dataclass(frozen=True, slots=True)
class Compared:
    """One entity's counters against its ledger. `ledger`: baseline and all that was recorded of the period, as `usage` shows it.

    `unfed`: what the counters moved beyond their audit rows. `foreign`: what was recorded that no counter has. `refused`: audit rows that
    can't be recorded. difference = unfed − foreign.
    """

    entity: str
    state: State
    period: int
    counters: Decimal
    ledger: Decimal
    baseline: Decimal
    unfed: Decimal
    foreign: Decimal
    refused: Decimal
    agreed_since: datetime | None
    note: str

    @property
    def difference(self) -> Decimal:
        return EXACT.subtract(self.unfed, self.foreign)

    @property
    def explanation(self) -> str:
        """Why the two differ, or why this entity waits; empty: they agree."""
        parts = [self.note] if self.note else []
        if self.refused:
            parts.append(f"audit rows of {self.refused:f} can't be recorded and go to the baseline")
        rest = EXACT.subtract(self.unfed, self.refused)
        if rest > ZERO:
            parts.append(f"the counters moved by {rest:f} without audit rows, or they are still on their way")
        elif rest < ZERO:
            parts.append(f"audit rows of {-rest:f} moved no counter, or it is still on its way")
        if self.foreign:
            parts.append(f"{self.foreign:f} was recorded that no counter has")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class ShadowRound:
    """What one look at the counters did. `agreed_since`: since when every entity agrees; None: not every one does."""

    entities: int
    begun: int
    mirrored: int
    rows: int
    rows_refused: int
    differing: int
    refused: int
    waiting: int
    agreed_since: datetime | None


@dataclass(frozen=True, slots=True)
class SwitchedEntity:
    """One entity's switch. `outcome`: switched, was switched before, or refused, with the reason."""

    entity: str
    outcome: Literal["switched", "before", "refused"]
    baseline: Decimal = ZERO
    dated: Decimal = ZERO
    counters: Decimal = ZERO
    billed_cents: int = 0
    credits_cents: int = 0
    usage_limit: Decimal | None = None
    blocked: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Absorbed:
    """A round of late increments: how many counters moved, what was recorded of them, what was taken from baselines, what waits.

    `billed_cents`, `granted_cents`: what old instances billed, and what credits they granted.
    """

    counters: int
    recorded: Decimal
    taken_back: Decimal
    waiting: Decimal
    last_moved_at: datetime | None
    notes: tuple[str, ...] = ()
    billed_cents: int = 0
    granted_cents: int = 0


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback gave back to the product's own tables. `left`: what was edited here since and has to be mended there by hand."""

    entity: str
    outcome: Literal["rolled_back", "before", "refused"]
    usage: Decimal = ZERO
    billed: Decimal = ZERO
    credits: Decimal = ZERO
    reason: str = ""
    left: str = ""


@dataclass(frozen=True, slots=True)
class CutoverFinding:
    """Something that does not add up. `treatment`: what the cutover does about it; it leaves out what is `refused`."""

    code: str
    subject: str
    message: str
    treatment: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class PlannedEntity:
    """What a switch would begin with, by what the tables say now."""

    entity: str
    plan: str
    starts_at: datetime | None
    ends_at: datetime | None
    counters: int
    baseline: Decimal
    dated: Decimal
    audit: Decimal
    billed: Decimal
    credits: Decimal
    usage_limit: Decimal | None
    blocked: str | None
    refused: bool


@dataclass(frozen=True, slots=True)
class ImportedHistory:
    """What an import of past periods did."""

    periods: int
    rows: int
    amount: Decimal
    refused: int
