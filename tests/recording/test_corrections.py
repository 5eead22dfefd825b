"""Corrections (§3.7): new rows that point at what they correct."""

import asyncio
from decimal import Decimal
from random import Random
from typing import Any

import psycopg
import pytest

from meterbook import Book, InvalidUsage, KeyConflict
from meterbook.errors import CorrectionRefused, UnknownEntry
from tests.ledger import amounts, close, count, query, subscribe, sums, total, use, utc


async def correct(book: Book, entry: str, amount: Any, key: str = "fix", **said: Any) -> Any:
    return await book.correct(entry, amount=amount, reason="counted twice", event_key=key, **said)


async def used(book: Book, amount: str = "5.00", **said: Any) -> Any:
    return (await use(book, "u", amount, **said)).entries[0]


async def test_a_correction_keeps_what_it_corrects(book: Book, database_url: str) -> None:
    """Entity, actor, category, source, description, day, references: whoever pays now, and whenever it is made."""
    await book.put_workspace("w")
    wrong = await used(book, workspace="w", category="tool", execution="e", occurred_at=utc(2026, 6, 3))
    await book.put_organization("o", owner="u")
    await subscribe(book, "organization:o", "team_6000")
    await correct(book, wrong.id, "-2")
    await correct(book, wrong.id, "0.50", key="more")
    kept = "select distinct entity_id, period_id, day, actor_id, occurred_at, category, source, description, workspace, execution"
    assert len(query(database_url, f"{kept} from meterbook.usage_log")) == 1
    assert sums(database_url) == {"user:u": Decimal("3.50")}


async def test_an_entry_and_its_corrections_never_fall_below_zero(book: Book, database_url: str) -> None:
    """To exactly zero, and back up; not beyond, whether at once or in steps."""
    wrong = await used(book)
    with pytest.raises(CorrectionRefused):
        await correct(book, wrong.id, "-5.000000000001", key="too much")
    await correct(book, wrong.id, "-3", key="first")
    with pytest.raises(CorrectionRefused):
        await correct(book, wrong.id, "-2.01", key="second")
    await correct(book, wrong.id, "-2", key="third")
    await correct(book, wrong.id, "3", key="fourth")
    assert await total(book, "user:u") == 3
    assert count(database_url) == 4
    raised = await used(book, "1.00")
    await correct(book, raised.id, "3.00", key="up")
    await correct(book, raised.id, "-4.00", key="down by more than there was at first")
    assert await total(book, "user:u") == 3
    assert await book.verify() == []


async def test_concurrent_corrections_never_go_below_zero(book: Book, database_url: str, seed: int) -> None:
    """30 of −0.70 on 5.00 at once: exactly seven fit."""
    wrong = await used(book)
    keys = [f"fix {n}" for n in range(30)]
    Random(seed).shuffle(keys)
    done = await asyncio.gather(*(correct(book, wrong.id, "-0.70", key) for key in keys), return_exceptions=True)
    assert sum(isinstance(one, CorrectionRefused) for one in done) == 23
    assert sums(database_url) == {"user:u": Decimal("0.10")}


async def test_a_refused_correction_leaves_its_key_free(book: Book) -> None:
    """Nothing was written: the same key may correct by less."""
    wrong = await used(book)
    with pytest.raises(CorrectionRefused):
        await correct(book, wrong.id, "-9")
    assert (await correct(book, wrong.id, "-2")).inserted == 1


async def test_a_correction_is_not_itself_corrected(book: Book, database_url: str) -> None:
    """The error says to correct the entry it points at."""
    fix = (await correct(book, (await used(book)).id, "-2")).entries[0]
    with pytest.raises(CorrectionRefused, match="correct the entry that it points at"):
        await correct(book, fix.id, "1", key="fix of the fix")
    assert count(database_url) == 2


async def test_a_correction_retried_is_replayed_and_otherwise_a_counted_conflict(book: Book, database_url: str) -> None:
    """Another amount or another entry under its key; and a key that named usage, or is named by usage later."""
    wrong, other = await used(book, key="usage"), await used(book)
    await correct(book, wrong.id, "-2")
    assert (await correct(book, wrong.id, "-2.00")).replayed == 1
    for entry, amount, key in ((wrong.id, "-1", "fix"), (other.id, "-2", "fix"), (wrong.id, "-2", "usage")):
        with pytest.raises(KeyConflict):
            await correct(book, entry, amount, key)
    with pytest.raises(KeyConflict):
        await use(book, "u", "1.00", "fix")
    assert amounts(database_url) == [-2, 5, 5]
    assert count(database_url, "key_conflict") == 4


async def test_a_conflict_of_corrections_shows_both_versions(book: Book) -> None:
    """The amount, and the entry that is corrected."""
    wrong, other = await used(book), await used(book)
    await correct(book, wrong.id, "-2")
    with pytest.raises(KeyConflict, match="amount -2 then, -1 now"):
        await correct(book, wrong.id, "-1")
    with pytest.raises(KeyConflict, match=f"corrects {wrong.id} then, {other.id} now"):
        await correct(book, other.id.replace("-", ""), "-2")


