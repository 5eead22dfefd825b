"""Callers share a commit: what each is promised, whatever becomes of the others. First with a writer whose pace the test sets."""

import asyncio
from collections.abc import Callable, Sequence

import psycopg
import pytest

import meterbook
from meterbook.book import Book
from meterbook.book.group_commit_asyncio import GroupCommit
from meterbook.book.groups import ENTRIES_PER_GROUP_MAX, FLUSHERS_MAX
from meterbook.core.entries import Entry
from meterbook.core.recorded import Answer
from meterbook.errors import InProgress, KeyConflict, LedgerUnavailable, MeterbookError, Overloaded
from tests.book.playing import Ledger, call_of, outcomes_of

HANGS_AFTER_S = 10


class Writer:
    """Writes to a ledger when the gate is open; `fault` may raise instead."""

    def __init__(self, fault: Callable[[Sequence[Entry]], None] = lambda _: None) -> None:
        self.ledger = Ledger()
        self.gate = asyncio.Event()
        self.fault = fault

    async def __call__(self, entries: Sequence[Entry]) -> list[Answer]:
        await self.gate.wait()
        self.fault(entries)
        return self.ledger.write(entries)


async def a_few_turns() -> None:
    """Everything that can happen without a timer or another thread has happened."""
    for _ in range(10):
        await asyncio.sleep(0)


async def settled(*tasks: "asyncio.Task[list[Answer]]") -> list[list[Answer] | BaseException]:
    async with asyncio.timeout(HANGS_AFTER_S):
        return await asyncio.gather(*tasks, return_exceptions=True)


def submit(recorder: GroupCommit, *keys: str, amount: str = "1") -> "asyncio.Task[list[Answer]]":
    return asyncio.create_task(recorder.submit(call_of(*keys, amount=amount)))


async def occupy(recorder: GroupCommit) -> "list[asyncio.Task[list[Answer]]]":
    """Every flusher is at work on a call of its own, behind the gate."""
    busy = []
    for number in range(FLUSHERS_MAX):
        busy.append(submit(recorder, f"busy {number}"))
        await a_few_turns()
    return busy


async def test_a_lone_caller_waits_for_no_timer() -> None:
    """The entries of a caller who is alone are written at once, in a group of its own: no clock has to tick for it."""
    writer = Writer()
    writer.gate.set()
    call = submit(GroupCommit(writer), "a")
    await a_few_turns()
    assert call.done()
    assert outcomes_of(call.result()) == ["inserted"]
    assert writer.ledger.groups == [1]


async def test_whoever_waits_meanwhile_shares_the_next_group() -> None:
    """Calls that arrive while a group is written are written together afterwards, whatever their number."""
    writer = Writer()
    recorder = GroupCommit(writer)
    tasks = await occupy(recorder) + [submit(recorder, f"key {n}") for n in range(500)]
    await a_few_turns()
    writer.gate.set()
    await settled(*tasks)
    assert sorted(writer.ledger.groups) == [1] * FLUSHERS_MAX + [500]


async def test_a_group_is_bounded() -> None:
    """A group holds at most ENTRIES_PER_GROUP_MAX entries, except for one call that is larger by itself."""
    writer = Writer()
    recorder = GroupCommit(writer)
    busy = await occupy(recorder)
    large = submit(recorder, *(f"large {n}" for n in range(ENTRIES_PER_GROUP_MAX + 7)))
    small = [submit(recorder, *(f"{call}.{n}" for n in range(300))) for call in range(10)]
    writer.gate.set()
    await settled(*busy, large, *small)
    assert max(writer.ledger.groups) == ENTRIES_PER_GROUP_MAX + 7
    assert sorted(writer.ledger.groups)[-2] <= ENTRIES_PER_GROUP_MAX
    assert len(writer.ledger.first) == FLUSHERS_MAX + ENTRIES_PER_GROUP_MAX + 7 + 3000


async def test_the_innocent_are_not_refused_with_the_guilty() -> None:
    """In a group of 50 calls of which some conflict, those and no others are refused."""
    writer = Writer()
    writer.ledger.write([*call_of("taken 3"), *call_of("taken 30")])
    recorder = GroupCommit(writer)
    busy = await occupy(recorder)
    calls = [
        submit(recorder, f"taken {n}" if n in {3, 30} else f"key {n}", f"second {n}", amount="2") for n in range(50)
    ]
    writer.gate.set()
    await settled(*busy, *calls)
    refused = [n for n, call in enumerate(calls) if outcomes_of(call.result()) != ["inserted", "inserted"]]
    assert refused == [3, 30]
    assert outcomes_of(calls[3].result()) == ["conflict", "not_written"]
    assert len(writer.ledger.first) == FLUSHERS_MAX + 2 + 48 * 2


