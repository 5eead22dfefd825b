"""The demo's month, played: what the ledger says equals what happened."""

from collections import defaultdict
from decimal import Decimal
from itertools import takewhile

import pytest

import meterbook
from meterbook.book import Book
from meterbook.core.money import cents
from meterbook.demo import cast
from meterbook.demo.bill import bill_month
from meterbook.demo.play import DemoClock, find_latest, play, play_on, read_back
from meterbook.demo.workload import (
    Careful,
    Correction,
    Flush,
    Run,
    Step,
    Tampered,
    Turned,
    amount_of,
    running_month,
    steps,
)
from meterbook.errors import NotADemo
from tests.conftest import Clock
from tests.ledger import use

WEEK = list(takewhile(lambda step: step.at.day < 8, steps()))


def expected_total(month: list[Step]) -> Decimal:
    """Each run once, each stream at its maximum, each correction once."""
    streams: dict[str, Decimal] = defaultdict(Decimal)
    for step in month:
        if isinstance(step, Flush):
            streams[step.request] = max(streams[step.request], step.total)
    runs = sum((amount_of(entry) for step in month if isinstance(step, Run) for entry in step.entries), Decimal(0))
    corrections = sum((step.amount for step in month if isinstance(step, Correction)), Decimal(0))
    careful = sum((step.cost for step in month if isinstance(step, Careful) and step.cost), Decimal(0))
    return runs + corrections + careful + sum(streams.values(), Decimal(0))


async def test_a_week_played_is_in_the_ledger_once(book: Book, clock: Clock) -> None:
    """Whoever pays: the entities' totals add up to what happened, and every conflict was refused."""
    played = await play(book, clock, WEEK, lambda _: None)
    reports = await read_back(book)
    total, expected = sum((report.total for report in reports), Decimal(0)), expected_total(WEEK)
    assert total == expected == played.amount
    assert (played.denied, played.held) == (0, sum(isinstance(step, Careful) for step in WEEK))
    assert played.conflicts == sum(isinstance(step, Tampered) for step in WEEK)
    assert await book.verify() == []


async def test_the_workspace_decides_who_pays_for_a_freelancer(book: Book, clock: Clock) -> None:
    """She has a subscription of her own, and her work in a customer's workspace is on the customer's bill."""
    await play(book, clock, WEEK, lambda _: None)
    hers = [entry for step in WEEK if isinstance(step, Run) for entry in step.entries if entry.actor == cast.FREELANCER]
    customer = await book.usage("organization:acme")
    assert hers
    assert customer.by_actor[cast.FREELANCER] >= sum(map(amount_of, hers), Decimal(0))
    assert cast.FREELANCER not in {each.entity.removeprefix("user:") for each in await read_back(book)}


async def test_a_week_played_twice_is_a_week_played_once(book: Book, clock: Clock) -> None:
    """The second time every entry is replayed, to the same entity, though members came and went in between."""
    first = await play(book, clock, WEEK, lambda _: None)
    totals = {report.entity: report.total for report in await read_back(book)}
    second = await play(book, clock, WEEK, lambda _: None)
    assert (second.inserted, second.amount) == (0, Decimal(0))
    assert second.replayed >= first.inserted
    assert {report.entity: report.total for report in await read_back(book)} == totals


async def test_who_has_used_up_the_free_plan_is_turned_away(book: Book, clock: Clock) -> None:
    """Each time they ask; and nobody else is asked about."""
    played = await play(book, clock, WEEK, lambda _: None)
    assert played.turned == sum(isinstance(step, Turned) for step in WEEK) > 0


