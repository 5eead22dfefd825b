"""Where an entry is booked (§3.8, §6): its payer's period, half-open, and its day there."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import meterbook
from meterbook import Book, InvalidUsage
from tests.ledger import FREE, P1, P2, close, count, place_of, problems_of, query, subscribe, total, use, utc

MICRO = timedelta(microseconds=1)


def days(database_url: str) -> list[int]:
    return [row[0] for row in query(database_url, "select day from meterbook.usage_log order by occurred_at")]


async def test_a_period_is_half_open(book: Book, clock: Any) -> None:
    """At its exact end an entry is the next one's; 1 µs before, it is still its own."""
    await subscribe(book, "user:u")
    clock.now = utc(2026, 7, 1, 0, 30)
    for moment, window in ((P1[0], P1), (P1[1] - MICRO, P1), (P1[1], P2)):
        assert await place_of(book, await use(book, "u", "1", occurred_at=moment)) == ("user:u", window)


async def test_before_the_first_period_the_free_one_bears_it(book: Book) -> None:
    """1 µs before the subscription's start: none contains it."""
    await subscribe(book, "user:u")
    assert await place_of(book, await use(book, "u", "1", occurred_at=P1[0] - MICRO)) == ("user:u", FREE)


async def test_the_clock_opens_the_next_period_with_the_first_entry(book: Book, clock: Any) -> None:
    """At the end itself, without anybody's word; 1 µs earlier the old one is home."""
    await subscribe(book, "user:u")
    clock.now = P1[1] - MICRO
    assert (await place_of(book, await use(book, "u", "1")))[1] == P1
    clock.now = P1[1]
    assert (await place_of(book, await use(book, "u", "1")))[1] == P2


async def test_a_few_minutes_ahead_count_as_now(book: Book, database_url: str, clock: Any) -> None:
    """Up to 5 minutes, stored as now; 1 µs more is refused, alone or in a batch, and named."""
    ahead = clock.now + timedelta(minutes=5)
    await use(book, "u", "1", occurred_at=ahead)
    ((stored,),) = query(database_url, "select occurred_at from meterbook.usage_log")
    assert stored == clock.now
    line = {"actor": "u", "source": "s", "description": "m", "amount": "1"}
    batches: list[list[Any]] = [[ahead + MICRO], [ahead, ahead + MICRO], [None, ahead + MICRO]]
    for batch in batches:
        with pytest.raises(InvalidUsage) as refused:
            await book.record_many([line | {"event_key": f"b{n}", "occurred_at": at} for n, at in enumerate(batch)])
        assert problems_of(refused) == [(len(batch) - 1, "occurred_at", "occurred_in_the_future")]
    assert count(database_url) == 1


async def test_a_few_minutes_ahead_never_reach_the_next_period(book: Book, clock: Any) -> None:
    """Two minutes before the end, an entry stamped one minute after it is now's."""
    await subscribe(book, "user:u")
    clock.now = utc(2026, 6, 30, 23, 58)
    assert (await place_of(book, await use(book, "u", "1", occurred_at=utc(2026, 7, 1, 0, 1))))[1] == P1


async def test_a_day_is_24_hours_from_the_start_clamped_into_the_period(
    book: Book, database_url: str, clock: Any
) -> None:
    """A start at 15:00 makes days of 15:00 to 15:00; what is stamped with the period from outside counts in its first or last."""
    window = (utc(2026, 6, 10, 15), utc(2026, 7, 10, 15))
    await subscribe(book, "user:u", window=window)
    clock.now = utc(2026, 7, 10, 16)
    june = [period.id for period in await book.periods("user:u") if period.kind == "dated"][-1]
    moments = [window[0], window[0] + timedelta(days=1) - MICRO, window[0] + timedelta(days=1), window[1] - MICRO]
    for moment in moments:
        await use(book, "u", "1", occurred_at=moment)
    for outside in (utc(2026, 5, 1), window[1]):
        await use(book, "u", "1", occurred_at=outside, period=june)
    assert days(database_url) == [0, 0, 0, 1, 29, 29]


async def test_a_named_period_wins_over_the_time(book: Book, clock: Any) -> None:
    """While it takes entries: also after its end, and before its start."""
    await subscribe(book, "user:u")
    clock.now = utc(2026, 7, 1, 0, 30)
    june, july = sorted(period.id for period in await book.periods("user:u") if period.kind == "dated")
    assert (await use(book, "u", "1", period=june)).entries[0].period == june
    assert (await use(book, "u", "1", period=july, occurred_at=utc(2026, 6, 5))).entries[0].period == july


async def test_a_named_period_must_be_the_payers(book: Book, database_url: str) -> None:
    """Somebody else's, or nobody's: refused, and nothing written."""
    await use(book, "other", "1")
    await use(book, "u", "1")
    (others,) = await book.periods("user:other")
    for period in (others.id, 999_999, -1, 0, 2**63 - 1):
        with pytest.raises(InvalidUsage) as refused:
            await use(book, "u", "1", period=period)
        assert problems_of(refused) == [(0, "period", "period_of_another_payer")]
    assert count(database_url) == 2


