"""An auditor behind the Book's calls, so that the play itself can be tried: an intact one must agree, a broken one must be noticed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

from meterbook import MeterbookError, Recorded, RecordedEntry, Usage
from tests.conftest import Clock
from tests.simulation.auditor import Attribution, Auditor, Entry, Period, Refused, Said
from tests.simulation.figures import percent_of, status_of


class Denied(MeterbookError):
    """A hold that is not granted."""


@contextmanager
def refusals() -> Iterator[None]:
    """The auditor's refusals as the Book's errors."""
    try:
        yield
    except Refused as refused:
        error = MeterbookError(refused.code)
        error.code = refused.code
        raise error from refused


class Mirror:
    """The calls that the play makes, in the promised shapes. One history each."""

    def __init__(self, make: Callable[[datetime], Auditor], clock: Clock) -> None:
        self._make = make
        self._clock = clock
        self._made: Auditor | None = None

    @property
    def _now(self) -> Auditor:
        if self._made is None:
            self._made = self._make(self._clock.now)
        self._made.at(self._clock.now)
        return self._made

    # ---------------------------------------------------------------------------------------------------------- recording

    async def record_many(self, entries: Sequence[Usage]) -> Recorded:
        known = list(self._now.entries)
        with refusals():
            reply = self._now.record([self._said(usage) for usage in entries])
        return Recorded(reply.inserted, reply.replayed, reply.amount, _shown(reply.entries, known))

    def _said(self, usage: Usage) -> Said:
        given = cast("Attribution | None", usage.attribution)
        return Said(
            usage.actor, str(usage.amount), usage.source, usage.description, usage.category, usage.event_key, usage.line,
            usage.entity, usage.period, usage.workspace, usage.workflow, usage.execution, usage.source_reference,
            usage.occurred_at, given,
        )  # fmt: skip

    async def record_cumulative(self, actor: str, *, request: str, total: str, **said: Any) -> Recorded:
        before = list(self._now.entries)
        with refusals():
            rise = self._now.record_cumulative(request, Said(actor, total, **said))
        written = self._now.entries[len(before) :]
        return Recorded(len(written), 0, rise, _shown(written, before))

    async def correct(self, entry: str, *, amount: str, reason: str, event_key: str) -> Recorded:
        assert reason
        before = list(self._now.entries)
        original = next(each.key for each in before if _id(each.key) == entry)
        with refusals():
            made = self._now.correct(original, amount, event_key)
        return Recorded(1, 0, Decimal(amount), _shown([] if made is None else [made], before))

    async def resolve(self, actor: str, workspace: str | None = None) -> Any:
        with refusals():
            found = self._now.resolve(actor, workspace)
        return SimpleNamespace(entity=found.entity, period=found.period, token=found)

    # ------------------------------------------------------------------------------------------------------------ reading

    async def usage(self, entity: str, period: str | int = "current") -> Any:
        auditor = self._now
        over = [p for p in auditor.periods if p.entity == entity and not p.free and p.end <= auditor.now]
        found = auditor.periods[period] if isinstance(period, int) else auditor.current(entity)
        if period == "last":
            found = auditor.best_period(each for each in over if each.end == max(late.end for late in over))
        figures, used, limit = auditor.figures(found), auditor.used(entity), auditor.limit(entity)
        shown = {name: getattr(figures, name) for name in figures.__slots__}
        shown["by_actor"] = {self._actor(actor): amount for actor, amount in figures.by_actor.items()}
        standing = {"limit": limit, "status": status_of(used, limit), "percent": Decimal(percent_of(used, limit))}
        return SimpleNamespace(period=self._period(found), **shown, **standing)

    def _actor(self, actor: str) -> str:
        """Of somebody who was deleted the number is left."""
        deleted = list(self._now.deleted)
        return f"#{deleted.index(f'user:{actor}')}" if f"user:{actor}" in deleted else actor

    def _period(self, period: Period) -> Any:
        state = "closed" if period.closed else "closing" if period.end <= self._now.now else "open"
        included, a_day, _ = self._now.allowance_of(period)
        return SimpleNamespace(
            id=period.number, kind="free" if period.free else "dated", starts_at=period.start, ends_at=period.end,
            state=state, included=included, refresh_per_day=a_day, subscription=period.subscription,
        )  # fmt: skip

    async def periods(self, entity: str) -> list[Any]:
        return [self._period(period) for period in self._now.periods if period.entity == entity]

    async def entries(self, entity: str, *, limit: int, cursor: int | None) -> Any:
        """Whole pages of what the entity was charged for, newest first."""
        first = cursor or 0
        rows = [entry for entry in self._now.entries if entry.entity == entity][::-1]
        shown = [SimpleNamespace(actor=self._actor(e.actor), amount=e.amount, recorded_at=e.recorded) for e in rows]
        more = first + limit if first + limit < len(rows) else None
        summary = SimpleNamespace(count=len(rows), amount=sum((entry.amount for entry in rows), Decimal(0)))
        return SimpleNamespace(entries=shown[first : first + limit], next_cursor=more, summary=summary)

    async def verify(self) -> list[Any]:
        return []

    async def fold(self) -> None:
        """There is nothing to fold."""

    # ---------------------------------------------------------------------------------------------------------- customers

    async def put_subscription(self, **terms: Any) -> None:
        with refusals():
            self._now.put_subscription(**terms)

    async def put_organization(self, organization: str, *, owner: str) -> None:
        with refusals():
            self._now.put_organization(organization, owner)

    async def put_workspace(self, workspace: str, *, payer: str | None) -> None:
        with refusals():
            self._now.put_workspace(workspace, payer)

    async def add_member(self, organization: str, user: str) -> None:
        with refusals():
            self._now.add_member(organization, user)

    async def remove_member(self, organization: str, user: str) -> None:
        with refusals():
            self._now.remove_member(organization, user)

    async def transfer_ownership(self, organization: str, user: str) -> None:
        with refusals():
            self._now.transfer_ownership(organization, user)

    async def delete_user(self, user: str) -> None:
        with refusals():
            self._now.delete_user(user)

    async def delete_organization(self, organization: str) -> None:
        with refusals():
            self._now.delete_organization(organization)

    # ------------------------------------------------------------------------------------------------------------ billing

    async def check(self, actor: str, workspace: str | None = None) -> Any:
        with refusals():
            return self._now.check(actor, workspace)

    async def place_hold(self, actor: str, *, amount: str, hold_id: str, ttl_s: int, workspace: str | None) -> None:
        with refusals():
            found = self._now.hold(actor, amount, hold_id, ttl_s, workspace)
        if not found.allowed:
            raise Denied(found.code)

    async def settle(self, hold_id: str, amount: str, *, source: str, description: str, event_key: str) -> str:
        with refusals():
            return self._now.settle(hold_id, amount, source, description, event_key)

    async def release(self, hold_id: str) -> None:
        with refusals():
            self._now.release(hold_id)

    async def set_limit(self, entity: str, amount: str, by: str | None = None) -> None:
        with refusals():
            self._now.set_limit(entity, amount, by)

    async def set_member_cap(self, organization: str, user: str, amount: str | None) -> None:
        with refusals():
            self._now.set_member_cap(organization, user, amount)

    async def block(self, entity: str, *, reason: str) -> None:
        self._now.block(entity, reason)

    async def unblock(self, entity: str, *, reason: str) -> None:
        self._now.unblock(entity, reason)

    async def grant_credit(
        self, entity: str, amount: str, grant_id: str, *, source: str, priority: int, expires_at: datetime | None
    ) -> None:
        with refusals():
            self._now.grant(entity, amount, grant_id, source, priority, expires_at)

    async def credits(self, entity: str) -> Any:
        return SimpleNamespace(balance_cents=self._now.balance(entity) * 100)

    async def bill_threshold(self, entity: str) -> Any:
        charged, paid, reason = self._now.bill_threshold(entity)
        return SimpleNamespace(charged_cents=charged * 100, credits_cents=paid * 100, reason=reason)

    async def sweep(self) -> Any:
        self._now.sweep()
        return SimpleNamespace(failed=())

    async def outbox(self, entity: str) -> list[Any]:
        auditor = self._now
        ours = [period for period in auditor.periods if period.entity == entity]
        charges = [charge.amount * 100 for period in ours for charge in period.charges if charge.amount]
        alerts = [(number, mark) for name, number, mark in auditor.alerts if name == entity]
        cancels = [(sub, cancel) for owner, sub, cancel in auditor.cancellations if owner == entity]
        said: list[tuple[str, dict[str, Any]]] = [("charge", {"amount_cents": each}) for each in charges]
        said += [("alert", {"period": number, "alert": f"limit_{mark}"}) for number, mark in alerts]
        named = "cancel_at_period_end"
        said += [(named, {"subscription": sub, named: cancel}) for sub, cancel in cancels]
        return [SimpleNamespace(kind=kind, payload=payload) for kind, payload in said]

    async def charges(self, entity: str, period: int) -> list[Any]:
        found = self._now.periods[period]
        assert found.entity == entity
        off = SimpleNamespace(kind="", amount_cents=0, credits_cents=0, written_off_cents=found.written_off * 100)
        made = [
            SimpleNamespace(
                kind=c.kind, amount_cents=c.amount * 100, credits_cents=c.credits * 100, written_off_cents=0
            )
            for c in found.charges
        ]
        return [*made, off]

    async def set_baseline(self, entity: str, amount: str, audit: Sequence[tuple[datetime, str]]) -> None:
        with refusals():
            self._now.baseline(entity, amount, audit)


def _id(key: object) -> str:
    return repr(key)


def _shown(entries: Sequence[Entry], known: Sequence[Entry]) -> tuple[RecordedEntry, ...]:
    return tuple(
        RecordedEntry(
            _id(each.key), "replayed" if each in known else "inserted", each.entity, each.period, each.belongs_to,
            each.amount, each.recorded,
        )
        for each in entries
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- auditors with one rule broken


class ForgetsTheGrace(Auditor):
    def sweep(self) -> None:
        now, self.now = self.now, self.now + timedelta(hours=1)
        super().sweep()
        self.now = now


class ClosesTheNewestFirst(Auditor):
    def _dated(self, entity: str) -> list[Period]:
        return super()._dated(entity)[-1:]


class ChargesTheCent(Auditor):
    def _outcome(self, period: Period) -> Any:
        due, grants, paid, rest = super()._outcome(period)
        return due, grants, paid, rest + Decimal("0.50") if 0 < rest < Decimal("0.50") else rest


class ForgetsWhatWasBilled(Auditor):
    def _outcome(self, period: Period) -> Any:
        kept, period.charges = period.charges, []
        found = super()._outcome(period)
        period.charges = kept
        return found


class SpendsExpiredCredits(Auditor):
    def _spendable(self, entity: str, at: datetime) -> Any:
        return super()._spendable(entity, at - timedelta(days=30))


class RefreshesTheLastDayOnly(Auditor):
    def allowance_of(self, period: Period) -> tuple[Decimal, Decimal, bool]:
        included, a_day, has_overage = super().allowance_of(period)
        return included, a_day / 2, has_overage


class BooksLateEntriesBack(Auditor):
    def place(self, entity: str, occurred: datetime, named: int | None = None) -> tuple[Period, int | None]:
        period, belongs_to = super().place(entity, occurred, named)
        return (period, None) if belongs_to is None else (self.periods[belongs_to], None)


class IncludesTheEnd(Auditor):
    def place(self, entity: str, occurred: datetime, named: int | None = None) -> tuple[Period, int | None]:
        return super().place(entity, occurred - timedelta(microseconds=1), named)


class GivesNothingBack(Auditor):
    def _grant_back(self, period: Period, amount: Decimal) -> None:
        """Keeps it."""


class KeepsHoldsForEver(Auditor):
    def state_of(self, hold: Any) -> str:
        return str(hold.state)


class ForgetsHolds(Auditor):
    def held(self, entity: str, actor: str | None = None) -> Decimal:
        return super().held(entity, actor) * 0


class LetsAnybodyCancel(Auditor):
    def _take_back(self, user: str) -> None:
        """The cancellation stays."""


class RefundsDowngrades(Auditor):
    def allowance_of(self, period: Period) -> tuple[Decimal, Decimal, bool]:
        included, a_day, has_overage = super().allowance_of(period)
        if period.frozen is None and period.subscription is not None and has_overage:
            now = self.subscriptions[period.subscription].terms
            return now.included, now.refresh, has_overage
        return included, a_day, has_overage


class BillsThePastDue(Auditor):
    def bill_threshold(self, entity: str) -> tuple[Decimal, Decimal, str]:
        sub = self.paying_subscription(entity)
        kept = None if sub is None else sub.status
        if sub is not None:
            sub.status = "active"
        found = super().bill_threshold(entity)
        if sub is not None and kept is not None:
            sub.status = kept
        return found


class ReplaysAnything(Auditor):
    def _replay(self, first: Entry, said: Said) -> Entry:
        try:
            return super()._replay(first, said)
        except Refused:
            return first


class ReratesCredits(Auditor):
    def limit(self, entity: str) -> Decimal:
        return super().limit(entity) - (self.balance(entity) if not self.current(entity).free else 0)


BROKEN: tuple[type[Auditor], ...] = (
    ForgetsTheGrace, ClosesTheNewestFirst, ChargesTheCent, ForgetsWhatWasBilled, SpendsExpiredCredits,
    RefreshesTheLastDayOnly, BooksLateEntriesBack, IncludesTheEnd, GivesNothingBack, KeepsHoldsForEver, ForgetsHolds,
    LetsAnybodyCancel, RefundsDowngrades, BillsThePastDue, ReplaysAnything, ReratesCredits,
)  # fmt: skip
