"""What is said over HTTP, in and out. Amounts are strings both ways: JSON's numbers are floats in most languages."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from meterbook.core.derivation import amount_text
from meterbook.core.entries import Usage
from meterbook.core.recorded import EachRecorded, Recorded, RecordedEntry
from meterbook.operations.settle_hold import Settled
from meterbook.plain import as_json

Out = TypeVar("Out", bound=Struct)

Amount = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$",
        description="Exact, in the ledger's currency; a string.",
        examples=["0.0123"],
    ),
]
Signed = Annotated[
    str,
    Meta(
        pattern=r"^-?[0-9]{1,12}(\.[0-9]{1,12})?$",
        description="Exact, in the ledger's currency; a string; negative takes back.",
        examples=["-0.01"],
    ),
]
Money = Annotated[str, Meta(description="An exact amount, with two decimal places or more.", examples=["12.50"])]
Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, with a time zone.")]
Id = Annotated[str, Meta(min_length=1, max_length=255, description="An id of yours: any text without NUL.")]
Key = Annotated[str, Meta(min_length=1, max_length=512, description="Names one intent to charge, for ever.")]
Source = Annotated[str, Meta(min_length=1, max_length=128)]
Description = Annotated[str, Meta(min_length=1, max_length=512)]
Entity = Annotated[
    str,
    Meta(pattern=r"^(user|organization):", min_length=6, max_length=268, description="user:<id> or organization:<id>."),
]
Number = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Said(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a client says: a field that is not known is refused, not ignored."""


# ------------------------------------------------------------------------------------------------------------------ recording


class EntryIn(Struct, forbid_unknown_fields=True, omit_defaults=True, rename=None):
    """One entry. Its fields stand in the order of `core.entries.Usage`; a test holds the two against each other."""

    actor: Id
    source: Source
    description: Description
    amount: Amount
    category: str = "model"
    event_key: Key | None = None
    line: Id | None = None
    entity: Entity | None = None
    period: Number | None = None
    workspace: Id | None = None
    workflow: Id | None = None
    execution: Id | None = None
    source_reference: Id | None = None
    occurred_at: Time | None = None
    metadata: dict[str, Any] | None = None
    attribution: str | None = None

    def usage(self) -> Usage:
        return tuple.__new__(Usage, msgspec.structs.astuple(self))


class RecordedEntryOut(Struct):
    id: str
    outcome: str
    entity: str
    period: int
    belongs_to: int | None
    amount: Money
    recorded_at: datetime


class RecordedOut(Struct):
    """What became of a call. Entries of amount 0 are accepted, write nothing and are not listed."""

    inserted: int
    replayed: int
    amount: Money
    entries: list[RecordedEntryOut]


def recorded_out(recorded: Recorded) -> RecordedOut:
    return RecordedOut(
        recorded.inserted,
        recorded.replayed,
        amount_text(recorded.amount),
        [recorded_entry_out(each) for each in recorded.entries],
    )


def recorded_entry_out(each: RecordedEntry) -> RecordedEntryOut:
    id_, outcome, entity, period, belongs_to, amount, recorded_at = each
    return RecordedEntryOut(id_, outcome, entity, period, belongs_to, amount_text(amount), recorded_at)


class ProblemOut(Struct):
    """`index`: the entry's place in the body, from 0."""

    index: int | None
    field: str
    code: str
    message: str


class ConflictOut(Struct):
    """One key, two versions."""

    index: int
    entry: str
    first: dict[str, str | int | None]
    now: dict[str, str | int | None]


class BatchEntryOut(Struct, omit_defaults=True):
    index: int
    outcome: str
    entry: RecordedEntryOut | None = None
    problem: ProblemOut | None = None
    conflict: ConflictOut | None = None


class BatchOut(Struct):
    """What became of each entry: inserted, replayed, conflict, refused, or nothing for an amount of 0."""

    inserted: int
    replayed: int
    conflict: int
    refused: int
    nothing: int
    results: list[BatchEntryOut]


def batch_entry_out(index: int, each: EachRecorded) -> BatchEntryOut:
    problem, conflict = each.problem, each.conflict
    return BatchEntryOut(
        index,
        "replayed" if each.outcome == "unchanged" else each.outcome,
        None if each.entry is None else recorded_entry_out(each.entry),
        None if problem is None else ProblemOut(index, problem.field, problem.code, problem.message),
        None if conflict is None else ConflictOut(index, conflict.entry, _texts(conflict.first), _texts(conflict.now)),
    )


