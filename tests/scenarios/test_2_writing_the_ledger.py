"""Section 2: writing the ledger."""

import asyncio
from decimal import Decimal
from random import Random
from typing import Any

import psycopg
import pytest

from meterbook import Book, InvalidUsage, KeyConflict
from meterbook.errors import InProgress
from tests.ledger import amounts, close, count, holding, query, subscribe, sums, total, use

Said = dict[str, Any]


def line(description: str, amount: Any, **said: Any) -> Said:
    said = {"category": "model", "execution": "e1"} | said
    return {"actor": "u", "source": "workflow", "description": description, "amount": amount} | said


async def test_s04_a_key_takes_effect_once(book: Book, database_url: str) -> None:
    """Key K, 1.25, three times → one row, sum 1.25, inserted amounts 1.25, 0, 0."""
    inserted = [(await use(book, "u", "1.25", "K")).amount for _ in range(3)]
    assert inserted == [Decimal("1.25"), 0, 0]
    assert amounts(database_url) == [Decimal("1.25")]


async def test_s05_two_equal_lines_of_one_batch_are_two(book: Book, database_url: str) -> None:
    """(m, 0.10) twice in a batch → 2 rows, 0.20; the identical batch again → still 0.20."""
    batch = [line("m", "0.10"), line("m", "0.10")]
    assert (await book.record_many(batch)).amount == Decimal("0.20")
    assert (await book.record_many(batch)).amount == 0
    assert amounts(database_url) == [Decimal("0.10"), Decimal("0.10")]


async def test_s06_a_retry_may_be_in_another_order(book: Book, database_url: str) -> None:
    """[A 0.10, B 0.20], retried as [B 0.20, A 0.10] → 0.30. Equal lines of unlike amounts likewise."""
    for batch in ([line("A", "0.10"), line("B", "0.20")], [line("C", "0.10"), line("C", "0.20")]):
        await book.record_many(batch)
        assert (await book.record_many(batch[::-1])).amount == 0
    assert sums(database_url) == {"user:u": Decimal("0.60")}


async def test_s08_an_invalid_cost_refuses_the_batch(book: Book, database_url: str) -> None:
    """NaN, ±∞, abc, −1: no row of the batch is written."""
    for cost in ("NaN", "Infinity", "-Infinity", "abc", -1, Decimal("NaN"), Decimal("Infinity")):
        with pytest.raises(InvalidUsage):
            await book.record_many([line("good", "1.00"), line("bad", cost)])
    assert count(database_url) == 0


async def test_s08_a_cost_of_zero_writes_nothing(book: Book, database_url: str) -> None:
    """Accepted, no row, no error; its neighbour is written."""
    assert (await book.record_many([line("free", 0)])).amount == 0
    assert count(database_url) == 0
    assert (await book.record_many([line("free", "0.00"), line("priced", "1.00")])).amount == 1
    assert amounts(database_url) == [1]


async def test_s09_a_replay_with_different_content_is_a_conflict(book: Book, database_url: str) -> None:
    """Key K 1.00, then 1.10 → error, sum 1.00, counted once. Likewise when an entity or a period is *named* otherwise."""
    first = await use(book, "u", "1.00", "K")
    await book.usage("user:other")
    (others,) = await book.periods("user:other")
    named: list[Said] = [{"amount": "1.10"}, {"entity": "user:other"}, {"period": others.id}]
    for number, otherwise in enumerate(named, 1):
        said: Said = {"amount": "1.00", "key": "K"} | otherwise
        with pytest.raises(KeyConflict) as refused:
            await use(book, "u", **said)
        assert not refused.value.retryable
        assert count(database_url, "key_conflict") == number
    assert amounts(database_url) == [1]
    assert (await use(book, "u", "1.00", "K", entity="user:u", period=first.entries[0].period)).replayed == 1


