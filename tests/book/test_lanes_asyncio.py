"""Calls of a lane are answered together: what each caller is promised. The work's pace is set by the test."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from meterbook.book.groups import CALLS_PER_GROUP_MAX
from meterbook.book.lanes_asyncio import Lanes
from meterbook.errors import LedgerUnavailable, MeterbookError, Overloaded, UnknownHold

HANGS_AFTER_S = 10


class Work:
    """Answers a name with itself in capitals when the gate is open; `bad` is refused, `fault` may raise for a whole group."""

    def __init__(self, fault: Callable[[Sequence[str]], None] = lambda _: None) -> None:
        self.gate = asyncio.Event()
        self.groups: list[tuple[int, list[str]]] = []
        self.fault = fault

    async def __call__(self, lane: int, group: Sequence[str]) -> list[str | MeterbookError]:
        self.groups.append((lane, list(group)))
        await self.gate.wait()
        self.fault(group)
        return [UnknownHold(name) if name == "bad" else name.upper() for name in group]


def submit(lanes: Lanes[str, str], name: str, lane: int = 1) -> "asyncio.Task[str]":
    return asyncio.create_task(lanes.submit(lane, name))


async def a_few_turns() -> None:
    """Everything that can happen without a timer or another thread has happened."""
    for _ in range(10):
        await asyncio.sleep(0)


async def answers(*tasks: "asyncio.Task[str]") -> list[str | BaseException]:
    async with asyncio.timeout(HANGS_AFTER_S):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_lone_caller_waits_for_no_timer() -> None:
    """Answered at once, in a group of its own: no clock has to tick for it."""
    work = Work()
    work.gate.set()
    call = submit(Lanes(work), "a")
    await a_few_turns()
    assert call.done()
    assert (call.result(), work.groups) == ("A", [(1, ["a"])])


async def test_whoever_waits_meanwhile_shares_the_next_group_in_order() -> None:
    """Calls that arrive while a group is at work are the next group, as they came, up to CALLS_PER_GROUP_MAX."""
    work = Work()
    lanes = Lanes(work)
    first = submit(lanes, "first")
    await a_few_turns()
    names = [f"n{n}" for n in range(CALLS_PER_GROUP_MAX + 3)]
    rest = [submit(lanes, name) for name in names]
    await a_few_turns()
    work.gate.set()
    assert await answers(first, *rest) == ["FIRST", *map(str.upper, names)]
    assert [group for _, group in work.groups] == [["first"], names[:-3], names[-3:]]


async def test_lanes_do_not_wait_for_one_another() -> None:
    """While one lane's group is at work, another lane's begins."""
    work = Work()
    lanes = Lanes(work)
    calls = [submit(lanes, f"lane {lane}", lane) for lane in (1, 2)]
    await a_few_turns()
    assert [lane for lane, _ in work.groups] == [1, 2]
    work.gate.set()
    assert await answers(*calls) == ["LANE 1", "LANE 2"]


async def test_a_refusal_is_its_callers_alone() -> None:
    """The neighbours in the group are answered."""
    work = Work()
    work.gate.set()
    bad, good = await answers(*(submit(lanes, name) for lanes in [Lanes(work)] for name in ("bad", "good")))
    assert isinstance(bad, UnknownHold)
    assert good == "GOOD"


@pytest.mark.parametrize("error", [LedgerUnavailable(), ZeroDivisionError()])
async def test_a_group_that_fails_is_told_and_the_next_one_is_answered(error: Exception) -> None:
    """Each caller of it gets the error; nobody waits for ever."""

    def fault(group: Sequence[str]) -> None:
        if "first" in group:
            raise error

    work = Work(fault)
    lanes = Lanes(work)
    first = submit(lanes, "first")
    await a_few_turns()
    second = submit(lanes, "second")
    work.gate.set()
    assert await answers(first, second) == [error, "SECOND"]


async def test_a_caller_who_is_cancelled_while_waiting_asks_for_nothing() -> None:
    """His call is never begun; those beside him are answered; one whose group is at work changes nothing for the group."""
    work = Work()
    lanes = Lanes(work)
    at_work = submit(lanes, "at work")
    await a_few_turns()
    gone, stays = submit(lanes, "gone"), submit(lanes, "stays")
    await a_few_turns()
    gone.cancel()
    at_work.cancel()
    await a_few_turns()
    work.gate.set()
    assert await answers(stays) == ["STAYS"]
    assert [group for _, group in work.groups] == [["at work"], ["stays"]]


async def test_what_waits_is_bounded() -> None:
    """One too many is refused at once, retryable; when there is room again, it is answered."""
    work = Work()
    lanes = Lanes(work, calls_waiting_max=2)
    calls = [submit(lanes, "at work")]
    await a_few_turns()
    calls += [submit(lanes, f"waits {n}") for n in range(2)]
    await a_few_turns()
    with pytest.raises(Overloaded):
        await lanes.submit(1, "one too many")
    work.gate.set()
    await answers(*calls)
    assert await lanes.submit(1, "again") == "AGAIN"


async def test_drain_returns_when_all_are_answered() -> None:
    """And forgets the lanes: nothing is kept of entities that were seen once."""
    work = Work()
    lanes = Lanes(work)
    calls = [submit(lanes, f"n{n}", n % 3) for n in range(9)]
    await a_few_turns()
    work.gate.set()
    await lanes.drain()
    assert all(call.done() for call in calls)
    assert not lanes._lanes
