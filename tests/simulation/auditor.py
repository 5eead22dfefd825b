"""An independent model of the money, in plain Python, from BEHAVIOUR.md alone: slow, small, exact. The clock is passed in.

Readings, where the rules leave a choice (others stand in docs/decisions/0011):

- R1  What the clock does counts at its own time, in that order, whoever comes first afterwards: an organization's
      subscription that ended at T takes its cancellations back before a personal period that ends at T or later.
      (§10, §12)
- R2  First contact opens the window that contains now, not the ones before it (S69). One whose reported period is
      over opens that, and the clock goes on.
- R3  A moved end (same start, another end) is where the anniversaries are counted from, unless an anchor is named. One
      that is named holds, also if the end is as it was. (§10)
- R4  A change effective at the very start of a period replaces what the clock assumed, and cuts nothing. (§10)
- R5  While its subscription is unpaid, paused or incomplete, also when it ends so by the clock, a period takes only entries that
      name it. (§4, §3.8)
- R6  "The entity's open period" of corrections and late entries is the running one of an entitled subscription, else
      the free one. (§3.7, §3.8)
- R7  "All corrections" in the giving back of §3.7 are all, positive ones after the close too.
- R8  An organization begins to pay for a member whenever a change makes it the payer; then every subscription of the
      member that has not ended is set to cancel, an unpaid one too. Being merely unpaid takes no cancellation back.
      Where the clock makes it the payer, since a better subscription of the member has ended, that is at the end of
      the term which runs when it is noticed: Stripe has renewed what nobody had told it to cancel. (§12)
- R9  The sweep closes before it looks at thresholds, so that credits go to the older debt. A grant made after a
      period's end pays for it too. (§9, §10)
- R10 Credits of a correction have priority 50, as others have.
- R11 The member's cap compares all rows of the running period, those given back in money included: "raw". (§8)
- R12 The actor's own block is `administrative`; other reasons block who pays. Any reason stops thresholds and edits.
      (§8, §9)
- R13 An edit of a limit needs a subscription that is `active`: `trialing` is not. An operator is bound by the same
      minimum. What is compared is what would be stored, in cents. (§2, §8)
- R14 Credits that pass with a subscription are gone for the owner before, also for what is still to be closed there.
      (§12)
- R15 A user is deleted only if every period that would end in a charge can be addressed, as they would be closed: cut
      now, the oldest end first, each credit for one of them. Of two reasons to refuse it the money is named. (§12)
- R16 A subscription that rests opens no period; when it is entitled again, the window that contains now opens with
      what was in force in it, rested or not; of a change between overage and none the last kind alone. (§4, §7)
- R17 A running total of 0 says nothing, also of a request that is bound to somebody else. Conflicts come before times. (§2, §3.6)
- R18 What an allowance has risen to a cut does not take back, also a cut that counts from before the rise. Of two
      changes at one instant inside a period the larger counts. (§7)
- R19 Nobody is told that a limit of 0 is used up: nothing was ever allowed. (§8)
- R20 An end that is learned late cuts what was open at its time there, and leaves each window that began since a moment, with the rows
      that are in it. A closed period stays as it is. (§10)
- R21 Who may go on is shown what stops them first: the member's cap, if less is left of it than of the limit. (§8)
- R22 Of several subscriptions of one owner the best pays; the others' periods rest beside it, run their time and close. The later
      start is that of the subscription, or of the window in which it was entitled again. An organization's has
      ended when the last of them has. (§4, §12)
- R23 What is said with its time was in force then, also where it repeats what was known: a change from before that time
      which is told afterwards counts beside it, and alone from when it is told. (§7, §10)

What no reading is taken for raises `Unclear`: the simulation leaves such a step out.
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from tests.simulation.figures import (
    AHEAD_MAX,
    ENDED,
    ENTITLED,
    FREE_END,
    FREE_LIMIT,
    FREE_START,
    GRACE,
    MOMENT,
    MONTHS,
    PLANS,
    RESTING,
    SMALLEST_CHARGE,
    THRESHOLD,
    ZERO,
    Figures,
    Terms,
    allowance,
    bucket,
    cents,
    last_boundary,
    legacy_days,
    next_boundary,
    refreshed,
)


class Refused(Exception):
    """What the rules refuse; `code` is the public one of the error."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Unclear(Exception):
    """The rules don't say, and no reading was taken."""


@dataclass
class Subscription:
    id: str
    owner: str
    status: str
    starts: datetime
    ends: datetime
    anchor: datetime
    every: int
    cancel: bool
    ours: bool
    customer: str | None
    stripe: str | None
    segments: list[Terms]
    began: datetime
    ended_at: datetime | None = None
    repeated_at: datetime = FREE_START
    """The latest instant of which was said, with that time, what was known."""

    @property
    def terms(self) -> Terms:
        return self.segments[-1]

    @property
    def entitled(self) -> bool:
        return self.ended_at is None and self.status in ENTITLED


@dataclass(frozen=True, slots=True)
class Charge:
    kind: str
    amount: Decimal
    credits: Decimal
    at: datetime


@dataclass
class Period:
    number: int
    entity: str
    subscription: str | None
    start: datetime
    end: datetime
    closed: bool = False
    frozen: tuple[Decimal, Decimal, bool] | None = None
    floor: tuple[Decimal, Decimal] = (ZERO, ZERO)
    baseline: Decimal = ZERO
    audit: tuple[tuple[datetime, Decimal], ...] = ()
    charges: list[Charge] = field(default_factory=list)
    billed_before_close: Decimal = ZERO
    written_off: Decimal = ZERO
    claimed: set[int] = field(default_factory=set)
    given_back: Decimal = ZERO

    @property
    def billed(self) -> Decimal:
        return sum((charge.amount + charge.credits for charge in self.charges), ZERO)

    @property
    def free(self) -> bool:
        return self.subscription is None


@dataclass(frozen=True, slots=True)
class Entry:
    key: object
    actor: str
    entity: str
    period: int
    belongs_to: int | None
    category: str
    source: str
    description: str
    amount: Decimal
    occurred: datetime
    recorded: datetime
    workspace: str | None = None
    corrects: object = None
    given_back: bool = False

    @property
    def fingerprint(self) -> tuple[object, ...]:
        return (self.actor, self.category, self.source, self.description, self.amount, self.corrects)