async def test_s11_fifty_writers_of_one_key_make_one_row(book: Book, database_url: str) -> None:
    """50 concurrent writers, same key, 2.00 → 2.00."""
    answers = await asyncio.gather(*(use(book, "u", "2.00", "K") for _ in range(50)))
    assert sum(answer.inserted for answer in answers) == 1
    assert amounts(database_url) == [2]


async def test_s11_writers_of_one_person_wait_for_no_row_of_the_person(book: Book, database_url: str) -> None:
    """500 concurrent writers, distinct keys, 0.01 → 5.00, while another transaction holds every row of every user, entity and period."""
    await use(book, "u", "0.01", "first")
    held = [
        f"select 1 from meterbook.{table} for update"
        for table in ("actor", "billing_entity", "billing_period", "period_clock", "usage_rollup", "usage_delta")
    ]
    async with holding(database_url, *held):
        await asyncio.wait_for(asyncio.gather(*(use(book, "u", "0.01") for _ in range(499))), 4)
    assert await total(book, "user:u") == 5


async def test_s13_a_paused_run_goes_on_where_it_stopped(book: Book, database_url: str) -> None:
    """Cumulative model cost 0.10 at the pause, 0.25 and a fee of 0.005 at the end → 0.255; the end again → 0.255."""

    async def boundary(cost: str, fee: str) -> None:
        await book.record_cumulative(
            "u", request="e1:model", total=cost, source="workflow", description="m", execution="e1"
        )
        await book.record_many([line("execution fee", fee, category="fixed")])

    await boundary("0.10", "0")
    for _ in range(2):
        await boundary("0.25", "0.005")
    assert amounts(database_url) == [Decimal("0.005"), Decimal("0.10"), Decimal("0.15")]


async def test_s13_a_run_with_a_tool_of_its_own_adds_up(book: Book) -> None:
    """Model 0.10, search tool 0.01, fee 0.005 → 0.115."""
    await book.record_many(
        [
            line("m", "0.10"),
            line("search", "0.01", category="tool"),
            line("execution fee", "0.005", category="fixed"),
        ]
    )
    assert await total(book, "user:u") == Decimal("0.115")


async def flush(book: Book, so_far: str, **said: Any) -> Decimal:
    said = {"actor": "u", "request": "req_7", "source": "copilot", "description": "gpt-4o"} | said
    return (await book.record_cumulative(total=so_far, **said)).amount


async def test_s14_a_running_total_bills_its_rises(book: Book) -> None:
    """0.4, 0.1, 0.8, 0.3, 0.8, 0.6 → 0.4, 0, 0.4, 0, 0, 0; total 0.8."""
    billed = [await flush(book, so_far) for so_far in ("0.4", "0.1", "0.8", "0.3", "0.8", "0.6")]
    assert billed == [Decimal("0.4"), 0, Decimal("0.4"), 0, 0, 0]
    assert await total(book, "user:u") == Decimal("0.8")


async def test_s14_concurrent_flushes_bill_the_largest(book: Book, seed: int) -> None:
    """0.1 … 1.0 at once, in any order → 1.0."""
    flushes = [f"{tenths / 10:.1f}" for tenths in range(1, 11)]
    Random(seed).shuffle(flushes)
    billed = await asyncio.gather(*(flush(book, so_far) for so_far in flushes))
    assert sum(billed) == 1
    assert await total(book, "user:u") == 1


async def test_s14_a_running_total_stays_with_its_first_flush(book: Book) -> None:
    """Another named payer, workspace or actor → conflict, total unchanged."""
    await book.put_workspace("w1")
    await book.put_workspace("w2")
    await flush(book, "0.4", workspace="w1")
    named: list[Said] = [{"entity": "user:other"}, {"workspace": "w2"}, {"actor": "other"}]
    for another in named:
        with pytest.raises(KeyConflict):
            await flush(book, "0.9", **another)
    assert await total(book, "user:u") == Decimal("0.4")