async def test_a_named_entity_pays(book: Book) -> None:
    """Whoever the actor is, and one who was never heard of; with the period that its own time picks."""
    await subscribe(book, "user:payer")
    assert await place_of(book, await use(book, "u", "1", entity="user:payer")) == ("user:payer", P1)
    assert await place_of(book, await use(book, "u", "1", entity="user:new")) == ("user:new", FREE)
    await book.put_organization("o", owner="boss")
    assert await place_of(book, await use(book, "u", "1", entity="organization:o")) == ("organization:o", FREE)


async def test_an_unknown_organization_is_an_error(book: Book, database_url: str) -> None:
    """Never a default payer; also in a batch, by its place."""
    line = {"actor": "u", "source": "s", "description": "m", "amount": "1"}
    batch = [line | {"event_key": "a"}, line | {"event_key": "b", "entity": "organization:nobody"}]
    with pytest.raises(InvalidUsage) as refused:
        await book.record_many(batch)
    assert problems_of(refused) == [(1, "entity", "unknown_entity")]
    assert count(database_url) == 0


async def test_entity_and_workspace_must_agree(book: Book, database_url: str) -> None:
    """Given together, they name one payer; a workspace without a payer agrees with everybody."""
    await book.put_workspace("w", payer="user:payer")
    await book.put_workspace("nobody's")
    with pytest.raises(InvalidUsage) as refused:
        await use(book, "u", "1", entity="user:u", workspace="w")
    assert problems_of(refused) == [(0, "entity", "attribution_disagrees")]
    assert count(database_url) == 0
    for entity, workspace in (("user:payer", "w"), ("user:u", "nobody's")):
        assert (await use(book, "u", "1", entity=entity, workspace=workspace)).entries[0].entity == entity


async def test_an_attribution_keeps_its_payer_and_period(book: Book, clock: Any) -> None:
    """Resolved before work begins: it does not expire, whoever pays when it is recorded, and while its period takes entries."""
    await subscribe(book, "user:u")
    token = (await book.resolve("u")).token
    await book.put_organization("o", owner="u")
    await subscribe(book, "organization:o", "team_6000")
    clock.now = utc(2026, 7, 1, 0, 30)
    assert await place_of(book, await use(book, "u", "1", attribution=token)) == ("user:u", P1)
    assert await place_of(book, await use(book, "u", "1", attribution=token, occurred_at=clock.now)) == ("user:u", P1)
    assert (await place_of(book, await use(book, "u", "1")))[0] == "organization:o"


async def test_an_attribution_of_a_closed_period_is_late(book: Book, database_url: str, clock: Any) -> None:
    """Booked to its payer's open subscription period, naming the closed one."""
    await subscribe(book, "user:u")
    attribution = await book.resolve("u")
    clock.now = utc(2026, 7, 2)
    july = (await book.usage("user:u")).period.id
    close(database_url, attribution.period)
    (late,) = (await use(book, "u", "1", attribution=attribution)).entries
    assert (late.period, late.belongs_to) == (july, attribution.period)


async def test_entity_workspace_and_attribution_must_agree(book: Book, database_url: str) -> None:
    """An attribution given with another entity, workspace, actor or period than its payer's is refused."""
    await book.put_workspace("w", payer="user:payer")
    in_workspace, own = await book.resolve("u", "w"), await book.resolve("u")
    wrong: list[dict[str, Any]] = [
        {"attribution": own, "entity": "user:payer"},
        {"attribution": own, "workspace": "w"},
        {"attribution": in_workspace, "workspace": "w2"},
        {"attribution": in_workspace, "actor": "other"},
        {"attribution": in_workspace, "period": own.period},
    ]
    for said in wrong:
        with pytest.raises(InvalidUsage):
            await use(book, **({"actor": "u", "amount": "1"} | said))
    assert count(database_url) == 0
    agreed = await use(book, "u", "1", attribution=in_workspace, workspace="w", entity="user:payer")
    assert agreed.entries[0].entity == "user:payer"


FORGED: list[tuple[dict[str, Any], tuple[str, str]]] = [
    ({"entity": "user:other"}, ("attribution", "attribution_disagrees")),
    ({"entity": "organization:payer"}, ("attribution", "attribution_disagrees")),
    ({"entity": "payer"}, ("attribution", "attribution_disagrees")),
    ({"entity_id": 2**40}, ("attribution", "attribution_disagrees")),
    ({"period": 2**40}, ("period", "period_of_another_payer")),
    ({"workspace": "never heard of"}, ("workspace", "unknown_workspace")),
]