async def test_an_unknown_entry_and_bad_input_write_nothing(book: Book, database_url: str) -> None:
    """An id that nobody gave out, an amount that is none, no reason, no key; an amount of 0 is accepted and writes nothing."""
    wrong = await used(book)
    for entry in ("0" * 32, "no id", "", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(UnknownEntry):
            await correct(book, entry, "-1")
    for amount in (0.5, True, "NaN", Decimal("Infinity"), "1e1", "-0.1234567890123", 10**12, None):
        with pytest.raises(InvalidUsage):
            await correct(book, wrong.id, amount)
    for reason, key in (("", "fix"), ("why", ""), ("\0", "fix"), ("why", "k" * 513), ("\ud800", "fix")):
        with pytest.raises(InvalidUsage):
            await book.correct(wrong.id, amount="-1", reason=reason, event_key=key)
    assert (await correct(book, wrong.id, 0)).inserted == 0
    assert count(database_url) == 1


async def closed_june(book: Book, database_url: str, clock: Any) -> tuple[Any, int]:
    """5.00 on 3 June of a pro_6000, June closed, July open; the entry and July's id."""
    await subscribe(book, "user:u")
    wrong = await used(book, occurred_at=utc(2026, 6, 3))
    clock.now = utc(2026, 7, 4, 12)
    july = (await book.usage("user:u")).period.id
    close(database_url, wrong.period)
    return wrong, july


async def test_a_negative_correction_of_a_closed_period_is_given_back_in_money(
    book: Book, database_url: str, clock: Any
) -> None:
    """In the open period's total and list, in no effective usage, on no day; it names the closed one, which stays as it was."""
    wrong, july = await closed_june(book, database_url, clock)
    await used(book, "3.00")
    (fix,) = (await correct(book, wrong.id, "-2.00")).entries
    assert (fix.period, fix.belongs_to) == (july, wrong.period)
    usage = await book.usage("user:u")
    assert [usage.total, usage.given_back, usage.refresh, usage.effective] == [
        Decimal(1),
        Decimal(-2),
        Decimal("0.25"),
        Decimal("2.75"),
    ]
    assert dict(usage.by_day) == {3: 3}
    assert await total(book, "user:u", wrong.period) == 5
    await book.compact()
    assert (await book.usage("user:u")).effective == Decimal("2.75")
    assert await book.verify() == []


async def test_a_positive_correction_of_a_closed_period_is_late_usage(
    book: Book, database_url: str, clock: Any
) -> None:
    """On the first day of the open period, where its own day is clamped to."""
    wrong, july = await closed_june(book, database_url, clock)
    (more,) = (await correct(book, wrong.id, "2.00")).entries
    assert (more.period, more.belongs_to) == (july, wrong.period)
    assert dict((await book.usage("user:u")).by_day) == {0: 2}


async def test_a_correction_after_the_end_and_before_the_close_stays_in_its_period(book: Book, clock: Any) -> None:
    """Closing still takes its own rows, on the entry's day."""
    await subscribe(book, "user:u")
    wrong = await used(book, occurred_at=utc(2026, 6, 3))
    clock.now = utc(2026, 7, 1, 0, 30)
    (fix,) = (await correct(book, wrong.id, "-2.00")).entries
    assert (fix.period, fix.belongs_to) == (wrong.period, None)
    assert dict((await book.usage("user:u", wrong.period)).by_day) == {2: 3}


async def test_a_correction_of_a_late_entry_goes_where_that_is_booked(
    book: Book, database_url: str, clock: Any
) -> None:
    """On its day there, naming the closed period like the entry does."""
    wrong, july = await closed_june(book, database_url, clock)
    late = await used(book, "4.00", period=wrong.period, occurred_at=utc(2026, 6, 30))
    (fix,) = (await correct(book, late.id, "-1.00")).entries
    assert (fix.period, fix.belongs_to) == (july, wrong.period)
    usage = await book.usage("user:u")
    assert dict(usage.by_day) == {0: 3}
    assert usage.given_back == 0


async def test_a_correction_of_a_row_that_came_after_the_seal_goes_where_that_is_booked(
    book: Book, database_url: str, clock: Any
) -> None:
    """It was stamped with June by a transaction that committed after June was closed: booked to July, and so is its correction."""
    await subscribe(book, "user:u")
    await used(book)
    async with await psycopg.AsyncConnection.connect(database_url) as slow:
        straggler = await used(book, "4.00", conn=slow)
        clock.now = utc(2026, 7, 4, 12)
        july = (await book.usage("user:u")).period.id
        close(database_url, straggler.period)
        await slow.commit()
    for folded in (False, True):
        if folded:
            await book.compact()
        (fix,) = (await correct(book, straggler.id, "-1.00", key=f"folded {folded}")).entries
        assert fix.period == july
        assert await total(book, "user:u", straggler.period) == 5
    usage = await book.usage("user:u")
    assert (usage.total, usage.given_back) == (Decimal(2), Decimal(0))
    assert await book.verify() == []


async def test_in_the_callers_transaction_a_correction_vanishes_with_it(book: Book, database_url: str) -> None:
    """And a refused one leaves the transaction usable."""
    wrong = await used(book)
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        with pytest.raises(CorrectionRefused):
            await correct(book, wrong.id, "-9", conn=conn)
        assert (await correct(book, wrong.id, "-2", conn=conn)).inserted == 1
        await conn.rollback()
    assert amounts(database_url) == [5]
    assert (await correct(book, wrong.id, "-5")).inserted == 1
