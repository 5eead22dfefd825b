"""The same promises to threads: one of the waiting callers writes for all, and none is left behind."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType

import psycopg
import pytest

from meterbook import sync
from meterbook.book.group_commit_threads import GroupCommit
from meterbook.book.groups import FLUSHERS_MAX
from meterbook.core.entries import Entry
from meterbook.core.recorded import Answer
from meterbook.errors import KeyConflict, LedgerUnavailable, Overloaded
from tests.book.playing import Ledger, call_of, outcomes_of

HANGS_AFTER_S = 10
POLL_S = 0.002


class Writer:
    """Writes to a ledger when the gate is open; `fault` may raise instead."""

    def __init__(self, fault: Callable[[Sequence[Entry]], None] = lambda _: None) -> None:
        self.ledger = Ledger()
        self.gate = threading.Event()
        self.at_work = threading.Semaphore(0)
        self.fault = fault
        self._one_at_a_time = threading.Lock()

    def __call__(self, entries: Sequence[Entry]) -> list[Answer]:
        self.at_work.release()
        assert self.gate.wait(HANGS_AFTER_S)
        with self._one_at_a_time:
            self.fault(entries)
            return self.ledger.write(entries)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


Reply = Future[list[Answer]]


class Callers:
    """Threads that submit, each call in a thread of its own."""

    def __init__(self, pool: ThreadPoolExecutor, recorder: GroupCommit, writer: Writer) -> None:
        self.pool, self.recorder, self.writer = pool, recorder, writer
        self.replies: list[Reply] = []

    def submit(self, *keys: str, amount: str = "1") -> Reply:
        self.replies.append(self.pool.submit(self.recorder.submit, call_of(*keys, amount=amount)))
        return self.replies[-1]

    def occupy(self) -> None:
        """Every flusher is at work on a call of its own, behind the gate."""
        for number in range(FLUSHERS_MAX):
            self.submit(f"busy {number}")
            assert self.writer.at_work.acquire(timeout=HANGS_AFTER_S)

    def await_waiting(self, entries: int) -> None:
        while self.recorder._entries_waiting < entries:
            threading.Event().wait(POLL_S)

    def settle(self) -> list[list[Answer] | BaseException]:
        self.writer.gate.set()
        return [reply.exception(HANGS_AFTER_S) or reply.result() for reply in self.replies]


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def callers(threads: ThreadPoolExecutor, writer: Writer) -> Callers:
    return Callers(threads, GroupCommit(writer), writer)


def test_a_lone_caller_writes_by_itself(writer: Writer) -> None:
    """Alone, a caller's entries are written in its own thread, in one group: nobody else has to be awake for it."""
    writer.gate.set()
    before = threading.active_count()
    assert outcomes_of(GroupCommit(writer).submit(call_of("a"))) == ["inserted"]
    assert writer.ledger.groups == [1]
    assert threading.active_count() == before


def test_whoever_waits_meanwhile_shares_the_next_group(callers: Callers, writer: Writer) -> None:
    """Calls that arrive while a group is written are written together afterwards."""
    callers.occupy()
    for n in range(40):
        callers.submit(f"key {n}")
    callers.await_waiting(40)
    callers.settle()
    assert sorted(writer.ledger.groups) == [1] * FLUSHERS_MAX + [40]


def test_the_innocent_are_not_refused_with_the_guilty(callers: Callers, writer: Writer) -> None:
    """In a group of which one call conflicts, that one and no other is refused."""
    writer.ledger.write(call_of("taken"))
    callers.occupy()
    for n in range(30):
        callers.submit("taken" if n == 11 else f"key {n}", amount="2")
    callers.await_waiting(30)
    callers.settle()
    outcomes = [outcomes_of(reply.result()) for reply in callers.replies[FLUSHERS_MAX:]]
    assert outcomes == [["conflict"] if n == 11 else ["inserted"] for n in range(30)]


def test_a_key_of_two_waiting_calls_is_written_once(callers: Callers) -> None:
    """The same key in two calls of one moment is as in two calls one after the other."""
    callers.occupy()
    for n in range(2):
        callers.submit("k")
        callers.await_waiting(n + 1)
    callers.settle()
    assert [outcomes_of(reply.result()) for reply in callers.replies[FLUSHERS_MAX:]] == [["inserted"], ["replayed"]]


def test_a_full_queue_refuses_with_nothing_written(threads: ThreadPoolExecutor, writer: Writer) -> None:
    """Who finds the queue full gets Overloaded after the wait, and none of the call is ever written."""
    callers = Callers(threads, GroupCommit(writer, entries_waiting_max=5, queue_wait_s=0), writer)
    callers.occupy()
    callers.submit(*(f"waiting {n}" for n in range(5)))
    callers.await_waiting(5)
    with pytest.raises(Overloaded):
        callers.recorder.submit(call_of("one too many"))
    callers.settle()
    callers.recorder.drain()
    assert len(writer.ledger.first) == FLUSHERS_MAX + 5