async def test_a_key_of_two_waiting_calls_is_written_once() -> None:
    """The same key in two calls of one moment is as in two calls one after the other: replayed, or a conflict."""
    writer = Writer()
    recorder = GroupCommit(writer)
    busy = await occupy(recorder)
    first, again, other = submit(recorder, "k"), submit(recorder, "k"), submit(recorder, "k", amount="2")
    writer.gate.set()
    await settled(*busy, first, again, other)
    assert [outcomes_of(call.result()) for call in (first, again, other)] == [["inserted"], ["replayed"], ["conflict"]]


async def test_a_full_queue_refuses_with_nothing_written() -> None:
    """Who finds the queue full gets Overloaded after the wait, which is retryable, and none of the call is ever written."""
    writer = Writer()
    recorder = GroupCommit(writer, entries_waiting_max=10, queue_wait_s=0)
    accepted = [*await occupy(recorder), submit(recorder, *(f"waiting {n}" for n in range(10)))]
    await a_few_turns()
    with pytest.raises(Overloaded) as refused:
        await recorder.submit(call_of("one too many"))
    writer.gate.set()
    await settled(*accepted)
    await recorder.drain()
    assert refused.value.retryable
    assert len(writer.ledger.first) == FLUSHERS_MAX + 10


async def test_what_waits_never_exceeds_its_bound() -> None:
    """However many callers push, at most entries_waiting_max entries are held; all of them get their turn."""
    held: list[int] = []
    writer = Writer(lambda _: held.append(recorder._entries_waiting))
    recorder = GroupCommit(writer, entries_waiting_max=40)
    calls = [submit(recorder, *(f"{n}.{part}" for part in range(7))) for n in range(300)]
    await a_few_turns()
    held.append(recorder._entries_waiting)
    writer.gate.set()
    await settled(*calls)
    assert max(held) <= 40
    assert len(writer.ledger.first) == 300 * 7
    assert recorder._entries_waiting == 0


async def test_a_caller_who_goes_away_takes_nobody_along() -> None:
    """A cancelled caller's entries are written all the same (the key makes a retry safe), and its neighbours are answered."""
    writer = Writer()
    recorder = GroupCommit(writer)
    tasks = [*await occupy(recorder), submit(recorder, "a"), submit(recorder, "b")]
    await a_few_turns()
    tasks[0].cancel()
    tasks[-1].cancel()
    writer.gate.set()
    results = await settled(*tasks)
    await recorder.drain()
    assert [type(result) for result in results] == [asyncio.CancelledError, list, list, asyncio.CancelledError]
    assert len(writer.ledger.first) == 4


async def test_a_caller_who_goes_away_while_the_queue_is_full_leaves_no_trace() -> None:
    """Cancelled before there was room: nothing of the call is written, and the room goes to the next."""
    writer = Writer()
    recorder = GroupCommit(writer, entries_waiting_max=1)
    tasks = [*await occupy(recorder), submit(recorder, "waiting")]
    await a_few_turns()
    gone, patient = submit(recorder, "gone"), submit(recorder, "patient")
    await a_few_turns()
    gone.cancel()
    writer.gate.set()
    await settled(*tasks, gone, patient)
    assert outcomes_of(patient.result()) == ["inserted"]
    assert len(writer.ledger.first) == FLUSHERS_MAX + 2


async def test_an_error_that_nobody_foresaw_reaches_its_callers_and_hangs_no_other() -> None:
    """Even when every flusher meets one at the same moment, what waits behind them is written."""

    def fault(entries: Sequence[Entry]) -> None:
        if len(entries) == 1:
            raise RuntimeError("the pool is closed")

    writer = Writer(fault)
    recorder = GroupCommit(writer)
    busy = await occupy(recorder)
    waiting = [submit(recorder, f"key {n}") for n in range(3)]
    writer.gate.set()
    results = await settled(*busy, *waiting)
    assert [type(result) for result in results] == [RuntimeError] * FLUSHERS_MAX + [list] * 3
    async with asyncio.timeout(HANGS_AFTER_S):
        await recorder.drain()


async def test_a_fault_of_one_call_is_told_to_that_call_alone() -> None:
    """What fails for a group is tried call by call: the one whose fault it is hears of it, the others are written."""

    def fault(entries: Sequence[Entry]) -> None:
        if any(entry.amount == 13 for entry in entries):
            raise MeterbookError("unlucky")

    writer = Writer(fault)
    recorder = GroupCommit(writer)
    busy = await occupy(recorder)
    calls = [submit(recorder, f"key {n}", amount="13" if n == 5 else "1") for n in range(20)]
    writer.gate.set()
    results = await settled(*busy, *calls)
    assert [n for n, result in enumerate(results[FLUSHERS_MAX:]) if isinstance(result, MeterbookError)] == [5]
    assert len(writer.ledger.first) == FLUSHERS_MAX + 19


