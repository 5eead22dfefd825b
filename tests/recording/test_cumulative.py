"""Running totals (§3.6): the ledger keeps their maximum and grows by each rise."""

from decimal import Decimal
from typing import Any

import psycopg
import pytest

from meterbook import Book, InvalidUsage, KeyConflict
from tests.ledger import FREE, amounts, close, count, place_of, query, subscribe, sums, total, utc


async def flush(book: Book, so_far: Any, actor: str = "u", **said: Any) -> Any:
    said = {"request": "req_7", "source": "copilot", "description": "gpt-4o"} | said
    return await book.record_cumulative(actor, total=so_far, **said)


async def test_a_rise_of_nothing_answers_nothing(book: Book, database_url: str) -> None:
    """A total of 0, and one that was reported before: no row, amount 0."""
    for so_far, rise in ((0, "0"), ("0.4", "0.4"), ("0.40", "0"), ("0.1", "0")):
        assert (await flush(book, so_far)).amount == Decimal(rise)
    assert amounts(database_url) == [Decimal("0.4")]


async def test_requests_are_apart(book: Book) -> None:
    """Each has its own running total."""
    await flush(book, "0.4", request="a")
    assert (await flush(book, "0.3", request="b")).amount == Decimal("0.3")


async def test_naming_another_than_the_first_flush_is_a_counted_conflict(book: Book, database_url: str) -> None:
    """Actor, payer, workspace, source, description: nothing is written, whatever the total, and it is noted."""
    await book.put_workspace("w1")
    await book.put_workspace("w2")
    await flush(book, "0.4", workspace="w1")
    named = {"actor": "u2", "entity": "user:u2", "workspace": "w2", "source": "wand", "description": "o4"}
    others: list[dict[str, Any]] = [
        *({name: value} for name, value in named.items()),
        {"entity": "organization:nobody"},
    ]
    for other in others:
        with pytest.raises(KeyConflict) as refused:
            await flush(book, "0.9", **other)
        assert not refused.value.retryable
    assert count(database_url, "key_conflict") == len(others)
    assert (await flush(book, "0.5")).amount == Decimal("0.1")


async def test_the_error_of_a_conflict_carries_both_versions(book: Book) -> None:
    """What the first flush said, and what this one says."""
    await flush(book, "0.4")
    with pytest.raises(KeyConflict) as refused:
        await flush(book, "0.9", source="wand")
    (conflict,) = refused.value.conflicts
    assert (conflict.first["source"], conflict.now["source"]) == ("copilot", "wand")
    assert (conflict.first["actor"], conflict.now["actor"]) == ("u", "u")
    assert "actor" not in str(conflict)


async def test_a_payer_that_merely_changed_is_no_conflict(book: Book, database_url: str) -> None:
    """The request stays with the first, also when an attribution resolved later names the organization."""
    await flush(book, "0.4")
    await book.put_organization("o", owner="boss")
    await subscribe(book, "organization:o", "team_6000")
    await book.add_member("o", "u")
    await flush(book, "0.6")
    await flush(book, "0.9", attribution=await book.resolve("u"))
    assert sums(database_url) == {"user:u": Decimal("0.9")}


async def test_a_request_goes_on_with_its_first_payer_in_the_next_period(book: Book, clock: Any) -> None:
    """Also when an organization pays by then, and nobody else touched the first payer's periods: their Pro ended with its own (§12)."""
    await subscribe(book, "user:u")
    await flush(book, "0.4")
    await book.put_organization("o", owner="u")
    await subscribe(book, "organization:o", "team_6000")
    clock.now = utc(2026, 8, 3)
    assert await place_of(book, await flush(book, "1.0")) == ("user:u", FREE)


async def test_each_rise_is_placed_by_its_own_time(book: Book, clock: Any) -> None:
    """0.4 in June, 1.0 in July: each in its month, both of them at their own instants."""
    await subscribe(book, "user:u")
    june = await flush(book, "0.4")
    clock.now = utc(2026, 7, 1)
    july = await flush(book, "1.0")
    again = await flush(book, "1.2", occurred_at=utc(2026, 6, 30, 23, 59, 59, 999999))
    starts = [(await place_of(book, one))[1][0].month for one in (june, july, again)]
    assert starts == [6, 7, 6]


async def test_a_rise_that_belongs_to_a_closed_period_is_late(book: Book, database_url: str, clock: Any) -> None:
    """Booked to the open one, naming the closed one."""
    await subscribe(book, "user:u")
    (june,) = (await flush(book, "0.4")).entries
    clock.now = utc(2026, 7, 2)
    await book.usage("user:u")
    close(database_url, june.period)
    (late,) = (await flush(book, "0.7", occurred_at=utc(2026, 6, 30))).entries
    assert (late.belongs_to, late.amount) == (june.period, Decimal("0.3"))