def test_what_waits_never_exceeds_its_bound(threads: ThreadPoolExecutor, writer: Writer) -> None:
    """However many callers push, at most entries_waiting_max entries are held; all of them get their turn."""
    held: list[int] = []
    callers = Callers(threads, GroupCommit(writer, entries_waiting_max=20), writer)
    writer.fault = lambda _: held.append(callers.recorder._entries_waiting)
    writer.gate.set()
    for n in range(300):
        callers.submit(*(f"{n}.{part}" for part in range(7)))
    assert [type(result) for result in callers.settle()] == [list] * 300
    assert max(held) <= 20
    assert len(writer.ledger.first) == 300 * 7


def test_an_error_that_nobody_foresaw_reaches_its_callers_and_no_other(callers: Callers, writer: Writer) -> None:
    """Even when every flusher meets one at the same moment, what waits behind them is written, and nobody hears a stranger's error."""

    def fault(entries: Sequence[Entry]) -> None:
        if len(entries) == 1:
            raise RuntimeError("the pool is closed")

    writer.fault = fault
    callers.occupy()
    for n in range(3):
        callers.submit(f"key {n}")
    callers.await_waiting(3)
    assert [type(result) for result in callers.settle()] == [RuntimeError] * FLUSHERS_MAX + [list] * 3
    callers.recorder.drain()


def test_who_writes_for_others_does_not_suffer_their_error(callers: Callers, writer: Writer) -> None:
    """A caller whose thread happens to write another's group is answered with what became of its own entries."""
    large = [f"large {n}" for n in range(900)]

    def fault(entries: Sequence[Entry]) -> None:
        if any(entry.amount == 13 for entry in entries):
            raise RuntimeError("this group is broken")

    writer.fault = fault
    callers.occupy()
    for n in range(6):  # two never fit into one group, so that a thread may have to write a group without its own call
        callers.submit(*(f"{n} {key}" for key in large), amount="13" if n == 0 else "1")
        callers.await_waiting(900 * (n + 1))
    results = callers.settle()[FLUSHERS_MAX:]
    assert [type(result) for result in results] == [RuntimeError] + [list] * 5


def test_a_ledger_that_is_away_is_not_asked_once_a_caller(callers: Callers, writer: Writer) -> None:
    """A group that finds the ledger unreachable is tried again once; then all of its callers hear so."""
    asked: list[int] = []

    def fault(_: Sequence[Entry]) -> None:
        asked.append(1)
        raise LedgerUnavailable

    writer.fault = fault
    callers.occupy()
    for n in range(40):
        callers.submit(f"key {n}")
    callers.await_waiting(40)
    assert all(isinstance(result, LedgerUnavailable) for result in callers.settle())
    assert len(asked) <= FLUSHERS_MAX + 2


class Interrupted(BaseException):
    """Like KeyboardInterrupt, but nobody else's."""


def test_an_interrupted_caller_leaves_nothing_that_nobody_writes(callers: Callers, writer: Writer) -> None:
    """Ctrl-C while waiting: the call is withdrawn before anything of it is written, and drain does not wait for it for ever."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise Interrupted

    callers.occupy()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            callers.recorder.submit(call_of("interrupted"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    callers.settle()
    drained = callers.pool.submit(callers.recorder.drain)
    assert drained.exception(HANGS_AFTER_S) is None
    assert len(writer.ledger.first) == FLUSHERS_MAX
    assert callers.recorder._entries_waiting == 0


# ------------------------------------------------------------------------------------------------------ on the real ledger


def test_many_threads_share_commits(database_url: str, threads: ThreadPoolExecutor) -> None:
    """64 threads with 10 calls each: every call is answered with its own entry, in fewer commits than calls, and the sum is exact."""
    with sync.open(database_url) as book:

        def record(n: int) -> int:
            reply = book.record("ada", source="workflow", description="gpt-4o", amount=n + 1, event_key=f"key {n}")
            return int(reply.amount)

        assert list(threads.map(record, range(640))) == list(range(1, 641))
        assert book.usage("user:ada").total == 640 * 641 // 2
        assert book.verify() == []
    with psycopg.connect(database_url) as conn:
        commits = conn.execute("select count(distinct xmin::text) from meterbook.event_key").fetchone()
    assert commits is not None
    assert commits[0] < 640


def test_one_key_of_many_threads_is_one_entry(database_url: str, threads: ThreadPoolExecutor) -> None:
    """50 writers of one key → one row (§3.4); those who say something else with it are refused."""
    with sync.open(database_url) as book:

        def record(n: int) -> str:
            try:
                reply = book.record(
                    "ada", source="workflow", description="gpt-4o", amount=1 + n % 2, event_key="the one"
                )
            except KeyConflict:
                return "conflict"
            return "inserted" if reply.inserted else "replayed"

        outcomes = list(threads.map(record, range(50)))
        assert sorted(outcomes) == ["conflict"] * 25 + ["inserted"] + ["replayed"] * 24
        assert book.usage("user:ada").count == 1
