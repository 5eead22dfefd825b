"""One key, one effect (§3.2, §3.3): retries, conflicts, and who is asked first."""

import asyncio
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from meterbook import Book, InvalidUsage, KeyConflict
from tests.ledger import amounts, close, count, place_of, query, subscribe, sums, use


def line(amount: str, **said: Any) -> dict[str, Any]:
    said = {"execution": "e1"} | said
    return {"actor": "u", "source": "workflow", "description": "m", "amount": amount} | said


async def test_the_amount_is_not_part_of_the_identity(book: Book, database_url: str) -> None:
    """The same identity later with another amount is a conflict, never a second charge."""
    await book.record_many([line("1.00")])
    with pytest.raises(KeyConflict) as refused:
        await book.record_many([line("1.10")])
    (conflict,) = refused.value.conflicts
    assert (conflict.index, conflict.first["amount"], conflict.now["amount"]) == (0, Decimal(1), Decimal("1.1"))
    assert amounts(database_url) == [1]


async def test_zeros_take_their_number_among_equal_lines(book: Book, database_url: str) -> None:
    """[0, 0.10] then [0.10, 0] is a retry: the zero is numbered although it writes nothing."""
    await book.record_many([line("0"), line("0.10")])
    assert (await book.record_many([line("0.10"), line("0.00")])).replayed == 1
    assert amounts(database_url) == [Decimal("0.10")]


async def test_each_field_of_the_identity_makes_another_entry(book: Book, database_url: str) -> None:
    """Actor, source, category, description, source reference, execution, workflow, workspace, line."""
    await book.put_workspace("other")
    fields = (
        "actor",
        "source",
        "description",
        "source_reference",
        "execution",
        "workflow",
        "workspace",
        "line",
    )
    others = [line("1.00", **{field: "other"}) for field in fields] + [line("1.00", category="tool")]
    assert (await book.record_many([line("1.00"), *others])).inserted == 10
    assert count(database_url) == 10


async def test_occurred_at_and_metadata_are_not_part_of_the_identity(book: Book, clock: Any) -> None:
    """A retry that says only these otherwise is replayed."""
    await book.record_many([line("1.00", metadata={"tokens": 1})])
    again = line("1.00", metadata={"tokens": 2}, occurred_at=clock.now.replace(hour=3))
    assert (await book.record_many([again])).replayed == 1


@pytest.mark.parametrize("first", [line("1.00", event_key="K"), line("1.00")])
async def test_the_same_key_twice_in_one_call_is_a_replay(book: Book, database_url: str, first: dict[str, Any]) -> None:
    """As in two calls; equal lines without a key are two entries, those with one are one."""
    reply = await book.record_many([first, first])
    assert (reply.inserted, reply.replayed) == ((1, 1) if "event_key" in first else (2, 0))
    assert count(database_url) == reply.inserted


async def test_a_key_twice_in_one_call_for_two_things_is_a_conflict(book: Book, database_url: str) -> None:
    """As in two calls, but the whole call is refused: both versions in the error, counted, never retryable."""
    batch = [line("1.00", event_key="K"), line("2.00", event_key="other"), line("1.10", event_key="K")]
    with pytest.raises(KeyConflict) as refused:
        await book.record_many(batch)
    (conflict,) = refused.value.conflicts
    assert (conflict.index, conflict.first["amount"], conflict.now["amount"]) == (2, Decimal(1), Decimal("1.1"))
    assert (count(database_url), count(database_url, "key_conflict")) == (0, 1)


async def test_a_key_twice_in_one_call_for_two_payers_is_a_conflict(book: Book, database_url: str) -> None:
    """The second names another entity than the first was booked to."""
    batch = [line("1.00", event_key="K"), line("1.00", event_key="K", entity="user:other")]
    with pytest.raises(KeyConflict) as refused:
        await book.record_many(batch)
    assert [conflict.index for conflict in refused.value.conflicts] == [1]
    assert count(database_url) == 0


async def test_one_conflict_refuses_the_whole_call(book: Book, database_url: str) -> None:
    """What is new in the call is not written either, and the error names every conflict."""
    await book.record_many([line("1.00", event_key="A"), line("2.00", event_key="B")])
    batch = [line("1.50", event_key="A"), line("3.00", event_key="C"), line("2.50", event_key="B")]
    with pytest.raises(KeyConflict) as refused:
        await book.record_many(batch)
    assert [conflict.index for conflict in refused.value.conflicts] == [0, 2]
    assert amounts(database_url) == [1, 2]
    assert count(database_url, "key_conflict") == 2


async def test_a_fingerprint_holds_what_was_said(book: Book, database_url: str) -> None:
    """Another actor, category, source or description under the key conflicts."""
    await book.record_many([line("1.00", event_key="K")])
    for otherwise in ({"category": "tool"}, {"source": "copilot"}, {"description": "m2"}, {"actor": "u2"}):
        with pytest.raises(KeyConflict):
            await book.record_many([line("1.00", event_key="K", **otherwise)])
    assert count(database_url, "key_conflict") == 4


async def test_a_retry_says_an_amount_by_value(book: Book) -> None:
    """1, 1.0 and 1.00 are the same."""
    for amount, replayed in (("1", 0), ("1.0", 1), ("1.00", 1)):
        assert (await book.record_many([line(amount, event_key="K")])).replayed == replayed


