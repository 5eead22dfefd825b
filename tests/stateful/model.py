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


def next_month(at: datetime) -> datetime:
    return month_of(month_of(at) + timedelta(days=32))


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
    """`months`: what the clock opened while it was entitled. `until`: set to cancel then, at the end of a month, by us (§12)."""

    name: str
    plan: str
    entitled: bool
    months: set[datetime] = field(default_factory=set)
    until: datetime | None = None

    def ended(self, now: datetime) -> bool:
        return self.until is not None and self.until <= now

    def open(self, month: datetime) -> None:
        """One that rests opens none (§4)."""
        if self.entitled and not self.ended(month):
            self.months.add(month)


@dataclass
class Model:
    now: datetime
    rows: dict[str, Row] = field(default_factory=dict)
    subscriptions: dict[str, list[Subscription]] = field(default_factory=dict)
    """By owner, the newest last: one that has ended stays ended."""
    member_of: dict[str, str] = field(default_factory=dict)
    workspaces: dict[str, str | None] = field(default_factory=dict)
    closed: set[tuple[str, datetime]] = field(default_factory=set)
    totals: dict[str, tuple[str, Decimal, str]] = field(default_factory=dict)
    """Running totals by request: actor, total, and who pays."""

    def pass_time(self, now: datetime) -> None:
        """The clock opens the months that begin meanwhile (§10)."""
        while (month := next_month(self.now)) <= now:
            self.now = month
            for owned in self.subscriptions.values():
                owned[-1].open(month)
        self.now = now

    # --------------------------------------------------------------------------------------------------- who pays, and where

    def payer(self, actor: str, workspace: str | None = None, named: str | None = None) -> str:
        """§4: the highest rank wins, the organization's before the personal one."""
        placed = self.workspaces.get(workspace) if workspace is not None else None
        if named is not None and placed not in (None, named):
            raise Refused("invalid_usage")
        if named or placed:
            return str(named or placed)
        purses = [f"user:{actor}", *([f"organization:{self.member_of[actor]}"] if actor in self.member_of else [])]
        best = max(filter(self._paying, purses), key=self._rank, default=None)
        return best or f"user:{actor}"

    def home(self, entity: str) -> datetime:
        """The running subscription period, else the free one."""
        return month_of(self.now) if self._paying(entity) else FREE

    def place(self, entity: str, occurred: datetime) -> tuple[datetime, datetime | None]:
        """§3.8: where an entry is booked, and if it is late what it belongs to. A month whose subscription rests takes none (§4)."""
        month = month_of(occurred)
        if (entity, month) in self.closed:
            return self.home(entity), month
        for known in self.subscriptions.get(entity, []):
            if known.entitled and month in known.months:
                return month, None
        return FREE, None

    def _latest(self, entity: str) -> Subscription | None:
        """One that has not ended."""
        latest = self.subscriptions.get(entity, [None])[-1]
        return None if latest is None or latest.ended(self.now) else latest

    def _paying(self, entity: str) -> bool:
        latest = self._latest(entity)
        return latest is not None and latest.entitled

    def _rank(self, entity: str) -> tuple[int, bool]:
        return RANKS[self.subscriptions[entity][-1].plan], entity.startswith("organization")

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

    def subscribe(self, owner: str, plan: str, *, entitled: bool) -> Subscription:
        """Stripe's word: of the one there is, which stays set to cancel if it is, or of a new one."""
        before = self._paid_for()
        said = self._latest(owner)
        if said is None:
            mine = self.subscriptions.setdefault(owner, [])
            said = Subscription(f"{owner} {len(mine)}", plan, entitled)
            mine.append(said)
        said.plan, said.entitled = plan, entitled
        said.open(month_of(self.now))
        self._begin_to_pay(before)
        return said

    def is_set_to_cancel(self, owner: str) -> bool:
        latest = self._latest(owner)
        return latest is not None and latest.until is not None

    def join(self, organization: str, user: str) -> None:
        before = self._paid_for()
        if self.member_of.setdefault(user, organization) != organization:
            raise Refused("membership_refused")
        self._begin_to_pay(before)

    def leave(self, organization: str, user: str) -> None:
        """§12: takes back a cancellation of ours."""
        if self.member_of.get(user) != organization:
            raise Refused("membership_refused")
        del self.member_of[user]
        own = self._latest(f"user:{user}")
        if own is not None:
            own.until = None

    def _paid_for(self) -> set[str]:
        """The members whose organization pays for them."""
        return {user for user, name in self.member_of.items() if self.payer(user) == f"organization:{name}"}

    def _begin_to_pay(self, before: set[str]) -> None:
        """§12: from now on an organization pays, so the person's own subscription is set to cancel at its period's end."""
        for user in self._paid_for() - before:
            own = self._latest(f"user:{user}")
            if own is not None and own.until is None:
                own.until = next_month(self.now)

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