async def test_s15_only_leaves_are_recorded(book: Book) -> None:
    """A container of leaves 0.10 and 0.20 with a fee of 0.005 → 0.305. Its aggregate 0.30 is no entry: recorded too, it would be 0.605."""
    await book.record_many(
        [line("leaf 1", "0.10"), line("leaf 2", "0.20"), line("execution fee", "0.005", category="fixed")]
    )
    assert await total(book, "user:u") == Decimal("0.305")


async def test_s17_a_correction_is_a_row_that_points_at_what_it_corrects(book: Book, database_url: str) -> None:
    """5.00, corrected by −2.00 → 3.00, the first row unchanged; the correction retried → 3.00."""
    (wrong,) = (await use(book, "u", "5.00")).entries
    for inserted in (-2, 0):
        done = await book.correct(wrong.id, amount="-2.00", reason="counted twice", event_key="fix")
        assert done.amount == inserted
    assert await total(book, "user:u") == 3
    rows = query(database_url, "select amount, corrects::text from meterbook.usage_log order by amount")
    assert rows == [(-2, wrong.id), (5, None)]


async def test_s17_a_correction_of_a_closed_period_appears_in_the_open_one(
    book: Book, database_url: str, clock: Any
) -> None:
    """P1 stays 5.00; P2 shows −2.00, which names P1."""
    await subscribe(book, "user:u")
    (wrong,) = (await use(book, "u", "5.00")).entries
    clock.now = clock.now.replace(month=7, day=2)
    close(database_url, wrong.period)
    (fix,) = (await book.correct(wrong.id, amount="-2.00", reason="counted twice", event_key="fix")).entries
    assert (fix.belongs_to, fix.amount) == (wrong.period, Decimal(-2))
    assert await total(book, "user:u", wrong.period) == 5
    assert await total(book, "user:u") == -2


def update_cost(key: str) -> tuple[str, list[object]]:
    """The statement of a surface in another language: one entry of 0.75."""
    said = "'u', 'model', 'mcp_copilot', 'm', 0.75"
    return (
        "select outcome from meterbook.record_usage(array[meterbook.event_key(%s)], array[meterbook.fingerprint("
        + said
        + ")], array['u'], array['mcp_copilot'], array['m'], array[0.75], at => '2026-06-20 12:00Z')",
        [key],
    )


async def test_s18_a_second_call_waits_for_the_first(book: Book, database_url: str) -> None:
    """While the first runs: `in_progress` after 5 s, retryable, nothing written. The first fails: a third writes 0.75, once."""
    await use(book, "u", "1.00")

    async def call() -> Decimal:
        recorded = await use(book, "u", "0.75", "client-key", source="mcp_copilot", description="m")
        return recorded.amount

    async with await psycopg.AsyncConnection.connect(database_url) as first:
        statement, arguments = update_cost("client-key")
        await first.execute(statement.encode(), arguments)
        with pytest.raises(InProgress) as refused:
            await asyncio.wait_for(call(), 7)
        assert refused.value.retryable
        await first.rollback()
    assert await call() == Decimal("0.75")
    assert await call() == 0
    assert amounts(database_url) == [Decimal("0.75"), 1]


async def test_s18_a_call_after_success_answers_like_the_first(book: Book, database_url: str) -> None:
    """Also for one who waited for it, and after a fatal error *after* the commit: the original entry, no second row."""
    await use(book, "u", "1.00")
    async with await psycopg.AsyncConnection.connect(database_url) as first:
        statement, arguments = update_cost("client-key")
        await first.execute(statement.encode(), arguments)
        waiting = asyncio.create_task(use(book, "u", "0.75", "client-key", source="mcp_copilot", description="m"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await first.commit()
        answer = await waiting
    assert (answer.replayed, answer.amount, answer.entries[0].amount) == (1, Decimal(0), Decimal("0.75"))
    assert amounts(database_url) == [Decimal("0.75"), 1]
