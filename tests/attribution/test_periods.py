"""Periods (§4, §7, §10): which there are, and how the clock opens them."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

import meterbook
from meterbook import Book, InvalidUsage
from meterbook.errors import UnknownPeriod
from meterbook.postgres.migrate import migrate
from tests.conftest import Clock
from tests.ledger import FREE, P1, P2, Window, close, place_of, query, subscribe, use, utc, windows

CATALOG = Path(meterbook.__file__).parent / "catalogs" / "origin.toml"


async def where(book: Book, actor: str = "u") -> tuple[str, Window]:
    return await place_of(book, await use(book, actor, "1"))


async def test_several_periods_behind_are_opened_one_by_one(book: Book, database_url: str, clock: Any) -> None:
    """The first entry after three quiet months opens each month."""
    await subscribe(book, "user:u")
    clock.now = utc(2026, 9, 15)
    assert (await where(book))[1] == (utc(2026, 9, 1), utc(2026, 10, 1))
    assert windows(database_url, "user:u") == [(utc(2026, n, 1), utc(2026, n + 1, 1)) for n in (6, 7, 8, 9)]


async def test_each_read_opens_what_the_clock_opens(book: Book, clock: Any) -> None:
    """The last period is the one that ended last, also for the first who asks after quiet months; so is the list."""
    await subscribe(book, "user:u")
    clock.now = utc(2026, 9, 15)
    last = await book.usage("user:u", "last")
    assert (last.period.starts_at, last.period.state) == (utc(2026, 8, 1), "closing")
    clock.now = utc(2026, 11, 15)
    assert (await book.periods("user:u"))[0].starts_at == utc(2026, 11, 1)
    clock.now = utc(2026, 12, 1)
    assert (await book.usage("user:u")).period.starts_at == utc(2026, 12, 1)


async def test_month_ends_are_clamped_from_the_original_anchor(book: Book, database_url: str, clock: Any) -> None:
    """31 January → 28 February → 31 March → 30 April."""
    clock.now = utc(2026, 1, 31, 12)
    await subscribe(book, "user:u", window=(utc(2026, 1, 31, 9), utc(2026, 2, 28, 9)))
    clock.now = utc(2026, 4, 15)
    await where(book)
    ends = [end for _, end in windows(database_url, "user:u")]
    assert ends == [utc(2026, 2, 28, 9), utc(2026, 3, 31, 9), utc(2026, 4, 30, 9)]


async def test_a_renewal_of_a_clamped_month_keeps_the_anchor(book: Book, database_url: str, clock: Any) -> None:
    """Stripe reports [28 February, 31 March) after 31 January: the period that the clock opened is that one."""
    clock.now = utc(2026, 1, 31, 12)
    await subscribe(book, "user:u", window=(utc(2026, 1, 31), utc(2026, 2, 28)))
    clock.now = utc(2026, 2, 28, 1)
    await where(book)
    await subscribe(book, "user:u", window=(utc(2026, 2, 28), utc(2026, 3, 31)))
    clock.now = utc(2026, 4, 2)
    await where(book)
    assert windows(database_url, "user:u") == [
        (utc(2026, 1, 31), utc(2026, 2, 28)),
        (utc(2026, 2, 28), utc(2026, 3, 31)),
        (utc(2026, 3, 31), utc(2026, 4, 30)),
    ]


async def test_a_year_has_monthly_windows(book: Book, database_url: str, clock: Any) -> None:
    """Anchored at its start, each with its own included usage; the next year goes on from its end."""
    await subscribe(book, "user:u", window=(utc(2026, 5, 31), utc(2027, 5, 31)), interval="year")
    assert await where(book) == ("user:u", (utc(2026, 5, 31), utc(2026, 6, 30)))
    clock.now = utc(2026, 7, 31)
    usage = await book.usage("user:u")
    assert (usage.period.starts_at, usage.period.ends_at) == (utc(2026, 7, 31), utc(2026, 8, 31))
    assert usage.included == 30
    clock.now = utc(2027, 6, 1)
    assert (await where(book))[1] == (utc(2027, 5, 31), utc(2027, 6, 30))
    assert len(windows(database_url, "user:u")) == 13


async def test_first_contact_with_a_running_subscription_opens_its_running_window(
    book: Book, database_url: str
) -> None:
    """An annual one that began in January, reported in June: nothing is opened for what went before."""
    await subscribe(book, "user:u", window=(utc(2026, 1, 1), utc(2027, 1, 1)), interval="year")
    assert await where(book) == ("user:u", P1)
    assert windows(database_url, "user:u") == [P1]


async def test_unpaid_rests_and_comes_back(book: Book, database_url: str) -> None:
    """Entries go to the free period meanwhile, and back when it is paid; past_due does not rest. Its period stays one."""
    await subscribe(book, "user:u")
    seen = []
    for status in ("active", "past_due", "unpaid", "paused", "active"):
        await subscribe(book, "user:u", status=status)
        seen.append((await where(book))[1])
    assert seen == [P1, P1, FREE, FREE, P1]
    assert windows(database_url, "user:u") == [P1]


async def test_a_resting_period_takes_no_entries_of_its_time(book: Book) -> None:
    """Neither does one that names its time go there; one that names it, or was attributed to it, does."""
    await subscribe(book, "user:u")
    attribution = await book.resolve("u")
    await subscribe(book, "user:u", status="unpaid")
    early = utc(2026, 6, 3)
    assert (await place_of(book, await use(book, "u", "1", occurred_at=early)))[1] == FREE
    assert (await place_of(book, await use(book, "u", "1", attribution=attribution)))[1] == P1


BETTER: Window = (utc(2026, 6, 10), utc(2026, 7, 10))


async def test_a_better_subscription_lets_the_other_rest_and_cuts_nothing(
    book: Book, database_url: str, clock: Clock
) -> None:
    """§4, §10: of two subscriptions of one owner the better pays. The other keeps its one allowance, and takes entries again afterwards."""
    clock.now = utc(2026, 6, 5)
    await subscribe(book, "user:u", "pro")
    await use(book, "u", "15.00")
    clock.now = utc(2026, 6, 10)
    await subscribe(book, "user:u", "pro_25000", BETTER, id="better")
    assert (await place_of(book, await use(book, "u", "40.00")))[1] == BETTER
    assert windows(database_url, "user:u") == [P1, BETTER]
    clock.now = utc(2026, 6, 20)
    await subscribe(book, "user:u", "pro_25000", BETTER, id="better", status="canceled")
    await use(book, "u", "15.00")
    assert windows(database_url, "user:u") == [P1, (BETTER[0], clock.now)]
    usage = await book.usage("user:u")
    assert (usage.total, usage.included, usage.refresh, usage.overage) == (
        Decimal(30),
        Decimal(20),
        Decimal("0.40"),
        Decimal("9.60"),
    )


async def test_the_better_ones_rest_leaves_the_other_its_own_time(book: Book, database_url: str, clock: Clock) -> None:
    """§4: a better subscription that is unpaid keeps its period and blocks nobody's."""
    await subscribe(book, "user:u", "pro_25000", BETTER, id="better")
    await subscribe(book, "user:u", "pro")
    assert (await place_of(book, await use(book, "u", "1.00")))[1] == BETTER
    await subscribe(book, "user:u", "pro_25000", BETTER, id="better", status="unpaid")
    assert (await place_of(book, await use(book, "u", "1.00")))[1] == P1
    clock.now = utc(2026, 7, 3)
    assert (await place_of(book, await use(book, "u", "1.00")))[1] == P2
    await subscribe(book, "user:u", "pro_25000", BETTER, id="better")
    assert (await place_of(book, await use(book, "u", "1.00")))[1] == BETTER
    assert windows(database_url, "user:u") == [P1, BETTER, P2]


