"""One history on a Book and on the auditor side by side. The first figure that differs ends it, with both values.

The auditor goes first: a step that the rules leave unclear is left out on both sides. Names carry a prefix, so that many
histories share one database.
"""

from asyncio import gather
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from meterbook import Book, MeterbookError, Recorded, Usage, UsageEntry
from tests.simulation.auditor import (
    Admission,
    Attribution,
    Auditor,
    Entry,
    Period,
    Refused,
    Said,
    Subscription,
    Unclear,
)
from tests.simulation.figures import ENTITLED, PLANS, ZERO, add_months, percent_of, status_of
from tests.simulation.histories import ENTITIES, History, Step

Theirs = TypeVar("Theirs")
Ours = TypeVar("Ours")
CUSTOMER = {"stripe_customer": "cus", "stripe_subscription": "sub"}
# Codes of the errors that are promised; those of the billing steps are compared only as refused or not.
PROMISED = {"invalid_usage", "key_conflict", "membership_refused", "correction_refused", "unknown_plan"}


ERASED = "(erased)"
CROWD_EVERY = 15
"""In a crowded history, how many steps lie between those that are played while others sweep and compact."""


class Difference(Exception):
    """The Book and the auditor disagree; `step`: in which one it showed, None at the end."""

    def __init__(self, text: str, step: int | None = None) -> None:
        self.step = step
        super().__init__(text)


class SettableClock(Protocol):
    now: datetime


