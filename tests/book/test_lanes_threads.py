"""Calls of a lane are answered together, for threads: the same promises as those of lanes_asyncio."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from meterbook.book.lanes_threads import Lanes
from meterbook.errors import LedgerUnavailable, MeterbookError, Overloaded, UnknownHold

HANGS_AFTER_S = 10


class Work:
    """Answers a name with itself in capitals when the gate is open; `bad` is refused, `fault` may raise for a whole group."""

    def __init__(self, fault: Callable[[Sequence[str]], None] = lambda _: None) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.groups: list[tuple[int, list[str]]] = []
        self.fault = fault

    def __call__(self, lane: int, group: Sequence[str]) -> list[str | MeterbookError]:
        self.groups.append((lane, list(group)))
        self.begun.release()
        assert self.gate.wait(HANGS_AFTER_S)
        self.fault(group)
        return [UnknownHold(name) if name == "bad" else name.upper() for name in group]


def until_waiting(lanes: Lanes[str, str], calls: int) -> None:
    """Returns when so many calls wait for their group."""
    for _ in range(1000):
        if lanes._waiting == calls:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"{lanes._waiting} wait")


def answer(call: "Future[str]") -> str | BaseException | None:
    return call.exception(HANGS_AFTER_S) or call.result()


def test_a_lone_caller_works_for_himself() -> None:
    """At once, in his own thread, in a group of his own."""
    work = Work()
    work.gate.set()
    assert Lanes(work).submit(1, "a") == "A"
    assert work.groups == [(1, ["a"])]


def test_whoever_waits_meanwhile_shares_the_next_group() -> None:
    """Thirty threads behind one at work: two groups."""
    work = Work()
    lanes = Lanes(work)
    with ThreadPoolExecutor(32) as threads:
        first = threads.submit(lanes.submit, 1, "first")
        assert work.begun.acquire(timeout=HANGS_AFTER_S)
        rest = {name: threads.submit(lanes.submit, 1, name) for name in (f"n{n}" for n in range(30))}
        until_waiting(lanes, 30)
        work.gate.set()
        assert answer(first) == "FIRST"
        assert all(answer(call) == name.upper() for name, call in rest.items())
    assert [len(group) for _, group in work.groups] == [1, 30]


def test_lanes_do_not_wait_for_one_another() -> None:
    """While one lane's group is at work, another lane's begins."""
    work = Work()
    lanes = Lanes(work)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(lanes.submit, lane, f"lane {lane}") for lane in (1, 2)]
        for _ in calls:
            assert work.begun.acquire(timeout=HANGS_AFTER_S)
        work.gate.set()
        assert [answer(call) for call in calls] == ["LANE 1", "LANE 2"]


@pytest.mark.parametrize("error", [LedgerUnavailable(), ZeroDivisionError()])
def test_a_group_that_fails_is_told_and_the_next_one_is_answered(error: Exception) -> None:
    """Each caller of it gets the error; nobody waits for ever; a single refusal is its caller's alone."""

    def fault(group: Sequence[str]) -> None:
        if "first" in group:
            raise error

    work = Work(fault)
    lanes = Lanes(work)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(lanes.submit, 1, "first")
        assert work.begun.acquire(timeout=HANGS_AFTER_S)
        bad, good = threads.submit(lanes.submit, 1, "bad"), threads.submit(lanes.submit, 1, "good")
        until_waiting(lanes, 2)
        work.gate.set()
        assert (answer(first), answer(good)) == (error, "GOOD")
        assert isinstance(answer(bad), UnknownHold)


def test_what_waits_is_bounded() -> None:
    """One too many is refused at once, retryable; when there is room again, it is answered; drained, no lane is kept."""
    work = Work()
    lanes = Lanes(work, calls_waiting_max=1)
    with ThreadPoolExecutor(3) as threads:
        at_work = threads.submit(lanes.submit, 1, "at work")
        assert work.begun.acquire(timeout=HANGS_AFTER_S)
        waits = threads.submit(lanes.submit, 1, "waits")
        until_waiting(lanes, 1)
        with pytest.raises(Overloaded):
            lanes.submit(1, "one too many")
        work.gate.set()
        assert (answer(at_work), answer(waits)) == ("AT WORK", "WAITS")
        assert lanes.submit(1, "again") == "AGAIN"
    lanes.drain()
    assert not lanes._lanes


def test_an_interrupted_caller_leaves_nothing_behind() -> None:
    """His own call is withdrawn if it waits; what he worked on is told the interrupt, and others go on."""

    def fault(group: Sequence[str]) -> None:
        if "first" in group:
            raise KeyboardInterrupt

    work = Work(fault)
    lanes = Lanes(work)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lanes.submit, 1, "first")
        assert work.begun.acquire(timeout=HANGS_AFTER_S)
        second = threads.submit(lanes.submit, 1, "second")
        until_waiting(lanes, 1)
        work.gate.set()
        assert isinstance(first.exception(HANGS_AFTER_S), KeyboardInterrupt)
        assert answer(second) == "SECOND"
    assert not lanes._lanes