async def test_an_entry_of_before_belongs_to_the_best_of_its_time(book: Book, clock: Clock) -> None:
    """§3.8: what occurred while the better one paid goes there, also when it is told after that has ended."""
    clock.now = utc(2026, 6, 10)
    await subscribe(book, "user:u", "pro")
    await subscribe(book, "user:u", "pro_25000", BETTER, id="better")
    clock.now = utc(2026, 6, 20)
    await subscribe(book, "user:u", "pro_25000", BETTER, id="better", status="canceled")
    cut = (BETTER[0], clock.now)
    clock.now += timedelta(minutes=30)
    for occurred, expected in ((utc(2026, 6, 9), P1), (utc(2026, 6, 15), cut), (utc(2026, 6, 20), P1), (None, P1)):
        assert (await place_of(book, await use(book, "u", "1.00", occurred_at=occurred)))[1] == expected


async def test_a_free_period_goes_on_where_it_was(book: Book) -> None:
    """S79 without its baseline: 1.50 free, then paid, then canceled → free again at 1.50 + what comes; never billed."""
    await use(book, "u", "1.50")
    await subscribe(book, "user:u")
    await use(book, "u", "9.00")
    usage = await book.usage("user:u")
    assert (usage.total, usage.limit) == (Decimal(9), Decimal(30))
    await subscribe(book, "user:u", status="canceled")
    usage = await book.usage("user:u")
    assert (usage.total, usage.limit, usage.period.kind) == (Decimal("1.50"), Decimal(5), "free")