class Billing(Protocol):
    """The promised calls of the billing engine, as far as they are played."""

    async def check(self, actor: str, workspace: str | None = None) -> Any: ...
    async def set_limit(self, entity: str, amount: str, by: str | None = None) -> Any: ...
    async def set_member_cap(self, organization: str, user: str, amount: str | None) -> Any: ...
    async def block(self, entity: str, reason: str) -> Any: ...
    async def unblock(self, entity: str, reason: str) -> Any: ...
    async def grant_credit(
        self, entity: str, amount: str, grant_id: str, source: str, priority: int, expires_at: datetime | None
    ) -> Any: ...
    async def credits(self, entity: str) -> Any: ...
    async def bill_threshold(self, entity: str) -> Any: ...
    async def sweep(self) -> Any: ...
    async def charges(self, entity: str, period: int) -> Sequence[Any]: ...
    async def place_hold(self, actor: str, *, amount: str, hold_id: str, ttl_s: int, workspace: str | None) -> Any: ...
    async def outbox(self, entity: str) -> Sequence[Any]: ...
    async def settle(self, hold_id: str, amount: str, source: str, description: str, event_key: str) -> Any: ...
    async def release(self, hold_id: str) -> Any: ...
    async def set_baseline(self, entity: str, amount: str, audit: Sequence[tuple[datetime, str]]) -> Any: ...
    async def delete_user(self, user: str) -> Any: ...
    async def delete_organization(self, organization: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Played:
    """How many steps were played, and how many left out because the rules leave them unclear."""

    steps: int
    unclear: int


Accidents = Callable[[int, bool], AbstractContextManager[None]]
"""In the block the connection dies at the n-th statement: before it, or when it has taken effect and the answer is on its way."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a history is played on. `other`: a second Book on the same database, of another process as it were."""

    book: Book
    other: Book
    clock: SettableClock
    accidents: Accidents = lambda _statement, _answered: nullcontext()
    connect: Callable[[], Awaitable[Any]] | None = None
    """A connection of a caller's own."""


async def play(history: History, scene: Scene, prefix: str) -> Played:
    """Raises `Difference`."""
    player = Player(scene, prefix, history)
    try:
        return await _play(history, player)
    finally:
        for _, conn in player.slow:
            await conn.close()


async def _play(history: History, player: "Player") -> Played:
    scene, unclear = player.scene, 0
    for number, step in enumerate(history.steps):
        try:
            unclear += not await player.step(step, number)
        except Difference as found:
            raise Difference(f"step {number}, {step}, at {scene.clock.now}: {found}", number) from found
        except MeterbookError as error:
            raise Difference(
                f"step {number}, {step}, at {scene.clock.now}: the Book raised {error!r}", number
            ) from error
    await player.compare_everything()
    return Played(len(history.steps), unclear)


class Player:
    def __init__(self, scene: Scene, prefix: str, history: History) -> None:
        self.scene = scene
        self.book = scene.book
        self.billing = cast("Billing", scene.book)
        self.clock = scene.clock
        self.prefix = prefix
        self.crowded = history.crowded
        self.auditor = Auditor(history.start)
        self.number = 0
        self.crash: tuple[int, bool] | None = None
        self.crashed = False
        self.calls: list[list[Said]] = []
        self.ids: dict[int, int] = {}
        self.entry_ids: dict[object, str] = {}
        self.attributions: list[tuple[Attribution, Any]] = []
        self.holds: list[str] = []
        self.slow: list[tuple[Entry | None, Any]] = []
        self.touched: set[str] = set()
        self.clock.now = history.start

    async def step(self, step: Step, number: int) -> bool:
        """False if the rules leave it unclear, so that it was left out."""
        self.number, self.touched, self.crashed = number, set(), False
        played = partial(getattr(self, f"_{step.kind}"), **step.said)
        try:
            await (self._amid_others(played) if self.crowded and number % CROWD_EVERY == 0 else played())
        except Unclear:
            return False
        for entity in sorted(self.touched):
            await self.compare_usage(entity)
        return True

    async def _amid_others(self, play_step: Callable[[], Awaitable[None]]) -> None:
        """The step while two sweep and two compact. All was swept before, and all is again, so that their order changes nothing."""
        await self._sweep()
        crowd = [self.scene.book, self.scene.other]
        played, swept = await gather(play_step(), self._sweep_by(crowd), return_exceptions=True)
        if isinstance(played, BaseException):
            raise played
        if isinstance(swept, BaseException) and not self.crashed:
            raise swept
        await self._sweep()

    async def _sweep_by(self, crowd: Sequence[Book]) -> None:
        """Each sweeps and compacts. Nothing fails, and nothing deadlocks."""
        folds = gather(*(book.fold() for book in crowd[1:]))
        swept, _ = await gather(gather(*(book.sweep() for book in crowd)), folds)
        self.equal("failed in the sweep", [each.failed for each in swept], [()] * len(crowd))

    async def _survive(self, call: Callable[[], Awaitable[Theirs]], done: str = "") -> Theirs | None:
        """The call; after a crash, one that dies on the way, and the call again. `done`: it says so of what it did in its former life."""
        if self.crash is None:
            return await call()
        crash, self.crash, self.crashed = self.crash, None, True
        first: MeterbookError | None = None
        with self.scene.accidents(*crash):
            try:
                await call()
            except MeterbookError as error:
                first = error
        try:
            answer = await call()
        except MeterbookError as error:
            if error.code == done:
                return None
            raise
        if first is not None and not first.retryable:
            raise Difference(f"a connection died, and the Book said {first!r}, which is no reason to try again")
        return answer

    # ---------------------------------------------------------------------------------------------------------- comparing

    async def _both(
        self, ours: Callable[[], Ours], theirs: Callable[[], Awaitable[Theirs]], done: str = ""
    ) -> tuple[Ours, Theirs] | None:
        """Both results, or None if both refused; the auditor's `Unclear` leaves the Book alone."""
        try:
            expected: Ours | str = ours()
        except Refused as refused:
            code = refused.code
            try:
                found = await self._survive(theirs)
            except MeterbookError as error:
                if code in PROMISED:
                    self.equal("refused as", error.code, code)
                elif error.retryable:
                    raise
                return None
            raise Difference(f"the Book took it ({found}), the auditor refuses it: {code}") from refused
        return cast("Ours", expected), cast("Theirs", await self._survive(theirs, done))

    def equal(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            raise Difference(f"{what}: the Book says {found}, the auditor {expected}")

    def _exists(self, entity: str) -> bool:
        kind, name = entity.split(":", 1)
        return entity not in self.auditor.deleted and (kind == "user" or name in self.auditor.organizations)

    async def compare_usage(self, entity: str) -> None:
        """What §5 to §9 say of the running period, from the one reader."""
        if not self._exists(entity):
            return
        found = await self.book.usage(entity)
        period = self.auditor.current(entity)
        self._compare_bounds(entity, found.period, period)
        self._compare_figures(entity, found, period)
        limit = self.auditor.limit(entity)
        used = self.auditor.used(entity)
        self.equal(f"limit of {entity}", found.limit, limit)
        self.equal(f"status of {entity}", found.status, status_of(used, limit))
        shown = int(found.percent.to_integral_value(ROUND_FLOOR))
        self.equal(f"percent of {entity}", min(shown, 100), percent_of(used, limit))

    def _compare_figures(self, entity: str, found: Any, period: Period) -> None:
        figures = self.auditor.figures(period)
        for name in ("total", "count", "given_back", "refresh", "effective", "overage"):
            self.equal(f"{name} of {entity}, period from {period.start}", getattr(found, name), getattr(figures, name))
        spent = sorted((_erased(actor), amount) for actor, amount in found.by_actor.items() if amount)
        expected = sorted((self._actor(actor), amount) for actor, amount in figures.by_actor.items() if amount)
        self.equal(f"actors of {entity}", spent, expected)

    def _compare_bounds(self, entity: str, found: Any, period: Period) -> None:
        state = "closed" if period.closed else "closing" if period.end <= self.auditor.now else "open"
        shown = (found.kind == "free", found.starts_at, found.ends_at, found.state)
        self.equal(f"period of {entity}", _plain(shown), _plain((period.free, period.start, period.end, state)))
        if not period.free:
            included, a_day, has_overage = self.auditor.allowance_of(period)
            allowed = (found.included if has_overage else ZERO, found.refresh_per_day)
            self.equal(f"allowance of {entity} from {period.start}", allowed, (included, a_day))

    async def _align(self, entity: str) -> None:
        """Which period of the book's is which of the auditor's."""
        by_start = {(p.subscription, p.starts_at.astimezone(UTC)): p.id for p in await self.book.periods(entity)}
        for period in self.auditor.periods:
            if period.entity == entity and (period.subscription, period.start) in by_start:
                self.ids[period.number] = by_start[period.subscription, period.start]

    async def compare_everything(self) -> None:
        """Every period of every entity, the sums, I7, and what the ledger says of itself."""
        while self.slow:
            await self._commit(0)
        everyone = [entity for entity in map(self._entity, ENTITIES) if self._exists(entity)]
        for entity in everyone:
            if entity.startswith("user:"):  # the clock may have changed who pays, and what Stripe is to be told of that
                await self.book.resolve(entity.removeprefix("user:"))
            await self.compare_usage(entity)
            await self._compare_periods(entity)
            await self._compare_last(entity)
            await self._compare_list(entity)
            await self._compare_credits(entity)
            await self._compare_outbox(entity)
        self.equal("what can't be", [], self.auditor.contradictions())
        self.equal("verify()", await self.book.verify(), [])

    async def _compare_periods(self, entity: str) -> None:
        await self._align(entity)
        found = {period.id: period for period in await self.book.periods(entity)}
        self.auditor.free_period(entity)
        ours = [period for period in self.auditor.periods if period.entity == entity]
        expected = {self.ids.get(period.number, -1) for period in ours if not period.free or self._rows(period)}
        unexpected = [p for p in found.values() if p.id not in expected and p.kind != "free"]
        self.equal(f"periods of {entity} that only the Book has", unexpected, [])
        for period in ours:
            if period.free and not self._rows(period) and period.number not in self.ids:
                continue
            if period.number not in self.ids:
                raise Difference(f"the Book has no period of {entity} from {period.start} to {period.end}")
            self._compare_bounds(entity, found[self.ids[period.number]], period)
            read = await self.book.usage(entity, self.ids[period.number])
            self._compare_figures(entity, read, period)
            if not period.free:
                await self._compare_charges(entity, period)

    async def _compare_last(self, entity: str) -> None:
        """§5 "last" is the latest period that has ended, closed or not."""
        over = [p for p in self.auditor.periods if p.entity == entity and not p.free and p.end <= self.auditor.now]
        if over:
            latest = max(period.end for period in over)
            best = self.auditor.best_period(period for period in over if period.end == latest)
            self._compare_figures(entity, await self.book.usage(entity, "last"), best)

    async def _compare_list(self, entity: str) -> None:
        """Every entry once, page by page, newest first, and their sum beside them; of one actor too."""
        expected = [entry for entry in self.auditor.entries if entry.entity == entity]
        found: list[UsageEntry] = []
        cursor = None
        while found == [] or cursor is not None:
            page = await self.book.entries(entity, limit=7, cursor=cursor)
            found, cursor = [*found, *page.entries], page.next_cursor
            assert page.summary is not None
            summed = sum((entry.amount for entry in expected), ZERO)
            self.equal(f"summary of {entity}", (page.summary.count, page.summary.amount), (len(expected), summed))
            if not expected:
                break
        shown = sorted((_erased(each.actor), each.amount, each.recorded_at) for each in found)
        ours = sorted((self._actor(each.actor), each.amount, each.recorded) for each in expected)
        self.equal(f"list of {entity}", shown, ours)
        order = [each.recorded_at for each in found]
        self.equal(f"order of the list of {entity}", order, sorted(order, reverse=True))

    def _rows(self, period: Period) -> list[Entry]:
        return [entry for entry in self.auditor.entries if entry.period == period.number]

    async def _compare_charges(self, entity: str, period: Period) -> None:
        """What was charged, paid by credits and written off, in whole cents."""
        found = await self.billing.charges(entity, self.ids[period.number])
        shown = sorted((c.kind, c.amount_cents, c.credits_cents) for c in found if c.amount_cents or c.credits_cents)
        expected = sorted((c.kind, c.amount * 100, c.credits * 100) for c in period.charges if c.amount or c.credits)
        where = f"of {entity}, period from {period.start}"
        self.equal(f"charges {where}", shown, expected)
        self.equal(f"written off {where}", sum(c.written_off_cents for c in found), period.written_off * 100)

    async def _compare_outbox(self, entity: str) -> None:
        """What is told to others: each charge once, each mark of a limit, each cancellation, in order."""
        rows = await self.billing.outbox(entity)
        charged = sorted(row.payload["amount_cents"] for row in rows if row.kind == "charge")
        ours = [period for period in self.auditor.periods if period.entity == entity]
        charges = [charge.amount * 100 for period in ours for charge in period.charges if charge.amount]
        self.equal(f"invoices of {entity}", charged, sorted(charges))
        marks = [(row.payload["period"], row.payload["alert"]) for row in rows if row.kind == "alert"]
        told = [(self.ids.get(number), f"limit_{mark}") for name, number, mark in self.auditor.alerts if name == entity]
        self.equal(f"alerts of {entity}", [each for each in marks if each[1] != "close_deferred"], told)
        cancels = [row.payload for row in rows if row.kind == "cancel_at_period_end"]
        shown = [(each["subscription"], each["cancel_at_period_end"]) for each in cancels]
        expected = [(sub, cancel) for owner, sub, cancel in self.auditor.cancellations if owner == entity]
        self.equal(f"cancellations of {entity}", shown, expected)

    # ------------------------------------------------------------------------------------------------------------- naming

    def _name(self, name: str) -> str:
        return self.prefix + name

    def _entity(self, entity: str) -> str:
        kind, name = entity.split(":", 1)
        return f"{kind}:{self._name(name)}"

    def _actor(self, actor: str) -> str:
        """As the Book shows who acted: somebody who was deleted has no name any more (I2)."""
        return ERASED if f"user:{actor}" in self.auditor.deleted else actor

    def _user(self, user: str) -> str:
        if f"user:{self._name(user)}" in self.auditor.deleted:
            raise Unclear
        return self._name(user)

    def _named(self, entity: str | None) -> str | None:
        """Of somebody who was deleted it would be somebody new."""
        named = None if entity is None else self._entity(entity)
        if named in self.auditor.deleted:
            raise Unclear
        return named

    def _place(self, workspace: str | None) -> str | None:
        """A workspace whose payer was deleted is nobody's: the rules don't say."""
        named = None if workspace is None else self._name(workspace)
        if self.auditor.workspaces.get(named or "") in self.auditor.deleted:
            raise Unclear
        return named

    def _occurred(self, when: tuple[str, int] | None, entity: str) -> datetime | None:
        if when is None:
            return None
        kind, distance = when
        if kind == "ago":
            return self.auditor.now - timedelta(seconds=distance)
        dated = [p for p in self.auditor.periods if p.entity == entity and not p.free and p.start <= self.auditor.now]
        if kind == "closed":
            dated = [period for period in dated if period.closed]
        if not dated:
            return None
        return dated[-1].start + timedelta(microseconds=distance)

    def _subscription(self, entity: str, kind: str = "") -> Subscription:
        """The entity's running subscription, else another's: a step that finds nothing to do teaches nothing."""
        running = [
            sub for sub in self.auditor.subscriptions.values() if sub.ended_at is None and sub.owner.startswith(kind)
        ]
        own = [sub for sub in running if sub.owner == self._entity(entity)]
        return self._nth(own or running, ENTITIES.index(entity))

    def _paying(self, entity: str) -> str:
        """The entity if a subscription pays for it, else another for which one does."""
        subs = [sub for sub in self.auditor.subscriptions.values() if sub.entitled and self._exists(sub.owner)]
        paying = [each for each in map(self._entity, ENTITIES) if each in {sub.owner for sub in subs}]
        return self._entity(entity) if self._entity(entity) in paying else self._nth(paying, ENTITIES.index(entity))

    def _nth(self, among: Sequence[Ours], nth: int) -> Ours:
        if not among:
            raise Unclear
        return among[nth % len(among)]

    # --------------------------------------------------------------------------------------------------------------- time

    async def _jump(self, to: str | None = None, offset_us: int = 0, seconds: int = 0) -> None:
        target = self.auditor.now + timedelta(seconds=seconds)
        if to is not None:
            ends = [p.end for p in self.auditor.periods if p.entity == self._entity(to) and not p.free]
            ahead = [end + timedelta(microseconds=offset_us) for end in ends]
            target = min((each for each in ahead if each > self.auditor.now), default=self.auditor.now)
        self.clock.now = target
        told = len(self.auditor.cancellations)
        self.auditor.at(target)
        for owner, _, cancel in self.auditor.cancellations[told:]:
            if cancel:  # when it ends depends on when that is noticed
                await self.book.resolve(owner.removeprefix("user:"))

    async def _compact(self) -> None:
        await self._survive(self.book.fold)

    async def _crash(self, statement: int, answered: bool) -> None:
        """The next call that changes something dies at this statement, if it comes that far, and is made again."""
        self.crash = (statement, answered)

    # ---------------------------------------------------------------------------------------------------------- recording

    async def _record(
        self,
        user: str,
        amount: str,
        description: str,
        workspace: str | None,
        entity: str | None,
        period: int | None,
        when: tuple[str, int] | None,
    ) -> None:
        actor, named = self._user(user), self._named(entity)
        place = self._place(workspace)
        payer = named or self.auditor.payer(actor, place if place in self.auditor.workspaces else None)
        theirs = [each.number for each in self.auditor.periods if each.entity == payer]
        said = Said(
            actor, amount, description=description, event_key=self._name(f"k{self.number}"), entity=named,
            period=None if period is None else self._nth(theirs, period), workspace=place,
            occurred_at=self._occurred(when, payer),
        )  # fmt: skip
        await self._call([said])

    async def _brim(self, entity: str, overage: str) -> None:
        """One entry that brings the overage of the running period to exactly this figure."""
        named = self._paying(entity)
        period = self.auditor.current(named)
        amount = self.auditor.missing(period, Decimal(overage)) if not period.free else ZERO
        if amount <= 0:
            raise Unclear
        key = self._name(f"k{self.number}")
        await self._call([Said(self._name("u1"), f"{amount:f}", event_key=key, entity=named)])

    async def _batch(self, user: str, execution: int, lines: Sequence[tuple[str, str]]) -> None:
        actor = self._user(user)
        run = self._name(f"e{execution} of {self.number}")
        await self._call([Said(actor, amount, description=what, execution=run) for what, amount in lines])

    async def _slow(self, user: str, amount: str, when: tuple[str, int] | None) -> None:
        """Recorded in a caller's transaction that stays open: a later step commits it, or the end."""
        if self.scene.connect is None:
            raise Unclear
        actor = self._user(user)
        occurred = self._occurred(when, self.auditor.payer(actor))
        said = Said(actor, amount, event_key=self._name(f"k{self.number}"), occurred_at=occurred)
        conn = await self.scene.connect()
        self.slow.append((None, conn))
        both = await self._both(
            lambda: self.auditor.prepare(said), lambda: self.book.record_many([self._usage(said)], conn=conn)
        )
        self.slow.pop()
        if both is None:
            await conn.close()
            return
        self.slow.append((both[0], conn))
        await self._compare_places([both[0]], both[1])

    async def _commit(self, nth: int) -> None:
        entry, conn = self._nth(self.slow, nth)
        self.slow.remove((entry, conn))
        assert entry is not None
        await conn.commit()
        await conn.close()
        self.auditor.appear(entry)
        await self.book.fold()
        self.touched.add(entry.entity)

    async def _retry(self, nth: int, change: str | None, turn: int) -> None:
        """Said again, turned round; or with something else in one entry, which is refused if its key was used."""
        said = list(self._nth(self.calls, nth))
        said = said[turn:] + said[:turn]
        if change == "amount" and len(said) == 1:
            said = [replace(said[0], amount=said[0].amount + "1" if "." in said[0].amount else said[0].amount + ".1")]
        if change == "entity" and said[0].attribution is None:
            said = [replace(each, entity=self._entity("user:u5")) for each in said]
        if {name for each in said for name in (f"user:{each.actor}", each.entity)} & self.auditor.deleted:
            raise Unclear  # somebody new of the same name
        await self._call(said)

    async def _call(self, said: list[Said]) -> None:
        self.calls.append(said)
        for each in said:
            if each.period is not None and each.period not in self.ids:
                await self._align(self.auditor.periods[each.period].entity)
        if any(each.period is not None and each.period not in self.ids for each in said):
            raise Unclear
        both = await self._both(
            lambda: self.auditor.record(said), lambda: self.book.record_many(list(map(self._usage, said)))
        )
        if both is None:
            return
        reply, found = both
        if not self.crashed:  # else it may be a replay of what was never answered
            self.equal("inserted, replayed", (found.inserted, found.replayed), (reply.inserted, reply.replayed))
            self.equal("amount", found.amount, reply.amount)
        await self._compare_places(reply.entries, found)

    def _usage(self, said: Said) -> Usage:
        token = next((theirs for ours, theirs in self.attributions if ours is said.attribution), None)
        return Usage(
            said.actor, said.source, said.description, said.amount, said.category, said.event_key, said.line,
            said.entity, None if said.period is None else self.ids[said.period], said.workspace, said.workflow,
            said.execution, said.source_reference, said.occurred_at, None, token,
        )  # fmt: skip

    async def _compare_places(self, entries: Sequence[Entry], found: Recorded) -> None:
        """Who pays for each entry, in which period, and which closed one it belongs to."""
        shown = [each for each in found.entries if each.outcome != "unchanged"]
        self.equal("number of entries answered", len(shown), len(entries))
        for ours, theirs in zip(entries, shown, strict=True):
            gone = ours.entity in self.auditor.deleted and ours.entity.startswith("user:")
            self.equal("payer", _erased(theirs.entity), ERASED if gone else ours.entity)
            if not {theirs.period, theirs.belongs_to} <= {None, *self.ids.values()}:
                await self._align(ours.entity)
            where = [theirs.period, theirs.belongs_to if ours.corrects is None else None]
            stamp = ours.belongs_to if ours.corrects is None else None
            self.equal(
                f"period and stamp of an entry of {ours.occurred}",
                [self._bounds(number) for number in where],
                [None if number is None else self._bounds(self.ids.get(number)) for number in (ours.period, stamp)],
            )
            self.entry_ids[ours.key] = theirs.id
            self.touched.add(ours.entity)

    def _bounds(self, book_period: int | None) -> str | None:
        """A period of the book's by its number and start, so that a difference can be read."""
        if book_period is None:
            return None
        starts = [self.auditor.periods[ours].start for ours, theirs in self.ids.items() if theirs == book_period]
        return f"{book_period} from {starts[0]}" if starts else f"{book_period}, unknown to the auditor"

    async def _cumulative(
        self, user: str, request: int, total: str, entity: str | None, when: tuple[str, int] | None
    ) -> None:
        actor, named, name = self._user(user), self._named(entity), self._name(f"r{request}")
        known = self.auditor.requests.get(name)
        if known is not None and {known.entity, f"user:{known.actor}"} & self.auditor.deleted:
            raise Unclear
        payer = known.entity if known else named or self.auditor.payer(actor)
        said = Said(actor, total, source="copilot", entity=named, occurred_at=self._occurred(when, payer))
        before = len(self.auditor.entries)
        both = await self._both(
            lambda: self.auditor.record_cumulative(name, said),
            lambda: self.book.record_cumulative(
                actor, request=name, total=total, source="copilot", description=said.description, entity=named,
                occurred_at=said.occurred_at,
            ),
        )  # fmt: skip
        if both is not None and not self.crashed:
            self.equal("rise", both[1].amount, both[0])
            if both[0]:
                await self._compare_places(self.auditor.entries[before:], both[1])

    async def _correct(self, nth: int, share: str, again: bool, closed: bool = False) -> None:
        known = [entry for entry in self.auditor.entries if entry.key in self.entry_ids]
        past = [entry for entry in known if self.auditor.periods[entry.period].closed and entry.corrects is None]
        entry = self._nth(past if closed and past else known, nth)
        if {f"user:{entry.actor}", entry.entity} & self.auditor.deleted:
            raise Unclear
        amount = f"{round(entry.amount * Decimal(share), 12):f}"
        key = self._name(f"c{nth}" if again else f"c{nth} of {self.number}")
        both = await self._both(
            lambda: self.auditor.correct(entry.key, amount, key),
            lambda: self.book.correct(self.entry_ids[entry.key], amount=amount, reason="checked", event_key=key),
        )
        if both is not None and both[0] is not None:
            await self._compare_places([both[0]], both[1])

    async def _resolve(self, user: str, workspace: str | None) -> None:
        actor, place = self._user(user), self._place(workspace)
        both = await self._both(lambda: self.auditor.resolve(actor, place), lambda: self.book.resolve(actor, place))
        if both is not None:
            self.equal("payer", both[1].entity, both[0].entity)
            await self._align(both[0].entity)
            self.equal("period", both[1].period, self.ids.get(both[0].period))
            self.attributions.append((both[0], both[1].token))

    async def _attributed(self, nth: int, amount: str, when: tuple[str, int] | None) -> None:
        given, _ = self._nth(self.attributions, nth)
        if {given.entity, f"user:{given.actor}"} & self.auditor.deleted:
            raise Unclear
        said = Said(
            given.actor, amount, event_key=self._name(f"k{self.number}"), workspace=given.workspace, attribution=given,
            occurred_at=self._occurred(when, given.entity),
        )  # fmt: skip
        await self._call([said])

    # ------------------------------------------------------------------------------------------------------ subscriptions

    async def _put(self, **terms: Any) -> None:
        await self._both(lambda: self.auditor.put_subscription(**terms), lambda: self.book.put_subscription(**terms))
        self.touched.add(terms["owner"])

    def _said(self, sub: Subscription, **changed: Any) -> dict[str, Any]:
        """What is known of a subscription, as its next word would repeat it."""
        if sub.ended_at is not None:
            raise Unclear
        interval = "month" if sub.every == 1 else "year"
        return {
            "id": sub.id, "owner": sub.owner, "plan": sub.terms.plan, "seats": sub.terms.seats, "status": sub.status,
            "starts_at": sub.starts, "ends_at": sub.ends, "interval": interval, "anchor": sub.anchor,
            "cancel_at_period_end": sub.cancel, "stripe_customer": sub.customer, "stripe_subscription": sub.stripe,
        } | changed  # fmt: skip

    async def _subscribe(
        self, entity: str, plan: str, seats: int | None, interval: str, back: int, status: str, ids: bool
    ) -> None:
        owner = self._entity(entity)
        starts = self.auditor.now - timedelta(seconds=back)
        ends = add_months(starts, 1 if interval == "month" else 12)
        terms = CUSTOMER if ids else {}
        await self._put(
            id=f"{owner} {self.number}", owner=owner, plan=plan, seats=seats, interval=interval, status=status,
            starts_at=starts, ends_at=ends, **terms,
        )  # fmt: skip

    async def _change(self, entity: str, plan: str, seats: int, effective: str | int | None) -> None:
        sub = self._subscription(entity)
        at: datetime | None = None
        if effective == "start":
            at = self.auditor.window(sub).start
        elif isinstance(effective, int):
            at = self.auditor.now - timedelta(seconds=effective)
        await self._put(**self._said(sub, plan=plan, seats=seats, effective_at=at))

    async def _status(self, entity: str, status: str) -> None:
        await self._put(**self._said(self._subscription(entity), status=status))

    async def _cancel(self, entity: str, cancel: bool) -> None:
        await self._put(**self._said(self._subscription(entity), cancel_at_period_end=cancel))

    async def _ids(self, entity: str) -> None:
        """A subscription that began without Stripe ids gets them."""
        without = [sub for sub in self.auditor.subscriptions.values() if sub.ended_at is None and sub.customer is None]
        sub = self._nth(without, ENTITIES.index(entity))
        await self._put(**self._said(sub, **CUSTOMER))

    async def _end(self, entity: str, back: int) -> None:
        at = self.auditor.now - timedelta(seconds=back)
        await self._put(**self._said(self._subscription(entity), status="canceled", effective_at=at))

    async def _reanchor(self, entity: str, back: int, interval: str) -> None:
        starts = self.auditor.now - timedelta(seconds=back)
        ends = add_months(starts, 1 if interval == "month" else 12)
        sub = self._subscription(entity)
        await self._put(**self._said(sub, starts_at=starts, ends_at=ends, anchor=starts, interval=interval))

    async def _move_end(self, entity: str, days: int) -> None:
        sub = self._subscription(entity)
        ends = max(sub.ends + timedelta(days=days), self.auditor.now + timedelta(hours=1))
        await self._put(**self._said(sub, ends_at=ends, anchor=ends))

    async def _convert(self, user: str, organization: str, seats: int) -> None:
        """§12, S78: the person's subscription passes to the organization."""
        sub = self._subscription(f"user:{user}", "user:")
        owner = f"organization:{self._name(organization)}"
        plan = "team_6000" if PLANS[sub.terms.plan].included is not None else sub.terms.plan
        self.touched.add(sub.owner)
        await self._put(**self._said(sub, owner=owner, plan=plan, seats=seats))

    # ------------------------------------------------------------------------------------------------------ organizations

    async def _organization(self, name: str, owner: str) -> None:
        named, user = self._name(name), self._user(owner)
        await self._both(
            lambda: self.auditor.put_organization(named, user), lambda: self.book.put_organization(named, owner=user)
        )

    async def _workspace(self, name: str, payer: str | None = None) -> None:
        named, entity = self._name(name), self._named(payer)
        if entity is not None and not self._exists(entity):
            raise Unclear
        await self._both(
            lambda: self.auditor.put_workspace(named, entity), lambda: self.book.put_workspace(named, payer=entity)
        )

    async def _join(self, organization: str, user: str) -> None:
        await self._member(organization, user, self.auditor.add_member, self.book.add_member)

    async def _leave(self, organization: str, user: str) -> None:
        theirs = self.book.remove_member
        await self._member(organization, user, self.auditor.remove_member, theirs, done="membership_refused")

    async def _transfer(self, organization: str, user: str) -> None:
        await self._member(organization, user, self.auditor.transfer_ownership, self.book.transfer_ownership)

    async def _member(
        self,
        organization: str,
        user: str,
        ours: Callable[[str, str], None],
        theirs: Callable[[str, str], Awaitable[None]],
        done: str = "",
    ) -> None:
        name, member = self._name(organization), self._user(user)
        await self._both(lambda: ours(name, member), lambda: theirs(name, member), done)
        self.equal(f"payer of {user}", (await self.book.resolve(member)).entity, self.auditor.payer(member))
        self.touched |= {f"user:{member}", f"organization:{name}"}

    async def _delete_user(self, user: str) -> None:
        name = self._user(user)
        while self.slow:
            await self._commit(0)
        await self.book.resolve(name)  # only somebody who is known is deleted
        await self._both(
            lambda: self.auditor.delete_user(name), lambda: self.billing.delete_user(name), done="unknown_entity"
        )

    async def _delete_organization(self, name: str) -> None:
        named = self._name(name)
        while self.slow:
            await self._commit(0)
        await self._both(
            lambda: self.auditor.delete_organization(named),
            lambda: self.billing.delete_organization(named),
            done="unknown_entity",
        )

    # ------------------------------------------------------------------------------------------------------------ billing

    async def _threshold(self, entity: str) -> None:
        named = self._paying(entity)
        both = await self._both(lambda: self.auditor.bill_threshold(named), lambda: self.billing.bill_threshold(named))
        if both is not None and not self.crashed:
            (charged, paid, reason), found = both
            shown = (found.charged_cents, found.credits_cents)
            self.equal(f"threshold charge and credits ({reason}; {found.reason})", shown, (charged * 100, paid * 100))
        self.touched.add(named)

    async def _sweep(self) -> None:
        """Compared is what it changed; all the rest at the end."""
        before = self._billed()
        self.auditor.sweep()
        await self._survive(partial(self._sweep_by, [self.scene.book]))
        for entity in sorted({entity for entity, _ in self._billed() - before}):
            if self._exists(entity):
                await self._compare_credits(entity)
                self.touched.add(entity)

    def _billed(self) -> set[tuple[str, int]]:
        """Changes whenever something of an entity is closed, billed, granted."""
        closed = {(p.entity, p.number) for p in self.auditor.periods if p.closed}
        charged = {(p.entity, -id(charge)) for p in self.auditor.periods for charge in p.charges}
        return closed | charged

    async def _compare_credits(self, entity: str) -> None:
        found = await self.billing.credits(entity)
        self.equal(f"credits of {entity}", found.balance_cents, self.auditor.balance(entity) * 100)

    async def _grant(
        self, entity: str, amount: str, priority: int, expires: int | None, source: str = "promotion"
    ) -> None:
        named, name = self._entity(entity), self._name(f"g{self.number}")
        if self.number % 2:
            named = self._paying(entity)
        at = None if expires is None else self.auditor.now + timedelta(seconds=expires)
        if not self._exists(named):
            raise Unclear
        await self._both(
            lambda: self.auditor.grant(named, amount, name, source, priority, at),
            lambda: self.billing.grant_credit(
                named, amount=amount, grant_id=name, source=source, priority=priority, expires_at=at
            ),
        )
        await self._compare_credits(named)
        self.touched.add(named)

    async def _purchase(self, entity: str, amount: str) -> None:
        await self._grant(entity, amount, 50, None, "purchase")

    async def _limit(self, entity: str, amount: str, by: str | None) -> None:
        named, editor = self._paying(entity), None if by is None else self._user(by)
        await self._both(
            lambda: self.auditor.set_limit(named, amount, editor),
            lambda: self.billing.set_limit(named, amount, by=editor),
        )
        self.touched.add(named)

    async def _cap(self, organization: str, user: str, amount: str | None) -> None:
        name, member = self._name(organization), self._user(user)
        await self._both(
            lambda: self.auditor.set_member_cap(name, member, amount),
            lambda: self.billing.set_member_cap(name, member, amount),
        )

    async def _block(self, entity: str, reason: str) -> None:
        await self._blocking(entity, reason, self.auditor.block, self.billing.block)

    async def _unblock(self, entity: str, reason: str) -> None:
        await self._blocking(entity, reason, self.auditor.unblock, self.billing.unblock)

    async def _blocking(
        self, entity: str, reason: str, ours: Callable[[str, str], None], theirs: Callable[..., Awaitable[Any]]
    ) -> None:
        named = self._entity(entity)
        if not self._exists(named):
            raise Unclear
        await self._both(lambda: ours(named, reason), lambda: theirs(named, reason=reason))

    async def _check(self, user: str, workspace: str | None) -> None:
        actor, place = self._user(user), self._place(workspace)
        if place is not None and place not in self.auditor.workspaces:
            raise Unclear
        both = await self._both(
            lambda: self.auditor.check(actor, place), lambda: self.billing.check(actor, workspace=place)
        )
        if both is not None:
            self._compare_admission(*both)

    def _compare_admission(self, ours: Any, theirs: Any) -> None:
        self.equal(f"allowed ({ours.code}; {theirs.code})", theirs.allowed, ours.allowed)
        if ours.code in {"allowed", "limit_reached", "member_cap_reached"}:
            shown = (theirs.used, theirs.held, theirs.limit)
            self.equal(f"used, held, limit ({ours.code})", shown, (ours.used, ours.held, ours.limit))

    async def _hold(self, user: str, amount: str, ttl_s: int, workspace: str | None = None) -> None:
        place = self._place(workspace)
        if place is not None and place not in self.auditor.workspaces:
            raise Unclear
        await self._ask(self._user(user), amount, self._name(f"h{self.number}"), ttl_s, place)

    async def _hold_again(self, nth: int, amount: str | None) -> None:
        """The same id, while it is active: one hold, or a conflict if it says another amount."""
        known = self.auditor.holds[self._nth(self.holds, nth)]
        gone = {f"user:{known.actor}", known.entity} & self.auditor.deleted
        if self.auditor.state_of(known) != "active" or gone:
            raise Unclear
        held = self.auditor.held(known.entity)
        await self._ask(known.actor, amount or f"{known.amount:f}", known.id, 600)
        self.equal("held", self.auditor.held(known.entity), held)

    async def _ask(self, actor: str, amount: str, name: str, ttl_s: int, place: str | None = None) -> None:
        """A hold that is not granted is raised by the Book, and an answer of the auditor."""
        try:
            ours = self.auditor.hold(actor, amount, name, ttl_s, place)
        except Refused as refused:
            ours = Admission(False, refused.code, "", ZERO, ZERO, ZERO)
        try:
            said: dict[str, Any] = {"amount": amount, "hold_id": name, "ttl_s": ttl_s, "workspace": place}
            await self._survive(lambda: self.billing.place_hold(actor, **said))
        except MeterbookError as error:
            if ours.allowed or error.retryable:
                raise Difference(f"the Book denies the hold ({error}), the auditor grants it: {ours}") from error
            return
        self.equal(f"granted ({ours})", True, ours.allowed)
        if name not in self.holds:
            self.holds.append(name)

    async def _hold_rest(self, user: str, beyond: str) -> None:
        """A hold of exactly what is left under the limit, or of a little more or less."""
        actor = self._user(user)
        payer = self.auditor.payer(actor)
        left = self.auditor.limit(payer) - self.auditor.used(payer) - self.auditor.held(payer) + Decimal(beyond)
        if left <= 0:
            raise Unclear
        await self._hold(user, f"{left:f}", 3600)

    async def _settle(self, nth: int, amount: str) -> None:
        name = self._nth(self.holds, nth)
        if {f"user:{self.auditor.holds[name].actor}", self.auditor.holds[name].entity} & self.auditor.deleted:
            raise Unclear
        key = self._name(f"settles {name}")
        await self._both(
            lambda: self.auditor.settle(name, amount, "workflow", "gpt-4o", key),
            lambda: self.billing.settle(name, amount=amount, source="workflow", description="gpt-4o", event_key=key),
        )
        self.touched.add(self.auditor.holds[name].entity)

    async def _release(self, nth: int) -> None:
        name = self._nth(self.holds, nth)
        await self._both(lambda: self.auditor.release(name), lambda: self.billing.release(name))

    async def _baseline(self, entity: str, amount: str, rows: Sequence[int]) -> None:
        named = self._entity(entity)
        period = self.auditor.current(named) if self._exists(named) else None
        if period is None or period.free or period.baseline or period.subscription is None:
            raise Unclear
        if self.auditor.subscriptions[period.subscription].status not in ENTITLED:
            raise Unclear
        part = str(Decimal(amount) / 5)
        audit = [(period.start + timedelta(days=day, minutes=1), part) for day in rows]
        await self._both(
            lambda: self.auditor.baseline(named, amount, audit),
            lambda: self.billing.set_baseline(named, amount, audit=audit),
        )
        self.touched.add(named)


def _erased(actor: str) -> str:
    """An actor's or entity's name."""
    return ERASED if actor.startswith(("#", "user:#")) else actor


def _plain(shown: Sequence[object]) -> list[str]:
    """Times in UTC as text, so that a difference can be read."""
    return [str(each.astimezone(UTC)) if isinstance(each, datetime) else str(each) for each in shown]
