"""The demo's month, played against a ledger as its callers would play it, and read back from the ledger."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import groupby
from operator import itemgetter
from time import monotonic
from typing import Protocol

from meterbook.book import Book
from meterbook.core.event_keys import of_event_key
from meterbook.core.recorded import Recorded
from meterbook.core.usage_report import UsageReport
from meterbook.demo import cast
from meterbook.demo.workload import Careful, Correction, Flush, Retry, Run, Step, Tampered, Turned
from meterbook.errors import Denied, KeyConflict

MAY = (cast.MONTH_START, cast.MONTH_END)
SWEEP_EVERY = timedelta(hours=12)
HOLD_TTL_S = 3600
HOLDS_MAX = 1000


class SettableClock(Protocol):
    """A clock that a book was opened with, and that goes where it is set."""

    now: datetime


class DemoClock:
    """The month's time: it goes on with the steps, so that the figures are the same whenever it is played."""

    def __init__(self, now: datetime = cast.MONTH_START) -> None:
        self.now = now
        self._running_since: float | None = None

    def __call__(self) -> datetime:
        return (
            self.now if self._running_since is None else self.now + timedelta(seconds=monotonic() - self._running_since)
        )

    def run_from(self, now: datetime) -> None:
        """From now on by itself, as fast as any clock."""
        self.now, self._running_since = now, monotonic()


@dataclass(slots=True)
class Played:
    """What the ledger answered. ``replayed`` counts entries that it had already, ``conflicts`` calls that it refused.

    ``held`` and ``denied`` count long runs that set money aside or might not, ``turned`` checks that were denied.
    """

    calls: int = 0
    inserted: int = 0
    replayed: int = 0
    conflicts: int = 0
    held: int = 0
    denied: int = 0
    turned: int = 0
    amount: Decimal = Decimal(0)

    def add(self, recorded: Recorded) -> None:
        self.calls += 1
        self.inserted += recorded.inserted
        self.replayed += recorded.replayed
        self.amount += recorded.amount


async def play(book: Book, clock: SettableClock, steps: Iterable[Step], on_steps: Callable[[int], None]) -> Played:
    """Plays the steps, hour by hour: the runs of an hour all at once, as many callers, and what follows from them after.

    ``clock`` is the one that the book was opened with. ``on_steps`` is told how many steps were done. A month that has
    been billed is sent once more, as a caller that lost its answers would, and changes nothing. Raises `NotADemo`.
    """
    await book.begin_demo()
    played = Played()
    if await is_billed(book):
        clock.now = cast.CLOSED_AT
        for hour in _hours(steps):
            await _record(book, [step for step in hour if not isinstance(step, Turned | Careful)], played)
            on_steps(len(hour))
        return played
    clock.now = cast.MONTH_START
    await _enrol(book)
    swept = clock.now
    changes = _changes()
    for hour in _hours(steps):
        clock.now = hour[-1].at
        while changes and changes[0][0] <= clock.now:
            await changes.pop(0)[1](book)
        await _record(book, hour, played)
        if clock.now - swept >= SWEEP_EVERY:  # as a worker does all the time
            swept = clock.now
            await book.sweep()
        on_steps(len(hour))
    clock.now = cast.LAST_MOMENT
    await book.compact()
    return played


async def play_on(book: Book, clock: SettableClock, runs: Sequence[Run], on_steps: Callable[[int], None]) -> None:
    """The month after one that was billed: subscriptions are renewed and the runs recorded. Once: what is there already is left alone."""
    if await is_played_on(book):
        on_steps(len(runs))
        return
    clock.now = cast.CLOSED_AT
    await _renew(book)
    played = Played()
    for hour in _hours(runs):
        clock.now = hour[-1].at
        await _record(book, hour, played)
        on_steps(len(hour))
    clock.now = cast.SERVED_AT
    await book.sweep()
    await book.compact()
    await book.place_hold(
        cast.RUNNING_HOLDER, amount=cast.RUNNING_HOLD_AMOUNT, hold_id=cast.RUNNING_HOLD, ttl_s=HOLD_TTL_S
    )


async def is_played_on(book: Book) -> bool:
    """The hold is the last that was done."""
    payer = (await book.resolve(cast.RUNNING_HOLDER)).entity
    return any(hold.id == cast.RUNNING_HOLD for hold in await book.holds(payer, limit=HOLDS_MAX))


async def find_latest(book: Book) -> datetime:
    """When the demo's newest entry was recorded: whoever serves it again goes on from there."""
    entities = [f"organization:{each.name}" for each in cast.ORGANIZATIONS] + [f"user:{name}" for name in cast.people()]
    pages = [await book.entries(entity, limit=1, summary=False) for entity in entities]
    return max((entry.recorded_at for page in pages for entry in page.entries), default=cast.MONTH_START)


async def is_billed(book: Book) -> bool:
    """Whether the month has been closed by an earlier run."""
    first = cast.SUBSCRIBERS[0]
    return any(period.state == "closed" for period in await book.periods(f"user:{first}"))