@dataclass(frozen=True, slots=True)
class Said:
    """One entry of a call, as the caller said it; `amount` is text."""

    actor: str
    amount: str
    source: str = "workflow"
    description: str = "gpt-4o"
    category: str = "model"
    event_key: str | None = None
    line: str | None = None
    entity: str | None = None
    period: int | None = None
    workspace: str | None = None
    workflow: str | None = None
    execution: str | None = None
    source_reference: str | None = None
    occurred_at: datetime | None = None
    attribution: "Attribution | None" = None

    @property
    def identity(self) -> tuple[object, ...]:
        """§3.2: what a key is derived from; the amount is no part of it."""
        work = (self.source_reference, self.execution, self.workflow, self.workspace, self.line)
        return (self.actor, self.source, self.category, self.description, *work)


@dataclass(frozen=True, slots=True)
class Attribution:
    actor: str
    workspace: str | None
    entity: str
    period: int


@dataclass(frozen=True, slots=True)
class Reply:
    inserted: int
    replayed: int
    amount: Decimal
    entries: tuple[Entry, ...]


@dataclass
class Request:
    """§3.6: a running total, bound to what its first flush said."""

    actor: str
    entity: str
    workspace: str | None
    source: str
    description: str
    category: str
    total: Decimal
    flushes: int = 0


@dataclass
class Organization:
    owner: str
    members: dict[str, str] = field(default_factory=dict)


@dataclass
class Grant:
    id: str
    entity: str
    amount: Decimal
    source: str
    priority: int
    expires: datetime | None
    at: datetime
    number: int
    spent: Decimal = ZERO

    @property
    def left(self) -> Decimal:
        return self.amount - self.spent


@dataclass
class Hold:
    id: str
    entity: str
    actor: str
    amount: Decimal
    expires: datetime
    state: str = "active"
    settled: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    allowed: bool
    code: str
    entity: str
    used: Decimal
    held: Decimal
    limit: Decimal

    @property
    def left(self) -> Decimal:
        return self.limit - self.used - self.held


def exact(text: str, *, signed: bool = False) -> Decimal:
    """§2: a finite decimal of at most 12 places below 10¹²; negative only where a correction says so."""
    try:
        amount = Decimal(text)
    except ArithmeticError as error:
        raise Refused("invalid_usage") from error
    if not amount.is_finite() or (amount < 0 and not signed) or abs(amount) >= 10**12:
        raise Refused("invalid_usage")
    if amount != round(amount, 12):
        raise Refused("invalid_usage")
    return amount


