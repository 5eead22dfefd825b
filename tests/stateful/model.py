"""The ledger as a person with paper would keep it. Imports nothing of the package: what it says comes from BEHAVIOUR.md alone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

RANKS = {"pro": 10, "pro_6000": 10, "team": 20, "team_6000": 20}
FREE = datetime(1970, 1, 1, tzinfo=UTC)
FREE_ENDS = datetime(9999, 12, 31, tzinfo=UTC)


class Refused(Exception):
    """`code` is that of the error the book raises."""

    def __init__(self, code: str) -> None:
        self.code = code


def month_of(at: datetime) -> datetime:
    return datetime(at.year, at.month, 1, tzinfo=UTC)


def next_month(start: datetime) -> datetime:
    return month_of(start + timedelta(days=32))


@dataclass
class Said:
    """What a caller says of one entry."""

    key: str
    actor: str
    amount: Decimal
    source: str
    description: str
    occurred_at: datetime | None = None
    workspace: str | None = None
    entity: str | None = None

    @property
    def fingerprint(self) -> tuple[object, ...]:
        return (self.actor, self.source, self.description, self.amount)


@dataclass
class Row:
    """`period` is the start of the month, or FREE; `day` None: given back in money."""

    said: Said
    entity: str
    period: datetime
    belongs_to: datetime | None
    day: int | None
    corrected: Decimal = Decimal(0)
    correction: bool = False


@dataclass
class Subscription:
    plan: str
    entitled: bool
    since: datetime


@dataclass
class Model:
    now: datetime
    rows: dict[str, Row] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    member_of: dict[str, str] = field(default_factory=dict)
    workspaces: dict[str, str | None] = field(default_factory=dict)
    closed: set[tuple[str, datetime]] = field(default_factory=set)
    totals: dict[str, tuple[str, Decimal, str]] = field(default_factory=dict)
    """Running totals by request: actor, total, and who pays."""

    # --------------------------------------------------------------------------------------------------- who pays, and where

    def payer(self, actor: str, workspace: str | None = None, named: str | None = None) -> str:
        """§4: the highest rank wins, the organization's before the personal one."""
        placed = self.workspaces.get(workspace) if workspace is not None else None
        if named is not None and placed not in (None, named):
            raise Refused("invalid_usage")
        if named or placed:
            return str(named or placed)
        purses = [f"user:{actor}", *([f"organization:{self.member_of[actor]}"] if actor in self.member_of else [])]
        entitled = [purse for purse in purses if self._entitled(purse)]
        best = max(
            entitled, key=lambda purse: (RANKS[self.subscriptions[purse].plan], purse.startswith("org")), default=None
        )
        return best or f"user:{actor}"

    def home(self, entity: str) -> datetime:
        """The running subscription period, else the free one."""
        return month_of(self.now) if self._entitled(entity) else FREE

    def place(self, entity: str, occurred: datetime) -> tuple[datetime, datetime | None]:
        """§3.8: where an entry is booked, and if it is late what it belongs to."""
        month = month_of(occurred)
        if (entity, month) in self.closed:
            return self.home(entity), month
        known = self.subscriptions.get(entity)
        if known is not None and known.entitled and month >= known.since:
            return month, None
        return FREE, None

    def _entitled(self, entity: str) -> bool:
        return entity in self.subscriptions and self.subscriptions[entity].entitled

    # ------------------------------------------------------------------------------------------------------------- recording

    def record(self, entries: Iterable[Said]) -> int:
        """§3: all or nothing; gives how many were new."""
        written: dict[str, Row] = {}
        conflicts = 0
        for said in entries:
            first = self.rows.get(said.key) or written.get(said.key)
            if first is None:
                written[said.key] = self._row(said, self.payer(said.actor, said.workspace, said.entity))
            elif first.said.fingerprint != said.fingerprint or said.entity not in (None, first.entity):
                conflicts += 1
        if conflicts:
            raise Refused("key_conflict")
        self.rows |= written
        return len(written)

    def record_total(self, request: str, said: Said) -> Decimal:
        """§3.6: the rise over the largest total so far, paid by who paid first, placed by its own time."""
        actor, largest, payer = self.totals.get(request, (said.actor, Decimal(0), ""))
        if actor != said.actor:
            raise Refused("key_conflict")
        rise = said.amount - largest
        if rise <= 0:
            return Decimal(0)
        payer = payer or self.payer(said.actor)
        self.totals[request] = (actor, said.amount, payer)
        said.amount = rise
        self.rows[said.key] = self._row(said, payer)
        return rise

    def correct(self, key: str, amount: Decimal, new_key: str) -> None:
        """§3.7: beside the entry while its period takes entries; else at home, and what is taken back has no day there."""
        row = self.rows[key]
        if row.correction or row.said.amount + row.corrected + amount < 0:
            raise Refused("correction_refused")
        row.corrected += amount
        period, belongs_to, day = row.period, row.belongs_to, row.day
        if (row.entity, row.period) in self.closed:
            period, belongs_to = self.home(row.entity), row.period
            day = self._day(row.said, period) if amount > 0 else None
        said = Said(new_key, row.said.actor, amount, row.said.source, row.said.description, row.said.occurred_at)
        self.rows[new_key] = Row(said, row.entity, period, belongs_to, day, correction=True)

    def _row(self, said: Said, entity: str) -> Row:
        said.occurred_at = min(said.occurred_at or self.now, self.now)
        period, belongs_to = self.place(entity, said.occurred_at)
        return Row(said, entity, period, belongs_to, self._day(said, period))

    def _day(self, said: Said, period: datetime) -> int:
        assert said.occurred_at is not None
        ends = FREE_ENDS if period == FREE else next_month(period)
        return (min(max(said.occurred_at, period), ends - timedelta(microseconds=1)) - period).days

    # ------------------------------------------------------------------------------------------------------------- customers

    def subscribe(self, owner: str, plan: str, *, entitled: bool) -> None:
        known = self.subscriptions.get(owner)
        self.subscriptions[owner] = Subscription(plan, entitled, known.since if known else month_of(self.now))

    def join(self, organization: str, user: str) -> None:
        if self.member_of.setdefault(user, organization) != organization:
            raise Refused("membership_refused")

    def leave(self, organization: str, user: str) -> None:
        if self.member_of.get(user) != organization:
            raise Refused("membership_refused")
        del self.member_of[user]

    # --------------------------------------------------------------------------------------------------------------- figures

    def periods(self) -> set[tuple[str, datetime]]:
        return {(row.entity, row.period) for row in self.rows.values()}

    def rows_of(self, entity: str, period: datetime) -> list[Row]:
        return [row for row in self.rows.values() if (row.entity, row.period) == (entity, period)]


def summed(rows: Iterable[Row], by: str) -> dict[object, Decimal]:
    """By actor, day, source or description; what adds up to nothing is left out."""
    sums: Counter[object] = Counter()
    for row in rows:
        part = row.day if by == "day" else getattr(row.said, by)
        sums[part] += row.said.amount  # type: ignore[assignment]
    return {part: Decimal(amount) for part, amount in sums.items() if amount}