async def _record(book: Book, hour: list[Step], played: Played) -> None:
    runs = [step for step in hour if isinstance(step, Run)]
    for recorded in await asyncio.gather(*(book.record_many(run.entries) for run in runs)):
        played.add(recorded)
    for step in hour:
        if not isinstance(step, Run):
            await _follow_up(book, step, played)


def _hours(steps: Iterable[Step]) -> Iterator[list[Step]]:
    for _, hour in groupby(steps, key=lambda step: step.at.replace(minute=0, second=0, microsecond=0)):
        yield list(hour)


async def _enrol(book: Book) -> None:
    for organization in cast.ORGANIZATIONS:
        await book.put_organization(organization.name, owner=organization.members[0])
        for member in organization.members[1:]:
            await book.add_member(organization.name, member, role="member")
        if organization.plan is not None:
            await _subscribe(book, f"organization:{organization.name}", organization.plan, organization.seats)
    for workspace, payer in cast.WORKSPACES.items():
        await book.put_workspace(workspace, payer=f"organization:{payer}")
    for person in cast.SUBSCRIBERS:
        await _subscribe(book, f"user:{person}", "pro_6000", 1)
    await _allow(book)


async def _allow(book: Book) -> None:
    for entity, limit in cast.LIMITS.items():
        await book.set_limit(entity, limit)
    for credit in cast.CREDITS:
        await book.grant_credit(
            credit.entity,
            amount=credit.amount,
            grant_id=credit.grant_id,
            source=credit.source,
            priority=credit.priority,
            expires_at=credit.expires_at,
        )


async def _renew(book: Book) -> None:
    """As Stripe tells it on the 1st."""
    upgraded = {each.owner: each.plan for each in cast.UPGRADES}
    term = (cast.MONTH_END, cast.NEXT_END)
    for organization in cast.ORGANIZATIONS:
        if organization.plan is not None:
            await _subscribe(book, f"organization:{organization.name}", organization.plan, organization.seats, term)
    for person in cast.SUBSCRIBERS:
        owner = f"user:{person}"
        await _subscribe(book, owner, upgraded.get(owner, "pro_6000"), 1, term)


async def _subscribe(book: Book, owner: str, plan: str, seats: int, term: tuple[datetime, datetime] = MAY) -> None:
    name = owner.partition(":")[2]
    await book.put_subscription(
        id=f"demo:{owner}",
        owner=owner,
        plan=plan,
        seats=seats,
        status="active",
        starts_at=term[0],
        ends_at=term[1],
        interval="month",
        stripe_customer=f"cus_demo_{name}",
        stripe_subscription=f"sub_demo_{name}",
    )


Change = Callable[[Book], Awaitable[None]]


def _changes() -> list[tuple[datetime, Change]]:
    """What customers change in the month, by time."""

    async def join(book: Book) -> None:
        await book.add_member(cast.NEWCOMER_JOINS, cast.NEWCOMER, role="member")

    upgrades = [(each.at, partial(_upgrade, upgrade=each)) for each in cast.UPGRADES]
    return sorted([(cast.NEWCOMER_JOINED_AT, join), *upgrades], key=itemgetter(0))


async def _upgrade(book: Book, upgrade: cast.Upgrade) -> None:
    await _subscribe(book, upgrade.owner, upgrade.plan, upgrade.seats)


async def _follow_up(book: Book, step: Step, played: Played) -> None:
    match step:
        case Retry(entries=entries):
            played.add(await book.record_many(entries))
        case Flush(actor=actor, request=request, total=total):
            played.add(
                await book.record_cumulative(
                    actor, request=request, total=total, source="voice-input", description="realtime-voice"
                )
            )
        case Correction(of=entry, amount=amount, reason=reason, event_key=key):
            entry_id = of_event_key(str(entry.event_key))
            played.add(await book.correct(entry_id, amount=amount, reason=reason, event_key=key))
        case Tampered(entry=entry):
            try:
                played.add(await book.record_many([entry]))
            except KeyConflict:
                played.conflicts += 1
        case Turned(actor=actor):
            played.turned += not (await book.check(actor)).allowed
        case Careful():
            await _run_carefully(book, step, played)


async def _run_carefully(book: Book, step: Careful, played: Played) -> None:
    try:
        await book.place_hold(step.actor, amount=step.amount, hold_id=step.hold_id, ttl_s=HOLD_TTL_S)
    except Denied:
        played.denied += 1
        return
    played.held += 1
    if step.cost is not None:
        settled = await book.settle(
            step.hold_id, amount=step.cost, source="workflow", description="deep-research", execution=step.hold_id
        )
        played.add(settled.recorded)


async def read_back(book: Book) -> list[UsageReport]:
    """What the ledger says of everybody who used something in the month, largest first."""
    entities = [f"organization:{each.name}" for each in cast.ORGANIZATIONS] + [f"user:{name}" for name in cast.people()]
    reports = [await book.usage(entity, await _month_of(book, entity)) for entity in entities]
    return sorted((each for each in reports if each.count), key=lambda each: (-each.total, each.entity))


async def _month_of(book: Book, entity: str) -> str | int:
    """The period that began with the month; who has no subscription has one that never ends."""
    begun = [each.id for each in await book.periods(entity) if each.starts_at == cast.MONTH_START]
    return begun[0] if begun else "current"