async def test_a_canceled_subscription_is_cut_at_that_moment(book: Book, database_url: str, clock: Any) -> None:
    """Its end becomes now, or the moment that Stripe names; the same word again cuts no earlier and no later."""
    await subscribe(book, "user:u")
    effective = utc(2026, 6, 19, 6)
    await subscribe(book, "user:u", status="canceled", effective_at=effective)
    clock.now = utc(2026, 6, 25)
    await subscribe(book, "user:u", status="canceled")
    assert windows(database_url, "user:u") == [(P1[0], effective)]


async def test_stripes_word_moves_an_end_never_before_now(book: Book, database_url: str) -> None:
    """The same start with another end; a day that has passed becomes now."""
    await subscribe(book, "user:u")
    await subscribe(book, "user:u", window=(P1[0], utc(2026, 7, 5)))
    assert windows(database_url, "user:u") == [(P1[0], utc(2026, 7, 5))]
    await subscribe(book, "user:u", window=(P1[0], utc(2026, 6, 10)))
    assert windows(database_url, "user:u")[0] == (P1[0], utc(2026, 6, 20, 12))


async def test_a_later_start_cuts_and_the_next_begins_there(book: Book, database_url: str) -> None:
    """A re-anchor on 11 June: [1 June, 11 June) and [11 June, 11 July)."""
    await subscribe(book, "user:u")
    anchored = (utc(2026, 6, 11), utc(2026, 7, 11))
    await subscribe(book, "user:u", window=anchored)
    assert windows(database_url, "user:u") == [(P1[0], anchored[0]), anchored]
    assert await where(book) == ("user:u", anchored)


async def test_the_allowance_rises_and_never_falls(book: Book, clock: Any) -> None:
    """An upgrade helps at once, a downgrade and fewer seats wait for the next period."""
    seen = []
    for plan, seats in (("team_6000", 2), ("team_6000", 5), ("team_6000", 3), ("team", 1)):
        await subscribe(book, "user:u", plan, seats=seats)
        usage = await book.usage("user:u")
        seen.append((usage.included, usage.period.refresh_per_day))
    assert [included for included, _ in seen] == [60, 150, 150, 150]
    assert [refresh for _, refresh in seen] == [Decimal("0.50"), *[Decimal("1.25")] * 3]
    clock.now = P1[1]
    usage = await book.usage("user:u")
    assert usage.included == 40