class Auditor:
    """The whole ledger and its billing, as lists. Every call is at `now`, which `at` moves and which never goes back."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.subscriptions: dict[str, Subscription] = {}
        self.periods: list[Period] = []
        self.entries: list[Entry] = []
        self.keys: dict[object, Entry] = {}
        self.requests: dict[str, Request] = {}
        self.organizations: dict[str, Organization] = {}
        self.workspaces: dict[str, str | None] = {}
        self.grants: list[Grant] = []
        self.spending: list[tuple[str, int, Decimal]] = []
        self.holds: dict[str, Hold] = {}
        self.limits: dict[str, Decimal] = {}
        self.caps: dict[tuple[str, str], Decimal] = {}
        self.blocks: dict[str, set[str]] = {}
        self.cancellations: list[tuple[str, str, bool]] = []
        self.alerts: list[tuple[str, int, int]] = []
        self.deleted: set[str] = set()
        self.conflicts = 0

    # ------------------------------------------------------------------------------------------------------------ the clock

    def at(self, now: datetime) -> None:
        """§10 The clock opens periods; who is paid for by an organization since then is noticed now (R8)."""
        paid = self._paid_members()
        self.now = max(now, self.now)
        self._pass_ends()
        self._begin_to_pay(paid)

    def _pass_ends(self) -> None:
        """In the order of the ends; an organization's comes first (R1)."""
        while due := [sub for sub in self.subscriptions.values() if self._is_due(sub)]:
            self._turn(min(due, key=lambda sub: (self._runs_until(sub), sub.owner.startswith("user:"), sub.id)))

    def _is_due(self, sub: Subscription) -> bool:
        return sub.ended_at is None and self._runs_until(sub) <= self.now

    def _turn(self, sub: Subscription) -> None:
        over = self._runs_until(sub)
        if over == sub.ends:
            if sub.cancel:
                self._end(sub, over)
                return
            sub.starts, sub.ends = over, next_boundary(sub.anchor, over, sub.every)
        if sub.entitled:
            self._open(sub, over, min(next_boundary(sub.anchor, over), sub.ends))

    def _runs_until(self, sub: Subscription) -> datetime:
        """The end of the running window; while a subscription rests, of Stripe's period (R16)."""
        end = self.window(sub).end
        return end if sub.entitled or end > self.now else max(end, sub.ends)

    def _wake(self, sub: Subscription) -> None:
        """R16: entitled again, the window that contains now opens."""
        last = self.window(sub)
        if sub.entitled and last.end <= self.now:
            monthly = sub.every == 1
            start = max(sub.starts if monthly else last_boundary(sub.anchor, self.now), last.end)
            sub.began = max(sub.began, start)
            self._open(sub, start, sub.ends if monthly else min(next_boundary(sub.anchor, start), sub.ends))

    def _open(self, sub: Subscription, start: datetime, end: datetime) -> None:
        if sub.entitled:
            self._add_period(sub.owner, sub.id, start, end)

    def _add_period(self, entity: str, subscription: str | None, start: datetime, end: datetime) -> Period:
        period = Period(len(self.periods), entity, subscription, start, end)
        self.periods.append(period)
        return period

    def window(self, sub: Subscription) -> Period:
        """The newest period of a subscription."""
        return next(period for period in reversed(self.periods) if period.subscription == sub.id)

    def free_period(self, entity: str) -> Period:
        """§4: every entity has one, for its lifetime."""
        found = [period for period in self.periods if period.free and period.entity == entity]
        return found[0] if found else self._add_period(entity, None, FREE_START, FREE_END)

    # -------------------------------------------------------------------------------------------------------- subscriptions

    def put_subscription(
        self,
        *,
        id: str,  # noqa: A002  the promised name
        owner: str,
        plan: str,
        status: str,
        starts_at: datetime,
        ends_at: datetime,
        seats: int | None = None,
        interval: str = "month",
        anchor: datetime | None = None,
        cancel_at_period_end: bool = False,
        effective_at: datetime | None = None,
        stripe_customer: str | None = None,
        stripe_subscription: str | None = None,
    ) -> None:
        """§10, what Stripe says now: opens, cuts, amends. Then who begins to be paid for is looked at (§12)."""
        if plan not in PLANS or plan == "free":
            raise Refused("unknown_plan")
        if interval not in MONTHS:
            raise Refused("unknown_interval")
        self._check_known(owner)
        paid = self._paid_members()
        when = min(effective_at or self.now, self.now)
        terms = Terms(when, plan, seats)
        said = Subscription(
            id, owner, status, starts_at, ends_at, anchor or starts_at, MONTHS[interval], cancel_at_period_end,
            ours=False, customer=stripe_customer, stripe=stripe_subscription, segments=[terms], began=starts_at,
        )  # fmt: skip
        ours = self.subscriptions.get(id)
        if ours is None:
            self._first_contact(said)
        else:
            self._amend(ours, said, terms, anchor_named=anchor is not None, time_named=effective_at is not None)
        self._pass_ends()
        self._begin_to_pay(paid)

    def _first_contact(self, said: Subscription) -> None:
        """R2. What is in force when a subscription becomes known was so from the start of the period that opens."""
        if said.status in ENDED or said.starts > self.now:
            raise Unclear
        start, end = said.starts, said.ends
        if said.every > 1:
            at = min(self.now, said.ends - timedelta(microseconds=1))
            start = max(said.starts, last_boundary(said.anchor, at))
            end = min(said.ends, next_boundary(said.anchor, start))
        said.segments = [replace(said.terms, at=start)]
        self.subscriptions[said.id] = said
        self._open(said, start, end)

    def _check_alone(self, owner: str, start: datetime) -> None:
        """Whose credits go with a subscription that passes on is said of the only one alone."""
        taken = [period for period in self.periods if period.entity == owner and not period.free]
        if any(period.end > start for period in taken) or any(self._running(sub, owner) for sub in self._all()):
            raise Unclear

    def _all(self) -> list[Subscription]:
        return list(self.subscriptions.values())

    def _running(self, sub: Subscription, owner: str) -> bool:
        return sub.owner == owner and sub.ended_at is None

    def _amend(
        self, ours: Subscription, said: Subscription, terms: Terms, *, anchor_named: bool, time_named: bool
    ) -> None:
        """§10 Cuts, and Stripe's word amends; one kind of change at a time, else `Unclear`."""
        current = self.window(ours)
        crossing = terms.has_overage != ours.terms.has_overage and terms.at > current.start
        later = said.starts >= current.start and said.starts != ours.starts
        moved = said.starts == ours.starts and (said.ends != ours.ends or (anchor_named and said.anchor != ours.anchor))
        self._check_clear(ours, said, terms, current, kinds=(later, moved, crossing or said.owner != ours.owner))
        if said.status in ENDED:
            running = [
                p for p in self.periods if (p.subscription, p.entity) == (ours.id, ours.owner) and p.end > terms.at
            ]
            if any(period.start == self.now for period in running):
                raise Unclear
            for period in running:
                self._cut(period, max(terms.at, period.start + MOMENT))
            ours.status = said.status
            self._end(ours, terms.at)
            return
        if crossing or said.owner != ours.owner:
            self._pass_on(ours, said.owner, terms.at)
        elif later:
            self._anchor_anew(ours, said)
        elif moved:
            ours.ends = max(said.ends, self.now)
            current.end = ours.ends if current.end > self.now else current.end
            ours.anchor = said.anchor if anchor_named else ours.ends
        self._restate(ours, said, terms, time_named=time_named)

    def _check_clear(
        self, ours: Subscription, said: Subscription, terms: Terms, current: Period, *, kinds: Sequence[bool]
    ) -> None:
        stale = said.starts < current.start and said.starts != ours.starts
        ending = said.status in ENDED
        cuts = kinds[1] or kinds[2] or said.starts > current.start
        if ours.ended_at is not None or stale or sum(kinds) + ending > 1:
            raise Unclear
        late = terms.at < ours.terms.at or terms.at < current.start or (cuts and terms.at <= current.start)
        if late and not ending:
            raise Unclear
        if said.starts > self.now or (said.every != ours.every and not kinds[0]) or (kinds[1] and ours.every > 1):
            raise Unclear
        if ours.ours and not said.cancel and not ending:
            raise Unclear
        if kinds[0] and said.starts < ours.terms.at:
            raise Unclear
        if said.owner != ours.owner:
            if not ours.entitled or not said.owner.startswith("organization:") or not ours.owner.startswith("user:"):
                raise Unclear
            self._check_alone(said.owner, terms.at)
            if any(self._running(sub, ours.owner) for sub in self._all() if sub is not ours):
                raise Unclear

    def _cut(self, period: Period, at: datetime) -> None:
        """§10. What the allowance has risen to stays (R18)."""
        if not period.closed:
            included, a_day, _ = self.allowance_of(period)
            period.floor = (included, a_day)
            period.end = min(period.end, at)

    def _pass_on(self, ours: Subscription, owner: str, when: datetime) -> None:
        """§10 a cut inside a subscription: to another owner (whose are the spendable credits then, §12), or across overage and none."""
        current = self.window(ours)
        end = current.end
        self._cut(current, when)
        for grant in self._spendable(ours.owner, self.now):
            grant.entity = owner
        if owner != ours.owner:
            ours.owner, ours.began = owner, when
        self._open(ours, when, end)

    def _anchor_anew(self, ours: Subscription, said: Subscription) -> None:
        """§10 a start later than ours cuts, unless a cut has been made there before: then only the end follows."""
        current = self.window(ours)
        ours.starts, ours.ends, ours.anchor, ours.every = said.starts, said.ends, said.anchor, said.every
        end = said.ends if said.every == 1 else min(said.ends, next_boundary(said.anchor, said.starts))
        if said.starts == current.start:
            current.end = max(end, self.now)
            return
        self._cut(current, said.starts)
        self._open(ours, said.starts, end)

    def _restate(self, ours: Subscription, said: Subscription, terms: Terms, *, time_named: bool) -> None:
        ours.status = said.status
        ours.customer, ours.stripe = said.customer or ours.customer, said.stripe or ours.stripe
        if not ours.ours:
            ours.cancel = said.cancel
        if (terms.plan, terms.counted) != (ours.terms.plan, ours.terms.counted):
            at_start = terms.at == self.window(ours).start  # R4; at any other instant both count (R18)
            kept = [old for old in ours.segments if old.at < terms.at or not at_start]
            repeated = [replace(ours.terms, at=ours.repeated_at), replace(terms, at=self.now)]  # R23
            ours.segments = [*kept, terms, *(repeated if ours.repeated_at > terms.at else ())]
        elif time_named:
            ours.repeated_at = max(ours.repeated_at, terms.at)
        self._wake(ours)

    def _end(self, sub: Subscription, when: datetime) -> None:
        """§12 The end of an organization's subscription, of several the last one's, takes back cancellations of ours."""
        sub.ended_at = when
        kind, name = sub.owner.split(":", 1)
        if kind == "organization" and not any(self._running(each, sub.owner) for each in self._all()):
            for user in self.organizations[name].members:
                self._take_back(user)

    # ------------------------------------------------------------------------------------------------------------- who pays

    def _check_known(self, entity: str) -> None:
        kind, name = entity.split(":", 1)
        if kind == "organization" and name not in self.organizations:
            raise Refused("unknown_entity")

    def paying_subscription(self, entity: str) -> Subscription | None:
        """An entity's own entitled subscription; of several the best (§4)."""
        return self._best(sub for sub in self._all() if sub.owner == entity and sub.entitled and sub.starts <= self.now)

    def _best(self, subs: Iterable[Subscription]) -> Subscription | None:
        """§4: the highest rank, the organization's, the larger included, the later start, the id."""
        return max(sorted(subs, key=lambda sub: sub.id), key=self._rank, default=None)

    def _rank(self, sub: Subscription) -> tuple[int, bool, Decimal, datetime]:
        plan = PLANS[sub.terms.plan]
        return (plan.rank, sub.owner.startswith("organization:"), sub.terms.included, sub.began)

    def payer(self, actor: str, workspace: str | None = None) -> str:
        """§4: a workspace's payer; else the best subscription of the person and their organization; else the person."""
        if workspace is not None:
            if workspace not in self.workspaces:
                raise Refused("unknown_entity")
            if (named := self.workspaces[workspace]) is not None:
                return named
        owners = [f"user:{actor}"]
        owners += [f"organization:{name}" for name, each in self.organizations.items() if actor in each.members]
        found = [sub for owner in owners if (sub := self.paying_subscription(owner)) is not None]
        best = self._best(found)
        return best.owner if best else f"user:{actor}"

    def current(self, entity: str) -> Period:
        """§4: the running period of the entity's own entitled subscription, else its free one."""
        sub = self.paying_subscription(entity)
        return self.window(sub) if sub else self.free_period(entity)

    def resolve(self, actor: str, workspace: str | None = None) -> Attribution:
        """§4: resolved before work begins; checked and not resolved again when it is given."""
        entity = self.payer(actor, workspace)
        return Attribution(actor, workspace, entity, self.current(entity).number)

    # ------------------------------------------------------------------------------------------------------------ recording

    def record(self, calls: Iterable[Said]) -> Reply:
        """§3, all or nothing: what can't be is refused first, then keys are answered, then the rest is placed."""
        said = list(calls)
        for each in said:
            self._check_entry(each)
        entries, new = [], 0
        kept = (list(self.entries), dict(self.keys))
        try:
            for key, each in zip(_keys_of(said), said, strict=True):
                amount = exact(each.amount)
                if amount == 0:
                    continue
                first = self.keys.get(key)
                entries.append(self._replay(first, each) if first else self._insert(key, each, amount))
                new += first is None
        except Refused:
            self.entries, self.keys = kept
            raise
        written = [entry for entry in entries if entry not in kept[0]]
        amount = sum((entry.amount for entry in set(written)), ZERO)
        return Reply(new, len(entries) - new, amount, tuple(entries))

    def _check_entry(self, said: Said) -> None:
        exact(said.amount)
        if said.event_key is None and said.source_reference is None and said.execution is None:
            raise Refused("invalid_usage")

    def _check_time(self, said: Said) -> None:
        if said.occurred_at is not None and said.occurred_at > self.now + AHEAD_MAX:
            raise Refused("invalid_usage")

    def _replay(self, first: Entry, said: Said) -> Entry:
        """§3.3 the same content, and nothing named that differs; of a late entry the period is its stamp."""
        now = replace(first, actor=said.actor, category=said.category, source=said.source)
        now = replace(now, description=said.description, amount=exact(said.amount), corrects=None)
        stamp = first.period if first.belongs_to is None else first.belongs_to
        moved = said.entity not in {None, first.entity} or said.period not in {None, stamp}
        if now.fingerprint != first.fingerprint or moved:
            self.conflicts += 1
            raise Refused("key_conflict")
        return first

    def _insert(self, key: object, said: Said, amount: Decimal) -> Entry:
        self._check_time(said)
        entity, named = self._payer_of(said)
        occurred = min(said.occurred_at or self.now, self.now)
        return self._write(key, said, entity, amount, self.place(entity, occurred, named), occurred)

    def _payer_of(self, said: Said) -> tuple[str, int | None]:
        """§3.8 who pays: attributed, named, or resolved now; given together they must agree. And the period named."""
        given = said.attribution
        if given is not None:
            agree = said.actor == given.actor and said.workspace in {None, given.workspace}
            if not agree or said.entity not in {None, given.entity} or said.period not in {None, given.period}:
                raise Refused("invalid_usage")
            return given.entity, given.period
        if said.workspace is not None and said.workspace not in self.workspaces:
            raise Refused("invalid_usage")
        payer = self.payer(said.actor, said.workspace)
        if said.entity is None:
            return payer, said.period
        kind, name = said.entity.split(":", 1)
        unknown = kind == "organization" and name not in self.organizations
        disagree = said.workspace is not None and self.workspaces[said.workspace] not in {None, said.entity}
        if unknown or disagree:
            raise Refused("invalid_usage")
        return said.entity, said.period

    def prepare(self, said: Said) -> Entry:
        """An entry that is recorded in a transaction which is still open: nobody sees it, but its place is decided."""
        entries, keys = list(self.entries), dict(self.keys)
        self.record([said])
        entry = self.keys[said.event_key]
        self.entries, self.keys = entries, keys
        return entry

    def appear(self, entry: Entry) -> None:
        """§10: what becomes visible only after the seal is late. It is booked to the open period; its stamp stays."""
        stamped = self.periods[entry.period]
        if stamped.closed:
            entry = replace(entry, period=self.current(entry.entity).number, belongs_to=stamped.number)
        self.entries.append(entry)
        self.keys[entry.key] = entry

    def _write(
        self,
        key: object,
        said: Said,
        entity: str,
        amount: Decimal,
        place: tuple[Period, int | None],
        occurred: datetime,
    ) -> Entry:
        period, belongs_to = place
        entry = Entry(
            key, said.actor, entity, period.number, belongs_to, said.category, said.source, said.description, amount,
            occurred, self.now, said.workspace,
        )  # fmt: skip
        self.entries.append(entry)
        self.keys[key] = entry
        return entry

    def place(self, entity: str, occurred: datetime, named: int | None = None) -> tuple[Period, int | None]:
        """§3.8 (a) (b) (c), and late: the period, and the closed one that an entry belongs to."""
        if named is not None:
            if named >= len(self.periods) or self.periods[named].entity != entity:
                raise Refused("invalid_usage")
            found = self.periods[named]
        else:
            containing = [p for p in self._dated(entity) if p.start <= occurred < p.end and self._takes(p)]
            found = self.best_period(containing) if containing else self.free_period(entity)
        return (self.current(entity), found.number) if found.closed else (found, None)

    def best_period(self, among: Iterable[Period]) -> Period:
        by_subscription = {self.subscriptions[period.subscription or ""].id: period for period in among}
        best = self._best(self.subscriptions[name] for name in by_subscription)
        assert best is not None
        return by_subscription[best.id]

    def _dated(self, entity: str) -> list[Period]:
        return [period for period in self.periods if period.entity == entity and not period.free]

    def _takes(self, period: Period) -> bool:
        """R5: not while the subscription rests."""
        sub = self.subscriptions[period.subscription or ""]
        return period.closed or sub.status not in RESTING or sub.owner != period.entity

    def record_cumulative(self, request: str, said: Said) -> Decimal:
        """§3.6 keeps the maximum; bound to its first rise; each delta is placed by its own time (R17)."""
        total = exact(said.amount)
        if total == 0:
            return ZERO
        known = self.requests.get(request)
        if known is None:
            self._check_time(said)
            entity, _ = self._payer_of(said)
            known = Request(said.actor, entity, said.workspace, said.source, said.description, said.category, ZERO)
            self.requests[request] = known
        self._check_bound(known, said)
        rise = total - known.total
        if rise <= 0:
            return ZERO
        self._check_time(said)
        occurred = min(said.occurred_at or self.now, self.now)
        place = self.place(known.entity, occurred)
        known.total, known.flushes = total, known.flushes + 1
        self._write(("cumulative", request, known.flushes), said, known.entity, rise, place, occurred)
        return rise

    def _check_bound(self, known: Request, said: Said) -> None:
        same = (known.actor, known.source, known.description) == (said.actor, said.source, said.description)
        if not same or said.entity not in {None, known.entity} or said.workspace not in {None, known.workspace}:
            self.conflicts += 1
            raise Refused("key_conflict")

    def correct(self, entry: object, amount_text: str, key: str) -> Entry | None:
        """§3.7 a row that points at the entry, booked with it or, if that is closed, in the open period."""
        amount = exact(amount_text, signed=True)
        original = self.keys.get(entry)
        if original is None:
            raise Refused("unknown_entry")
        if amount == 0:
            return None
        said = replace(original, key=key, amount=amount, recorded=self.now, corrects=original.key)
        first = self.keys.get(key)
        if first is not None:
            if first.fingerprint != said.fingerprint:
                self.conflicts += 1
                raise Refused("key_conflict")
            return first
        if original.corrects is not None or self._corrected(original) + amount < 0:
            raise Refused("correction_refused")
        period = self.periods[original.period]
        if period.closed:
            home = self.current(original.entity)
            said = replace(said, period=home.number, belongs_to=period.number, given_back=amount < 0)
        else:
            said = replace(said, belongs_to=None)
        before = self.overage_in_hindsight(period)
        self.entries.append(said)
        self.keys[key] = said
        if period.closed and amount < 0:
            self._give_back(period, before)
        return said

    def _corrected(self, original: Entry) -> Decimal:
        rows = [entry.amount for entry in self.entries if entry.corrects == original.key]
        return original.amount + sum(rows, ZERO)

    def _give_back(self, period: Period, before: Decimal) -> None:
        """§3.7 min(billed − given back so far, cents(overage before)) − cents(overage after), of a closed period."""
        after = cents(self.overage_in_hindsight(period))
        self._grant_back(period, min(period.billed - period.given_back, cents(before)) - after)

    def _grant_back(self, period: Period, amount: Decimal) -> None:
        if amount > 0:
            period.given_back += amount
            self._add_grant(period.entity, amount, f"correction {len(self.grants)}", "correction", 50, None)

    # -------------------------------------------------------------------------------------------------------------- figures

    def allowance_of(self, period: Period) -> tuple[Decimal, Decimal, bool]:
        """§7 included and refresh a day, each the largest of the period, frozen by the close; and whether there is overage."""
        if period.frozen is not None:
            return period.frozen
        if period.subscription is None:
            return ZERO, ZERO, False
        segments = self.subscriptions[period.subscription].segments
        included, a_day, has_overage = allowance(segments, period.start, period.end)
        return max(included, period.floor[0]), max(a_day, period.floor[1]), has_overage

    def figures(self, period: Period) -> Figures:
        """§5: what is booked in the period."""
        return self._figures(period, [entry for entry in self.entries if entry.period == period.number])

    def _figures(self, period: Period, rows: Sequence[Entry]) -> Figures:
        included, a_day, has_overage = self.allowance_of(period)
        days = legacy_days(period.start, period.end, period.baseline, period.audit)
        by_actor: dict[str, Decimal] = {}
        for row in rows:
            by_actor[row.actor] = by_actor.get(row.actor, ZERO) + row.amount
            if not row.given_back:
                day = bucket(period.start, period.end, row.occurred)
                days[day] = days.get(day, ZERO) + row.amount
        total = period.baseline + sum((row.amount for row in rows), ZERO)
        given_back = sum((row.amount for row in rows if row.given_back), ZERO)
        refresh = refreshed(days, a_day) if a_day and not period.free else ZERO
        effective = max(ZERO, total - given_back - refresh)
        overage = max(ZERO, effective - included) if has_overage else ZERO
        return Figures(total, len(rows), given_back, refresh, effective, included, overage, by_actor)

    def overage_in_hindsight(self, period: Period, *, without_negative: bool = False) -> Decimal:
        """§3.7 the overage with all corrections on their entries' days (R7), or without the negative ones."""
        booked = {entry.key: entry for entry in self.entries if entry.period == period.number}
        rows = list(booked.values())
        rows += [replace(e, given_back=False) for e in self.entries if e.corrects in booked and e.key not in booked]
        if without_negative:
            rows = [row for row in rows if row.corrects is None or row.amount > 0 or row.given_back]
        return self._figures(period, rows).overage

    def missing(self, period: Period, overage: Decimal) -> Decimal:
        """What an entry of now has to cost for the period's overage to become this; not above 0: it is there, or there is none."""
        rows = [entry for entry in self.entries if entry.period == period.number]
        if not self.allowance_of(period)[2]:
            return ZERO
        amount = ZERO
        for _ in range(4):
            trial = Entry(None, "", period.entity, period.number, None, "", "", "", amount, self.now, self.now)
            found = self._figures(period, [*rows, trial])
            amount += overage + found.included - (found.total - found.given_back - found.refresh)
        return amount

    def used(self, entity: str) -> Decimal:
        return self.figures(self.current(entity)).effective

    def limit(self, entity: str) -> Decimal:
        """§8: max(stored, included + credits) on a plan with overage; free is fixed; enterprise is what is stored."""
        period = self.current(entity)
        included, _, has_overage = self.allowance_of(period)
        if period.free:
            return FREE_LIMIT if entity.startswith("user:") else ZERO
        stored = self.limits.get(entity, ZERO)
        if not has_overage:
            return stored
        credits_ = self.balance(entity) + sum((charge.credits for charge in period.charges), ZERO)
        return max(stored, included + credits_)

    def baseline(self, entity: str, amount: str, audit: Sequence[tuple[datetime, str]] = ()) -> None:
        """§13 what a legacy counter held of the running period, and the audit rows behind it."""
        period = self.current(entity)
        period.baseline = exact(amount)
        period.audit = tuple((at, Decimal(each)) for at, each in audit)

    # ------------------------------------------------------------------------------------------------------------ admission

    def check(self, actor: str, workspace: str | None = None) -> Admission:
        """§8 in its order: the actor's block, the payer's, the member's cap, the limit."""
        entity = self.payer(actor, workspace)
        if "administrative" in self.blocks.get(f"user:{actor}", set()):
            return Admission(False, "actor_blocked", f"user:{actor}", ZERO, ZERO, ZERO)
        if self.blocks.get(entity):
            return Admission(False, "entity_blocked", entity, ZERO, ZERO, ZERO)
        capped = self._check_cap(actor, entity)
        if capped is not None and not capped.allowed:
            return capped
        used, held, limit = self.used(entity), self.held(entity), self.limit(entity)
        allowed = used + held < limit
        asked = Admission(allowed, "allowed" if allowed else "limit_reached", entity, used, held, limit)
        return capped if allowed and capped is not None and capped.left < asked.left else asked

    def _check_cap(self, actor: str, entity: str) -> Admission | None:
        kind, name = entity.split(":", 1)
        cap = self.caps.get((name, actor)) if kind == "organization" else None
        if cap is None:
            return None
        used = self.figures(self.current(entity)).by_actor.get(actor, ZERO)
        held = self.held(entity, actor)
        allowed = used + held < cap
        return Admission(allowed, "allowed" if allowed else "member_cap_reached", entity, used, held, cap)

    def held(self, entity: str, actor: str | None = None) -> Decimal:
        """§8 active holds of an entity, or of one member on it."""
        found = [hold for hold in self.holds.values() if hold.entity == entity and self.state_of(hold) == "active"]
        return sum((hold.amount for hold in found if actor in {None, hold.actor}), ZERO)

    def state_of(self, hold: Hold) -> str:
        return "expired" if hold.state == "active" and hold.expires <= self.now else hold.state

    def hold(self, actor: str, amount_text: str, hold_id: str, ttl_s: int, workspace: str | None = None) -> Admission:
        """§8 granted if everything still fits; the same id again is the same hold."""
        amount = exact(amount_text)
        known = self.holds.get(hold_id)
        if known is not None:
            if (known.amount, known.actor) != (amount, actor):
                raise Refused("key_conflict")
            return Admission(True, "allowed", known.entity, ZERO, ZERO, ZERO)
        found = self.check(actor, workspace)
        if not found.allowed:
            return found
        cap = self._check_cap(actor, found.entity)
        if cap is not None and amount > cap.left:
            return replace(cap, allowed=False, code="member_cap_reached")
        used, held, limit = self.used(found.entity), self.held(found.entity), self.limit(found.entity)
        if used + held + amount > limit:
            return Admission(False, "limit_reached", found.entity, used, held, limit)
        self.holds[hold_id] = Hold(hold_id, found.entity, actor, amount, self.now + timedelta(seconds=ttl_s))
        return found

    def settle(self, hold_id: str, amount_text: str, source: str, description: str, event_key: str) -> str:
        """§8 once, at the real cost, to the hold's entity; a dead hold's usage is recorded all the same."""
        hold = self.holds.get(hold_id)
        if hold is None:
            raise Refused("unknown_hold")
        amount = exact(amount_text)
        if hold.settled is not None:
            if hold.settled != amount:
                raise Refused("key_conflict")
            return "replayed"
        if amount > 0:
            said = Said(hold.actor, amount_text, source, description, event_key=event_key, entity=hold.entity)
            self.record([said])
        state, hold.settled = self.state_of(hold), amount
        if state == "active":
            hold.state = "settled"
            return "settled"
        hold.state = state
        return state

    def release(self, hold_id: str) -> None:
        hold = self.holds.get(hold_id)
        if hold is None:
            raise Refused("unknown_hold")
        if self.state_of(hold) == "active":
            hold.state = "released"

    def set_limit(self, entity: str, amount_text: str, by: str | None = None) -> None:
        """§8 Edits."""
        amount = cents(exact(amount_text))
        sub = self.paying_subscription(entity)
        if sub is None or sub.status != "active" or self.blocks.get(entity):
            raise Refused("limit_refused")
        if by is not None and (not sub.terms.has_overage or not self._may_edit(entity, by)):
            raise Refused("limit_refused")
        if amount < sub.terms.included:
            raise Refused("limit_refused")
        self.limits[entity] = amount

    def _may_edit(self, entity: str, by: str) -> bool:
        kind, name = entity.split(":", 1)
        if kind == "user":
            return name == by
        return self.organizations[name].members.get(by) in {"owner", "admin"}

    def set_member_cap(self, organization: str, user: str, amount_text: str | None) -> None:
        if user not in self._organization(organization).members:
            raise Refused("membership_refused")
        self.caps.pop((organization, user), None)
        if amount_text is not None:
            self.caps[organization, user] = exact(amount_text)

    def block(self, entity: str, reason: str) -> None:
        self.blocks.setdefault(entity, set()).add(reason)

    def unblock(self, entity: str, reason: str) -> None:
        self.blocks.get(entity, set()).discard(reason)

    # -------------------------------------------------------------------------------------------------------------- credits

    def grant(
        self,
        entity: str,
        amount_text: str,
        grant_id: str,
        source: str = "promotion",
        priority: int = 50,
        expires: datetime | None = None,
    ) -> None:
        """§9 whole cents above 0, once; a purchase is 10.00 … 1000.00."""
        amount = exact(amount_text)
        low, high = (10, 1000) if source == "purchase" else (Decimal("0.01"), 10**12)
        if amount != cents(amount) or not low <= amount <= high:
            raise Refused("invalid_usage")
        self._check_known(entity)
        known = [grant for grant in self.grants if grant.id == grant_id]
        if not known:
            self._add_grant(entity, amount, grant_id, source, priority, expires)
        elif (known[0].entity, known[0].amount) != (entity, amount):
            raise Refused("key_conflict")

    def _add_grant(
        self, entity: str, amount: Decimal, grant_id: str, source: str, priority: int, expires: datetime | None
    ) -> None:
        grant = Grant(grant_id, entity, amount, source, priority, expires, self.now, len(self.grants))
        self.grants.append(grant)

    def _spendable(self, entity: str, at: datetime) -> list[Grant]:
        """In the order of spending: priority, then expiry (none last), then age, then id."""
        found = [grant for grant in self.grants if grant.entity == entity and grant.left > 0]
        found = [grant for grant in found if grant.expires is None or at < grant.expires]
        return sorted(found, key=lambda each: (each.priority, each.expires or FREE_END, each.at, each.id))

    def balance(self, entity: str) -> Decimal:
        return sum((grant.left for grant in self._spendable(entity, self.now)), ZERO)

    def _spend(self, grants: Sequence[Grant], amount: Decimal, period: Period) -> None:
        for grant in grants:
            part = min(grant.left, amount)
            grant.spent += part
            amount -= part
            if part:
                self.spending.append((grant.id, period.number, part))

    # -------------------------------------------------------------------------------------------------------------- billing

    def bill_threshold(self, entity: str) -> tuple[Decimal, Decimal, str]:
        """§9 Threshold: charged, credits, and why not."""
        sub = self.paying_subscription(entity)
        period = self.current(entity)
        if sub is None or sub.status != "active":
            return ZERO, ZERO, "not_active"
        if self.blocks.get(entity):
            return ZERO, ZERO, "blocked"
        if not sub.terms.has_overage:
            return ZERO, ZERO, "no_overage"
        if not self._addressable(period):
            return ZERO, ZERO, "not_addressable"
        unbilled = cents(self.figures(period).overage) - period.billed
        if unbilled < THRESHOLD:
            return ZERO, ZERO, "below_threshold"
        grants = self._spendable(entity, self.now)
        paid = min(unbilled, sum((grant.left for grant in grants), ZERO))
        rest = unbilled - paid
        charged = rest if rest >= SMALLEST_CHARGE else ZERO
        self._spend(grants, paid, period)
        period.charges.append(Charge("threshold", charged, paid, self.now))
        return charged, paid, "billed"

    def _addressable(self, period: Period) -> bool:
        """The ids of this period's subscription are known; an organization has an owner (always, here)."""
        sub = self.subscriptions[period.subscription or ""]
        return sub.customer is not None and sub.stripe is not None

    def sweep(self) -> None:
        """Whatever is due: closes, oldest first, then thresholds (R9)."""
        for entity in sorted({period.entity for period in self.periods}):
            for period in sorted(self._dated(entity), key=lambda each: each.end):
                if not period.closed and (period.end + GRACE > self.now or not self._close(period)):
                    break
        for entity in sorted({sub.owner for sub in self._all()}):
            self.bill_threshold(entity)
        for entity in sorted({period.entity for period in self.periods} - self.deleted):
            self.alert(entity)

    def alert(self, entity: str) -> None:
        """§8 80 % and 100 %, each once a period; both armed again below 70 %; a jump over both says the 100 % one only (R19)."""
        period, used, limit = self.current(entity), self.used(entity), self.limit(entity)
        reached = [mark for mark in (80, 100) if limit > 0 and used * 100 >= limit * mark]
        if used * 100 < limit * 70:
            period.claimed.clear()
        elif reached and reached[-1] not in period.claimed:
            self.alerts.append((entity, period.number, reached[-1]))
            period.claimed |= set(reached)

    def _outcome(self, period: Period) -> tuple[Decimal, list[Grant], Decimal, Decimal]:
        """§10 due, the grants that may pay, what they pay, and the rest."""
        due = max(ZERO, cents(self.figures(period).overage) - period.billed)
        grants = self._spendable(period.entity, period.end)
        paid = min(due, sum((grant.left for grant in grants), ZERO))
        return due, grants, paid, due - paid

    def _close(self, period: Period) -> bool:
        """§10: False if it is deferred. Figures are frozen, surplus that corrections made is given back (§3.7)."""
        _, grants, paid, rest = self._outcome(period)
        if rest >= SMALLEST_CHARGE and not self._addressable(period):
            return False
        period.billed_before_close = period.billed
        over = cents(self.figures(period).overage)
        surplus = min(period.billed, cents(self.overage_in_hindsight(period, without_negative=True))) - over
        period.frozen, period.closed = self.allowance_of(period), True
        self._spend(grants, paid, period)
        if rest < SMALLEST_CHARGE:
            period.written_off, rest = rest, ZERO
        if rest or paid:
            period.charges.append(Charge("final", rest, paid, self.now))
        self._grant_back(period, surplus)
        return True

    def broken_closes(self) -> list[Period]:
        """I7, of every closed period: [] or those that don't add up."""
        closed = [period for period in self.periods if period.closed]
        return [p for p in closed if p.billed + p.written_off != max(self._sealed_overage(p), p.billed_before_close)]

    def contradictions(self) -> list[str]:
        """S98, of the auditor's own books: [] or what can't be."""
        found = [f"I7 of period {period.number}" for period in self.broken_closes()]
        for entity in {period.entity for period in self.periods}:
            dated = sorted(self._dated(entity), key=lambda each: (each.subscription, each.start))
            series = pairwise(dated)
            found += [
                f"overlap at {b.start}" for a, b in series if a.end > b.start and a.subscription == b.subscription
            ]
            found += [f"empty period at {each.start}" for each in dated if each.start >= each.end]
        strangers = [entry for entry in self.entries if self.periods[entry.period].entity != entry.entity]
        found += [f"{entry.key} lies with another entity" for entry in strangers]
        originals = [entry for entry in self.entries if entry.corrects is None]
        found += [f"{entry.key} is below zero" for entry in originals if self._corrected(entry) < 0]
        for period in self.periods:
            paid = sum((amount for _, number, amount in self.spending if number == period.number), ZERO)
            if paid != sum((charge.credits for charge in period.charges), ZERO) or period.given_back > period.billed:
                found.append(f"credits of period {period.number}")
        found += [f"grant {grant.id}" for grant in self.grants if not 0 <= grant.spent <= grant.amount]
        return found

    def _sealed_overage(self, period: Period) -> Decimal:
        return cents(self.figures(period).overage)

    # -------------------------------------------------------------------------------------------------------- organizations

    def _organization(self, name: str) -> Organization:
        if name not in self.organizations:
            raise Refused("unknown_entity")
        return self.organizations[name]

    def _organization_of(self, user: str) -> str | None:
        return next((name for name, each in self.organizations.items() if user in each.members), None)

    def put_organization(self, name: str, owner: str) -> None:
        if name in self.organizations:
            raise Unclear
        if self._organization_of(owner) is not None:
            raise Refused("membership_refused")
        self.organizations[name] = Organization(owner, {owner: "owner"})

    def add_member(self, name: str, user: str, role: str = "member") -> None:
        """§12 one organization a user; joining one that then pays sets the personal subscription to cancel."""
        organization = self._organization(name)
        there = self._organization_of(user)
        if there not in {None, name}:
            raise Refused("membership_refused")
        paid = self._paid_members()
        organization.members[user] = "owner" if organization.owner == user else role
        self._begin_to_pay(paid)

    def remove_member(self, name: str, user: str) -> None:
        organization = self._organization(name)
        if user not in organization.members or user == organization.owner:
            raise Refused("membership_refused")
        del organization.members[user]
        self.caps.pop((name, user), None)
        self._take_back(user)

    def transfer_ownership(self, name: str, user: str) -> None:
        """Who is asked, not one amount."""
        organization = self._organization(name)
        if user not in organization.members:
            raise Refused("membership_refused")
        organization.members[organization.owner] = "admin"
        organization.members[user] = "owner"
        organization.owner = user

    def put_workspace(self, name: str, payer: str | None) -> None:
        if payer is not None:
            self._check_known(payer)
        self.workspaces[name] = payer

    def _paid_members(self) -> set[tuple[str, str]]:
        everyone = [(name, user) for name, each in self.organizations.items() for user in each.members]
        return {(name, user) for name, user in everyone if self.payer(user) == f"organization:{name}"}

    def _begin_to_pay(self, before: set[tuple[str, str]]) -> None:
        """R8. Our doing is noted, and one outbox row a change is due."""
        for _, user in sorted(self._paid_members() - before):
            for sub in sorted(self._all(), key=lambda each: each.id):
                if sub.owner == f"user:{user}" and sub.ended_at is None and not sub.cancel:
                    sub.cancel = sub.ours = True
                    self.cancellations.append((sub.owner, sub.id, True))

    def _take_back(self, user: str) -> None:
        for sub in sorted(self._all(), key=lambda each: each.id):
            if sub.owner == f"user:{user}" and sub.ours and sub.ended_at is None:
                sub.cancel = sub.ours = False
                self.cancellations.append((sub.owner, sub.id, False))

    def delete_user(self, user: str) -> None:
        """§12 ends the subscription first (a cut); refused while money can't be addressed, and for an owner."""
        self._check_settled(f"user:{user}")
        if any(each.owner == user for each in self.organizations.values()):
            raise Refused("membership_refused")
        self._delete(f"user:{user}")
        for each in self.organizations.values():
            each.members.pop(user, None)

    def delete_organization(self, name: str) -> None:
        """§12 the members fall back as on leaving."""
        organization = self._organization(name)
        self._check_settled(f"organization:{name}")
        self._delete(f"organization:{name}")
        for user in organization.members:
            self._take_back(user)
        del self.organizations[name]

    def _check_settled(self, entity: str) -> None:
        if any(self.window(sub).start == self.now for sub in self._all() if self._running(sub, entity)):
            raise Unclear
        deepcopy(self)._close_for_good(entity)

    def _delete(self, entity: str) -> None:
        for sub in [sub for sub in self._all() if self._running(sub, entity)]:
            self._cut(self.window(sub), self.now)
            self._end(sub, self.now)
        self.deleted.add(entity)

    def _close_for_good(self, entity: str) -> None:
        """R15, on a copy."""
        unclosed = [period for period in self._dated(entity) if not period.closed]
        for period in unclosed:
            self._cut(period, self.now)
        for period in sorted(unclosed, key=lambda each: each.end):
            _, grants, paid, rest = self._outcome(period)
            if rest >= SMALLEST_CHARGE and not self._addressable(period):
                raise Refused("not_addressable")
            self._spend(grants, paid, period)


def _keys_of(said: Sequence[Said]) -> list[object]:
    """§3.2: the caller's name, or the identity numbered in order of amount, zeros included."""
    keys: list[object] = [each.event_key for each in said]
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, each in enumerate(said):
        if each.event_key is None:
            groups.setdefault(each.identity, []).append(index)
    for identity, members in groups.items():
        for ordinal, index in enumerate(sorted(members, key=lambda each: exact(said[each].amount))):
            keys[index] = (identity, ordinal)
    return keys