def _texts(version: Mapping[str, str | Decimal | int | None]) -> dict[str, str | int | None]:
    return {name: amount_text(value) if isinstance(value, Decimal) else value for name, value in version.items()}


class CumulativeIn(Said):
    actor: Id
    request: Id
    total: Amount
    source: Source
    description: Description
    category: str | None = None
    entity: Entity | None = None
    workspace: Id | None = None
    workflow: Id | None = None
    execution: Id | None = None
    source_reference: Id | None = None
    occurred_at: Time | None = None
    metadata: dict[str, Any] | None = None
    attribution: str | None = None


class CorrectionIn(Said):
    entry: Annotated[str, Meta(min_length=1, max_length=64, description="The id of the entry that is corrected.")]
    amount: Signed
    reason: Description
    event_key: Key


class PartyIn(Said):
    """Who is about to work, and where."""

    actor: Id
    workspace: Id | None = None


class AttributionOut(Struct):
    token: str
    actor: str
    workspace: str | None
    entity: str
    period: int


# -------------------------------------------------------------------------------------------------------------------- holding


class HoldIn(Said):
    actor: Id
    amount: Amount
    hold_id: Id | None = None
    ttl_s: Annotated[int, Meta(ge=1, le=86_400)] = 600
    workspace: Id | None = None


class SettleIn(Said):
    hold_id: Id
    amount: Amount
    source: Source
    description: Description
    event_key: Key | None = None
    category: str = "model"
    execution: Id | None = None
    occurred_at: Time | None = None


class ReleaseIn(Said):
    hold_id: Id


class ReleasedOut(Struct):
    released: bool


class SettledOut(Struct):
    """`state`: settled; or expired or released before, and the usage is recorded all the same."""

    state: str
    recorded: RecordedOut


def settled_out(settled: Settled) -> SettledOut:
    return SettledOut(settled.state, recorded_out(settled.recorded))


class AdmissionOut(Struct):
    """May the work begin? A denial is an answer, not an error: status 200, `allowed` false."""

    allowed: bool
    code: str
    message: str
    scope: str
    entity: str | None
    used: Money | None
    held: Money | None
    limit: Money | None
    retryable: bool
    overshoot: Money | None


class HoldOut(Struct):
    id: str
    entity: str
    actor: str
    workspace: str | None
    amount: Money
    granted_at: datetime
    expires_at: datetime
    state: str
    ended_at: datetime | None
    settled: Money | None


class HoldsOut(Struct):
    holds: list[HoldOut]


# -------------------------------------------------------------------------------------------------------------------- reading


class PeriodOut(Struct):
    id: int
    kind: str
    starts_at: datetime
    ends_at: datetime
    plan: str
    seats: int
    included: Money | None
    refresh_per_day: Money
    state: str
    subscription: str | None


class PartOut(Struct):
    source: str
    description: str
    amount: Money


class DayOut(Struct):
    day: int
    amount: Money


class UsageOut(Struct):
    """One period of an entity, from one snapshot; exact while others write."""

    entity: str
    period: PeriodOut
    count: int
    total: Money
    baseline: Money
    given_back: Money
    refresh: Money
    effective: Money
    included: Money | None
    overage: Money
    limit: Money
    percent: Money
    status: str
    held: Money
    charged_cents: int
    credits_cents: int
    billed_cents: int
    unbilled_cents: int
    by_actor: dict[str, Money]
    by_source: dict[str, Money]
    by_description: list[PartOut]
    by_day: list[DayOut]


class EntryOut(Struct):
    id: str
    actor: str
    category: str
    source: str
    description: str
    amount: Money
    occurred_at: datetime
    recorded_at: datetime
    period: int
    belongs_to: int | None
    workspace: str | None
    workflow: str | None
    execution: str | None
    source_reference: str | None
    line: str | None
    corrects: str | None
    reason: str | None
    metadata: dict[str, Any] | None


class SummaryOut(Struct):
    count: int
    amount: Money