async def test_a_ledger_that_is_away_is_not_asked_once_a_caller() -> None:
    """A group that finds the ledger unreachable is tried again once; then all of its callers hear so, rather than each wait in turn."""

    def fault(_: Sequence[Entry]) -> None:
        asked.append(1)
        raise LedgerUnavailable

    asked: list[int] = []
    writer = Writer(fault)
    recorder = GroupCommit(writer)
    busy = await occupy(recorder)
    calls = [submit(recorder, f"key {n}") for n in range(200)]
    writer.gate.set()
    results = await settled(*busy, *calls)
    assert all(isinstance(result, LedgerUnavailable) for result in results)
    assert len(asked) <= FLUSHERS_MAX + 2


async def test_a_loop_that_closes_lets_nobody_hang() -> None:
    """asyncio.run ends while a group is under way: its callers are cancelled, and it returns without a complaint."""
    complaints: list[object] = []

    async def leave_in_the_middle() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        recorder = GroupCommit(Writer())
        tasks.extend([*await occupy(recorder), submit(recorder, "waiting")])
        await a_few_turns()

    tasks: list[asyncio.Task[list[Answer]]] = []
    async with asyncio.timeout(HANGS_AFTER_S):
        await asyncio.to_thread(asyncio.run, leave_in_the_middle())
    assert all(task.cancelled() for task in tasks)
    assert complaints == []


# ------------------------------------------------------------------------------------------------------ on the real ledger


def commits_of(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("select count(distinct xmin::text) from meterbook.event_key").fetchone()
    assert row is not None
    return int(row[0])


async def record(book: Book, key: str, amount: str = "1", actor: str = "ada") -> meterbook.Recorded:
    return await book.record(actor, source="workflow", description="gpt-4o", amount=amount, event_key=key)


async def test_concurrent_callers_share_commits(book: Book, database_url: str) -> None:
    """400 callers at once need far fewer commits than calls, and every one is answered with its own entry."""
    replies = await asyncio.gather(*(record(book, f"key {n}", amount=str(n + 1)) for n in range(400)))
    assert [int(reply.amount) for reply in replies] == list(range(1, 401))
    assert commits_of(database_url) <= 40
    assert (await book.usage("user:ada")).total == 400 * 401 // 2


async def test_one_conflict_among_many_callers_refuses_one(book: Book) -> None:
    """KeyConflict with both versions for the guilty caller; the others of its group are recorded."""
    await record(book, "taken")
    results = await asyncio.gather(
        *(record(book, "taken" if n == 40 else f"key {n}", amount="2") for n in range(80)), return_exceptions=True
    )
    assert [n for n, result in enumerate(results) if isinstance(result, BaseException)] == [40]
    assert isinstance(results[40], KeyConflict)
    assert (results[40].conflicts[0].first["amount"], results[40].conflicts[0].now["amount"]) == (1, 2)
    assert (await book.usage("user:ada")).total == 1 + 79 * 2


async def test_a_key_that_another_holds_delays_no_neighbour_for_good(book: Book, database_url: str) -> None:
    """Of a group of which one key is still being written elsewhere, that call alone gets in_progress; the others are recorded.

    The other writer rolls back: the refused call, made again, writes.
    """
    await record(book, "first contact")
    other = await psycopg.AsyncConnection.connect(database_url)
    await book.record("ada", source="workflow", description="gpt-4o", amount="1", event_key="held", conn=other)
    results = await asyncio.gather(
        *(record(book, "held" if n == 7 else f"key {n}") for n in range(20)), return_exceptions=True
    )
    assert [n for n, result in enumerate(results) if isinstance(result, BaseException)] == [7]
    assert isinstance(results[7], InProgress)
    await other.rollback()
    await other.close()
    assert (await record(book, "held")).inserted == 1


async def test_who_waits_for_a_key_holds_up_nobody_of_the_group(book: Book, database_url: str) -> None:
    """I8: the neighbours are recorded while the key is still held; when its holder gives up, the waiting call writes."""
    await record(book, "first contact")
    other = await psycopg.AsyncConnection.connect(database_url)
    await book.record("ada", source="workflow", description="gpt-4o", amount="1", event_key="held", conn=other)
    waiting = asyncio.create_task(record(book, "held"))
    neighbours = await asyncio.gather(*(record(book, f"key {n}") for n in range(20)))
    assert [neighbour.inserted for neighbour in neighbours] == [1] * 20
    assert not waiting.done()
    await other.rollback()
    await other.close()
    assert (await waiting).inserted == 1


async def test_a_callers_date_style_spoils_no_answer(book: Book, database_url: str) -> None:
    """A connection with another DateStyle gets the same answer, and its transaction stays usable."""
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await conn.execute("set datestyle to 'SQL, DMY'")
        recorded = await book.record(
            "ada", source="workflow", description="gpt-4o", amount="1", event_key="styled", conn=conn
        )
    assert (recorded.inserted, recorded.entries[0].recorded_at.year) == (1, 2026)