async def test_a_correction_does_not_lower_the_running_total(book: Book) -> None:
    """After 1.0 was corrected to 0.2, a flush of 1.1 adds 0.1."""
    (entry,) = (await flush(book, "1.0")).entries
    await book.correct(entry.id, amount="-0.8", reason="wrong price", event_key="fix")
    assert (await flush(book, "1.1")).amount == Decimal("0.1")
    assert await total(book, "user:u") == Decimal("0.3")


async def test_in_the_callers_transaction_a_rise_vanishes_with_it(book: Book, database_url: str) -> None:
    """And so does what the request is bound to."""
    await flush(book, "0.1", request="known")
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        assert (await flush(book, "0.4", conn=conn)).amount == Decimal("0.4")
        await conn.rollback()
    assert query(database_url, "select count(*) from meterbook.cumulative_request") == [(1,)]
    assert (await flush(book, "0.3")).amount == Decimal("0.3")


async def test_an_unknown_workspace_writes_nothing(book: Book, database_url: str) -> None:
    """Neither the rise nor the request."""
    with pytest.raises(InvalidUsage):
        await flush(book, "0.4", workspace="nowhere")
    assert count(database_url) == count(database_url, "cumulative_request") == 0


async def test_a_total_is_an_exact_amount(book: Book, database_url: str) -> None:
    """As any amount: never a float, never negative, at most 12 places."""
    for so_far in (0.5, True, "NaN", "-1", "1e3", "0.1234567890123", None):
        with pytest.raises(InvalidUsage):
            await flush(book, so_far)
    assert count(database_url, "cumulative_request") == 0


async def test_a_category_that_is_left_out_is_the_first_flushs(book: Book, database_url: str) -> None:
    """Leaving it out names no other; naming another is a conflict, since the rows of a request are of one."""
    await flush(book, "0.4", category="tool")
    assert (await flush(book, "0.6")).amount == Decimal("0.2")
    with pytest.raises(KeyConflict):
        await flush(book, "0.9", category="model")
    assert query(database_url, "select distinct category from meterbook.usage_log") == [("tool",)]


OF_SEVEN = "(select request from meterbook.cumulative_request where name = 'req_7')"


@pytest.mark.parametrize(
    ("table", "change", "entries", "found"),
    [
        ("cumulative_request", "update meterbook.cumulative_request set total = 5 where name = 'req_7'", "0.9", "5"),
        ("cumulative_request", "delete from meterbook.cumulative_request where name = 'req_7'", "0.9", None),
        ("cumulative_rise", f"delete from meterbook.cumulative_rise where request = {OF_SEVEN}", None, "0.9"),
        ("usage_log", "update meterbook.usage_log set amount = amount + 1 where amount = 0.4", "1.9", "0.9"),
        ("usage_log", "delete from meterbook.usage_log where amount = 0.4", "0.5", "0.9"),
    ],
)
async def test_verify_names_a_running_total_that_its_rises_dont_bear_out(
    book: Book, database_url: str, table: str, change: str, entries: str | None, found: str | None
) -> None:
    """§14: by entity, request and amount, whichever side was tampered with; a correction changes neither."""
    (first, *_) = (await flush(book, "0.4")).entries
    await flush(book, "0.9")
    await flush(book, "3", request="sound", actor="another")
    await book.correct(first.id, amount="-0.1", reason="test", event_key="fix")
    assert await book.verify() == []
    for (name,) in query(database_url, f"select distinct tableoid::regclass::text from meterbook.{table}"):
        query(database_url, f"alter table {name} disable trigger user")
    query(database_url, change)
    (said,) = [one for one in await book.verify() if one.grain == "request"]
    expected = tuple(None if amount is None else Decimal(amount) for amount in (entries, found))
    assert (said.entity, said.ledger_amount, said.derived_amount) == ("user:u", *expected)
    assert said.part == "req_7" or found is None


async def test_what_a_running_total_made_is_append_only(book: Book, database_url: str) -> None:
    """I2: its rises neither change nor go."""
    await flush(book, "0.4")
    for change in (
        "update meterbook.cumulative_rise set key = key",
        "delete from meterbook.cumulative_rise",
        "truncate meterbook.cumulative_rise",
    ):
        with pytest.raises(psycopg.DatabaseError, match="append-only"):
            query(database_url, change)