async def test_a_retry_stays_with_whoever_paid_first(book: Book, database_url: str) -> None:
    """After joining a paying organization, and after the workspace is gone: replayed, nothing is booked to anybody else."""
    await book.put_workspace("w")
    await use(book, "u", "1.00", "K", workspace="w")
    await book.put_organization("o", owner="boss")
    await subscribe(book, "organization:o", "team_6000")
    await book.add_member("o", "u")
    query(database_url, "delete from meterbook.workspace")
    reply = await use(book, "u", "1.00", "K", workspace="w")
    assert (reply.replayed, reply.entries[0].entity) == (1, "user:u")
    assert sums(database_url) == {"user:u": 1}
    assert (await place_of(book, await use(book, "u", "1.00")))[0] == "organization:o"


async def test_a_derived_payer_or_period_never_conflicts(book: Book) -> None:
    """An attribution that now names another payer and period is no other version."""
    await use(book, "u", "1.00", "K")
    await subscribe(book, "user:u")
    attribution = await book.resolve("u")
    assert (await use(book, "u", "1.00", "K", attribution=attribution)).replayed == 1


async def test_of_a_late_entry_the_closed_period_is_compared(book: Book, database_url: str, clock: Any) -> None:
    """A retry that names the closed period is replayed; one that names the open one, where it is booked, conflicts."""
    await subscribe(book, "user:u")
    (early,) = (await use(book, "u", "1.00")).entries
    clock.now = clock.now.replace(month=7)
    await book.usage("user:u")
    close(database_url, early.period)
    (late,) = (await use(book, "u", "3.00", "K", period=early.period)).entries
    assert late.belongs_to == early.period
    assert late.period != early.period
    assert (await use(book, "u", "3.00", "K", period=early.period)).replayed == 1
    with pytest.raises(KeyConflict):
        await use(book, "u", "3.00", "K", period=late.period)


async def test_naming_an_unknown_entity_on_a_retry_is_a_counted_conflict(book: Book, database_url: str) -> None:
    """Also one that nobody ever heard of."""
    await use(book, "u", "1.00", "K")
    with pytest.raises(KeyConflict):
        await use(book, "u", "1.00", "K", entity="organization:nobody")
    assert count(database_url, "key_conflict") == 1


async def test_a_conflict_stays_visible_when_the_caller_rolls_back(book: Book, database_url: str) -> None:
    """In the caller's own transaction: it is noted apart from it; the transaction stays usable."""
    await use(book, "u", "1.00", "K")
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        with pytest.raises(KeyConflict):
            await use(book, "u", "1.10", "K", conn=conn)
        assert (await use(book, "u", "5.00", "J", conn=conn)).inserted == 1
        await conn.rollback()
    assert amounts(database_url) == [1]
    ((first, now),) = query(
        database_url, "select first_said ->> 'amount', then_said ->> 'amount' from meterbook.key_conflict"
    )
    assert (first, now) == ("1", "1.1")


async def test_work_and_charge_commit_or_vanish_together(book: Book, database_url: str) -> None:
    """In the caller's transaction; after its rollback the key is free again."""
    await use(book, "u", "1.00")
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        assert (await use(book, "u", "2.00", "K", conn=conn)).inserted == 1
        await conn.rollback()
        assert amounts(database_url) == [1]
        assert (await use(book, "u", "2.50", "K", conn=conn)).inserted == 1
        await conn.commit()
    assert amounts(database_url) == [1, Decimal("2.50")]


async def test_an_entry_without_identity_is_refused(book: Book, database_url: str) -> None:
    """Workflow, workspace and line alone name no single piece of work."""
    await book.put_workspace("w")
    for names in ([], ["workflow"], ["line"], ["workspace"], ["workflow", "line", "workspace"]):
        said: dict[str, Any] = dict.fromkeys(names, "w")
        with pytest.raises(InvalidUsage):
            await book.record("u", source="workflow", description="m", amount="1.00", **said)
    assert count(database_url) == 0


async def test_look_alike_keys_are_two(book: Book, database_url: str) -> None:
    """Latin and Cyrillic a, an accent composed and decomposed, a trailing space: keys are bytes, not glyphs."""
    for key in ("ka", "k\u0430", "\u00e9", "e\u0301", "k", "k ", "K"):
        await use(book, "u", "1.00", key)
    assert count(database_url) == 7


async def test_overlapping_batches_in_opposite_orders_never_deadlock(book: Book, database_url: str) -> None:
    """Keys are taken in one order, whatever the order of the call."""
    keys = [f"k{n}" for n in range(60)]
    batches = [[line("1.00", event_key=key) for key in (keys if n % 2 else keys[::-1])[n : n + 40]] for n in range(20)]
    await asyncio.gather(*map(book.record_many, batches))
    assert sums(database_url) == {"user:u": count(database_url)}


async def test_in_bulk_equal_identities_are_refused_since_numbers_would_shift(book: Book) -> None:
    """§3.2: never a second charge. Numbered among what happens to be sound, the same entries would be others in the repeated call."""
    alike = {"actor": "u", "source": "s", "description": "d", "execution": "x"}
    first = await book.record_bulk([alike | {"amount": amount} for amount in (0.5, "1", "2")])
    assert [problem.code for problem in first.problems] == [
        "invalid_amount",
        "ambiguous_identity",
        "ambiguous_identity",
    ]
    again = await book.record_bulk([alike | {"amount": amount} for amount in ("0.5", "1", "2")])
    assert {problem.code for problem in again.problems} == {"ambiguous_identity"}
    assert (await book.record_many([alike | {"amount": amount} for amount in ("0.5", "1", "2")])).inserted == 3