@pytest.mark.parametrize(("change", "problem"), FORGED)
async def test_the_parts_of_an_attribution_must_agree(
    book: Book, database_url: str, change: dict[str, Any], problem: tuple[str, str]
) -> None:
    """Its payer's name, surrogate, period and workspace: alone, in a batch, in bulk, of a running total; nothing is written."""
    await book.put_workspace("w", payer="user:payer")
    await book.usage("user:other")
    forged = replace(await book.resolve("u", "w"), **change)
    one = {"actor": "u", "source": "s", "description": "d", "amount": "1", "attribution": forged.token}
    for entries in ([one | {"event_key": "a"}], [{**one, "event_key": str(n)} for n in range(2)]):
        with pytest.raises(InvalidUsage) as refused:
            await book.record_many(entries)
        assert problems_of(refused) == [(n, *problem) for n in range(len(entries))]
    bulk = await book.record_bulk([{**one, "event_key": str(n)} for n in range(300)])
    assert {(one.field, one.code) for one in bulk.problems} == {problem}
    if "period" not in change:  # of a running total each rise is placed by its own time
        with pytest.raises(InvalidUsage) as refused:
            await book.record_cumulative(
                "u", request="r", total="1", source="s", description="d", attribution=forged.token
            )
        assert problems_of(refused) == [(0, *problem)]
    assert count(database_url) == count(database_url, "cumulative_request") == 0


async def test_an_attribution_outlives_the_name_of_its_payer(book: Book) -> None:
    """The payer was erased, and another person has the name since: what was resolved before goes to the surrogate, which owes it."""
    await book.put_workspace("w", payer="user:payer")
    attribution = await book.resolve("u", "w")
    await book.delete_user("payer")
    await use(book, "payer", "1")
    (entry,) = (await use(book, "u", "2", attribution=attribution)).entries
    assert (entry.entity, entry.period) == (f"user:#{attribution.entity_id}", attribution.period)
    assert await total(book, "user:payer") == 1
    assert await book.verify() == []


async def test_a_late_entry_is_booked_to_the_open_period(book: Book, database_url: str, clock: Any) -> None:
    """It names the closed one, which stays as it was, and counts in the open one's first day. Σ ledger = Σ periods."""
    await subscribe(book, "user:u")
    june = (await use(book, "u", "5")).entries[0].period
    clock.now = utc(2026, 7, 4)
    await book.usage("user:u")
    close(database_url, june)
    (late,) = (await use(book, "u", "3", occurred_at=utc(2026, 6, 30))).entries
    assert late.belongs_to == june
    usage = await book.usage("user:u")
    assert (usage.period.starts_at, dict(usage.by_day)) == (P2[0], {0: Decimal(3)})
    assert await total(book, "user:u", june) == 5


async def test_a_late_entry_without_an_open_subscription_goes_to_the_free_period(
    book: Book, database_url: str, clock: Any
) -> None:
    """The subscription has ended, its last period is closed."""
    await subscribe(book, "user:u", cancel_at_period_end=True)
    june = (await use(book, "u", "5")).entries[0].period
    clock.now = utc(2026, 7, 4)
    await book.usage("user:u")
    close(database_url, june)
    late = await use(book, "u", "3", occurred_at=utc(2026, 6, 30))
    assert await place_of(book, late) == ("user:u", FREE)
    assert late.entries[0].belongs_to == june


async def test_a_batch_is_placed_entry_by_entry(book: Book, clock: Any) -> None:
    """As each would be alone: late, of the last period, of this one, of another payer."""
    await subscribe(book, "user:u")
    may = (P1[0] - timedelta(days=31), P1[0])
    clock.now = utc(2026, 7, 4)
    await book.usage("user:u")
    line: dict[str, Any] = {"actor": "u", "source": "s", "description": "m", "amount": "1"}
    moments = [may[0], utc(2026, 6, 2), utc(2026, 7, 2), None]
    batch = [line | {"event_key": f"b{n}", "occurred_at": at} for n, at in enumerate(moments)]
    reply = await book.record_many([*batch, line | {"event_key": "p", "entity": "user:p"}])
    starts = {period.id: period.starts_at for entity in ("user:u", "user:p") for period in await book.periods(entity)}
    assert [starts[entry.period] for entry in reply.entries] == [FREE[0], P1[0], P2[0], P2[0], FREE[0]]


async def test_an_hour_that_clocks_go_through_twice_is_two_hours(database_url: str) -> None:
    """§6, §3.8: 02:30 before and after the clocks go back are equal to Python, and an hour apart: in bulk as one by one."""
    berlin = ZoneInfo("Europe/Berlin")
    times = [datetime(2025, 10, 26, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1)]
    async with meterbook.open(database_url) as book:
        await book.record_many([spent("one by one", n, at) for n, at in enumerate(times)])
        reply = await book.record_bulk([spent("in bulk", n, times[n % 2]) for n in range(400)])
        assert not reply.problems
        page = await book.entries("user:in bulk", limit=500)
        assert Counter(entry.occurred_at.hour for entry in page.entries) == {0: 200, 1: 200}
        assert sorted(entry.occurred_at.hour for entry in (await book.entries("user:one by one")).entries) == [0, 1]


def spent(actor: str, number: int, at: datetime) -> dict[str, Any]:
    return {
        "actor": actor,
        "source": "s",
        "description": "d",
        "amount": "1",
        "event_key": f"{actor}{number}",
        "occurred_at": at,
    }