async def test_a_change_between_overage_and_none_cuts(book: Book, database_url: str, clock: Any) -> None:
    """pro → enterprise on 20 June: two periods, the second without overage, until the same end."""
    await subscribe(book, "user:u")
    await subscribe(book, "user:u", "enterprise")
    assert windows(database_url, "user:u") == [(P1[0], clock.now), (clock.now, P1[1])]
    assert (await book.usage("user:u")).included is None


async def test_a_subscription_that_passes_to_another_owner_cuts(book: Book, database_url: str, clock: Any) -> None:
    """From the person to the person's organization: the person's segment ends now, the organization's begins."""
    await subscribe(book, "user:u", id="s")
    await use(book, "u", "80.25")
    await book.put_organization("o", owner="u")
    await subscribe(book, "organization:o", "team_6000", id="s", seats=2)
    assert windows(database_url, "user:u") == [(P1[0], clock.now)]
    assert windows(database_url, "organization:o") == [(clock.now, P1[1])]
    usage = await book.usage("organization:o")
    assert (usage.total, usage.limit) == (Decimal(0), Decimal(60))
    assert (await book.resolve("u")).entity == "organization:o"


async def test_a_closed_period_is_amended_by_nothing(book: Book, database_url: str, clock: Any) -> None:
    """Neither its end nor its allowance."""
    await subscribe(book, "user:u")
    await use(book, "u", "1")
    clock.now = utc(2026, 7, 2)
    (june,) = [period for period in await book.periods("user:u") if period.starts_at == P1[0]]
    close(database_url, june.id)
    await subscribe(book, "user:u", "pro_25000", (P1[0], utc(2026, 7, 5)), effective_at=utc(2026, 6, 5))
    (after,) = [period for period in await book.periods("user:u") if period.id == june.id]
    assert (after.ends_at, after.included, after.state) == (P1[1], Decimal(30), "closed")


async def test_a_replayed_word_changes_nothing(book: Book, database_url: str) -> None:
    """The same call ten times: the same periods, the same rows."""
    await subscribe(book, "user:u")
    before = query(database_url, "select * from meterbook.billing_period order by id")
    for _ in range(10):
        await subscribe(book, "user:u")
    assert query(database_url, "select * from meterbook.billing_period order by id") == before


async def test_an_old_word_after_the_renewal_moves_nothing_back(book: Book, database_url: str, clock: Any) -> None:
    """July's entries stay in July, and no period overlaps."""
    await subscribe(book, "user:u")
    clock.now = utc(2026, 7, 1, 0, 10)
    await subscribe(book, "user:u", window=P2)
    await subscribe(book, "user:u", window=P1)
    assert windows(database_url, "user:u") == [P1, P2]
    assert await where(book) == ("user:u", P2)


async def test_no_two_periods_overlap(book: Book, database_url: str) -> None:
    """Refused by the database within a series, a subscription's or the free one; the series lie beside each other."""
    await subscribe(book, "user:u")
    await use(book, "u", "1")
    copy = (
        "insert into meterbook.billing_period"
        " (entity_id, kind, starts_at, ends_at, subscription_id, plan, seats, included, refresh_per_day, opened_at)"
        " select entity_id, kind, starts_at + %s, ends_at, coalesce(%s, subscription_id), plan, seats, included, refresh_per_day, opened_at"
        " from meterbook.billing_period where kind = %s"
    )
    for kind in ("dated", "free"):
        with pytest.raises(psycopg.errors.ExclusionViolation):
            query(database_url, copy, timedelta(days=3), None, kind)
    query(database_url, copy, timedelta(days=3), "another", "dated")