async def test_a_month_is_billed_once_and_every_bill_adds_up(book: Book, clock: Clock) -> None:
    """On the 1st at 01:00 each period closes; charges, credits and what is written off are the overage in cents (I7)."""
    await play(book, clock, WEEK, lambda _: None)
    first = await bill_month(book, clock)
    again = await bill_month(book, clock)
    assert (first.swept.closed, first.swept.deferred, again.swept.closed) == (9, 0, 0)
    assert again.charges == first.charges
    for report in await read_back(book):
        if report.period.kind == "dated":
            paid = report.billed_cents + report.facts.written_off_cents
            assert (report.period.state, paid) == ("closed", max(cents(report.overage), report.billed_cents))
    assert await book.verify() == []


async def test_a_month_that_was_billed_is_sent_again_and_nothing_changes(book: Book, clock: Clock) -> None:
    """The same calls at a later date: all are replayed, none is late, no hold is placed anew."""
    first = await play(book, clock, WEEK, lambda _: None)
    await bill_month(book, clock)
    again = await play(book, clock, WEEK, lambda _: None)
    assert (again.inserted, again.amount, again.held, again.conflicts) == (0, Decimal(0), 0, first.conflicts)


async def test_a_ledger_is_marked_before_the_first_made_up_row(book: Book, clock: Clock, database_url: str) -> None:
    """Where somebody is known nothing is marked or written; a mark is for good, and seen by whoever opens the ledger."""
    await use(book, "somebody", "1")
    with pytest.raises(NotADemo):
        await play(book, clock, WEEK[:10], lambda _: None)
    assert not book.is_demo
    async with meterbook.open(database_url, clock=clock) as another:
        assert not another.is_demo
    assert not await book.knows("organization:acme")


async def test_the_mark_is_seen_by_whoever_opens_the_ledger(book: Book, clock: Clock, database_url: str) -> None:
    """Also when it was made up by another process; saying it twice is saying it once."""
    await book.begin_demo()
    await book.begin_demo()
    await use(book, "somebody", "1")
    await book.begin_demo()
    async with meterbook.open(database_url, clock=clock) as another:
        assert another.is_demo


async def test_the_month_after_is_played_once(book: Book, clock: Clock) -> None:
    """Renewed subscriptions, runs of their own, one hold; a second time changes nothing, and May's bills stay."""
    await play(book, clock, WEEK, lambda _: None)
    billed = await bill_month(book, clock)
    runs = [run for run in running_month() if run.at.day < 4]
    await play_on(book, clock, runs, lambda _: None)
    first = {each: await book.usage(each) for each in ("organization:acme", "organization:hooli", "user:greta")}
    assert {report.period.starts_at for report in first.values()} == {cast.MONTH_END}
    assert first["organization:hooli"].held == Decimal(cast.RUNNING_HOLD_AMOUNT)
    assert first["user:greta"].period.plan == "pro_25000"
    await play_on(book, clock, runs, lambda _: None)
    assert {each: (await book.usage(each)).total for each in first} == {each: first[each].total for each in first}
    assert (await bill_month(book, clock)).charges == billed.charges
    latest = await find_latest(book)
    assert max(run.at for run in runs).date() == latest.date()
    assert await book.verify() == []


def test_the_running_month_has_keys_of_its_own_and_nobody_on_the_free_plan() -> None:
    """June's runs lie in June, before it is looked at."""
    runs = running_month()
    may = {entry.event_key for step in steps() if isinstance(step, Run) for entry in step.entries}
    entries = [entry for run in runs for entry in run.entries]
    assert len(entries) > 9_000
    assert not may & {entry.event_key for entry in entries}
    assert all((entry.occurred_at or run.at) >= cast.MONTH_END for run in runs for entry in run.entries)
    assert all(run.at < cast.SERVED_AT for run in runs)
    assert not {entry.actor for entry in entries} & (set(cast.unsubscribed()) - {cast.NEWCOMER})


def test_the_cast_is_forty_people_in_five_organizations() -> None:
    """Nobody twice; everybody belongs to at most one organization."""
    people = cast.people()
    assert len(people) == len(set(people)) == 40
    assert len(cast.ORGANIZATIONS) == 5
    assert DemoClock()() == cast.MONTH_START