class EntriesOut(Struct):
    """`next_cursor` is null on the last page; the summary covers the whole filter, not the page."""

    entries: list[EntryOut]
    next_cursor: str | None
    summary: SummaryOut | None


class PeriodsOut(Struct):
    periods: list[PeriodOut]


class ChargeOut(Struct):
    id: int
    period: int
    kind: str
    amount_cents: int
    credits_cents: int
    written_off_cents: int
    overage: Money
    at: datetime


class ChargesOut(Struct):
    charges: list[ChargeOut]


class GrantOut(Struct):
    grant_id: str
    amount_cents: int
    remaining_cents: int
    source: str
    priority: int
    expires_at: datetime | None
    granted_at: datetime


class CreditsOut(Struct):
    balance_cents: int
    grants: list[GrantOut]


class DerivationOut(Struct):
    """A figure, its formula, and the terms it was made from, down to rows."""

    name: str
    value: str | int
    formula: str
    terms: list["DerivationOut"]
    note: str


class MemberOut(Struct):
    user: str
    role: str
    cap: Money | None


class MembersOut(Struct):
    members: list[MemberOut]


# --------------------------------------------------------------------------------------------------------------------- acting


class LimitIn(Said):
    """`by`: the user who edits, whose right to do so is looked at; without it, an operator does."""

    entity: Entity
    amount: Amount
    by: Id | None = None


class LimitOut(Struct):
    entity: str
    limit: Money


class OrganizationIn(Said):
    organization: Id
    owner: Id


class OwnerIn(Said):
    organization: Id
    user: Id


class MemberIn(Said):
    organization: Id
    user: Id
    role: str = "member"


class CapIn(Said):
    """`cap` null: no cap; "0": nothing."""

    organization: Id
    user: Id
    cap: Amount | None


class WorkspaceIn(Said):
    """`payer` null leaves it to whoever acts."""

    workspace: Id
    payer: Entity | None = None


class SubscriptionIn(Said):
    id: Id
    owner: Entity
    plan: str
    status: str
    starts_at: Time
    ends_at: Time
    seats: Annotated[int, Meta(ge=0, lt=2**31)] | None = None
    interval: str = "month"
    anchor: Time | None = None
    cancel_at_period_end: bool = False
    effective_at: Time | None = None
    currency: str | None = None
    stripe_customer: Id | None = None
    stripe_subscription: Id | None = None
    cancel_at: Time | None = None


class GrantIn(Said):
    entity: Entity
    amount: Amount
    grant_id: Id
    source: Id = "promotion"
    priority: Annotated[int, Meta(ge=0, le=32_767)] = 50
    expires_at: Time | None = None


class GrantedOut(Struct):
    """`granted` false: this grant was there already, and nothing was done."""

    granted: bool


class BlockIn(Said):
    entity: Entity
    reason: str
    reference: Annotated[str, Meta(max_length=255)] = ""


class ChangedOut(Struct):
    changed: bool


class DoneOut(Struct):
    done: bool = True


# ----------------------------------------------------------------------------------------------------------------------- keys


class KeyIn(Said):
    name: Id
    scopes: Annotated[list[str], Meta(min_length=1, max_length=3)]
    expires_at: Time | None = None


class RotateIn(Said):
    id: Number
    overlap_s: Annotated[int, Meta(ge=0, le=7_776_000)] = 86_400


class KeyOut(Struct):
    id: int
    prefix: str
    name: str
    scopes: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaces: int | None


class NewKeyOut(Struct):
    """`text` is the key itself; it is said this once."""

    key: KeyOut
    text: str


class KeysOut(Struct):
    keys: list[KeyOut]


class ActOut(Struct):
    """`outcome` null: it was cut off, and may or may not have taken effect."""

    id: int
    at: datetime
    by_whom: str
    act: str
    subject: str
    said: dict[str, Any]
    request: str
    outcome: str | None
    code: str | None
    ended_at: datetime | None


class ActsOut(Struct):
    acts: list[ActOut]


class AppliedOut(Struct):
    id: str
    kind: str
    state: str
    note: str | None
    replayed: bool


class HealthOut(Struct):
    status: str


def out(kind: type[Out], result: object) -> Out:
    """A result of the book as its wire type: the same names, amounts as strings."""
    return msgspec.convert(as_json(result), kind)


def arguments_of(body: Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(body)