@pytest.fixture
async def calendar_book(empty_database_url: str, clock: Clock, tmp_path: Path) -> Any:
    """A book whose catalog says free_period = "calendar"."""
    said = CATALOG.read_text()
    assert 'free_period = "lifetime"' in said
    catalog = tmp_path / "calendar.toml"
    catalog.write_text(said.replace('free_period = "lifetime"', 'free_period = "calendar"'))
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as conn:
        await migrate(conn, free_period="calendar")
    async with meterbook.open(empty_database_url, catalog=catalog, clock=clock) as opened:
        yield opened


async def test_a_free_period_may_be_the_calendar_month(calendar_book: Book, clock: Clock) -> None:
    """UTC months, one after the other; an entry of last month goes there, one of a month nobody opened to now's."""
    book = calendar_book
    assert await where(book) == ("user:u", P1)
    clock.now = utc(2026, 7, 1)
    assert await where(book) == ("user:u", P2)
    june = await use(book, "u", "1", occurred_at=utc(2026, 6, 30, 23))
    assert await place_of(book, june) == ("user:u", P1)
    assert (await book.usage("user:u", "last")).total == 2


async def test_an_entry_of_an_unopened_calendar_month_is_placed(calendar_book: Book, clock: Clock) -> None:
    """Months without a visit were opened all the same; what was before first contact counts in the first there is."""
    await where(calendar_book)
    clock.now = utc(2026, 9, 15)
    july = await use(calendar_book, "u", "1", occurred_at=utc(2026, 7, 10))
    assert (await place_of(calendar_book, july))[1] == P2
    april = await use(calendar_book, "u", "1", occurred_at=utc(2026, 4, 10))
    assert (await place_of(calendar_book, april))[1] == P1


async def test_a_person_who_never_used_anything_has_no_last_period(book: Book) -> None:
    """And no period that another has, or nobody."""
    (free,) = await book.periods("user:other")
    for period in ("last", free.id, -1, 2**63, 2**70, True, "next", None, 1.0):
        with pytest.raises(UnknownPeriod):
            await book.usage("user:u", period)  # type: ignore[arg-type]


async def test_an_entry_of_a_deleted_person_is_corrected_after_the_clock_has_moved_on(
    calendar_book: Book, clock: Clock, empty_database_url: str
) -> None:
    """Its month closed, another begun, no sweep yet: booked where the surrogate's entries go now; nobody of that name is made up."""
    entry = (await use(calendar_book, "u", "5")).entries[0].id
    await calendar_book.delete_user("u")
    known = query(empty_database_url, "select count(*) from meterbook.billing_entity")
    clock.now = utc(2026, 7, 10)
    await calendar_book.sweep()
    clock.now = utc(2026, 8, 10)
    corrected = await calendar_book.correct(entry, amount="2", reason="test", event_key="more")
    assert corrected.entries[0].entity.startswith("user:#")
    assert query(empty_database_url, "select count(*) from meterbook.billing_entity") == known


async def test_a_hold_of_a_deleted_person_is_settled_after_the_clock_has_moved_on(
    calendar_book: Book, clock: Clock, empty_database_url: str
) -> None:
    """Its own surrogate owes it, in the month that runs."""
    hold = await calendar_book.place_hold("u", amount="1", hold_id="h", ttl_s=7 * 24 * 3600)
    await calendar_book.delete_user("u")
    clock.now = utc(2026, 7, 10)
    settled = await calendar_book.settle("h", amount="2", source="workflow", description="gpt-4o")
    (entity,) = {one.entity for one in settled.recorded.entries}
    assert entity == "user:#" + str(query(empty_database_url, "select entity_id from meterbook.hold")[0][0])
    assert hold.amount == Decimal(1)
    assert await calendar_book.verify() == []


async def test_a_surrogate_is_no_name_of_a_person(book: Book) -> None:
    """`#7` is how an erased person is shown: an id of that form could be taken for them, and is refused."""
    with pytest.raises(InvalidUsage, match="erased"):
        await use(book, "#7", "1")
    with pytest.raises(InvalidUsage, match="erased"):
        await book.put_organization("#7", owner="u")
