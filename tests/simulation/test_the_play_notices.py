"""The simulation itself: it finds nothing where nothing is wrong, finds each broken rule, and shrinks what it finds. No database."""

from typing import cast

import pytest

from meterbook import Book
from tests.conftest import Clock
from tests.simulation.auditor import Auditor
from tests.simulation.histories import History, make_history, shrink
from tests.simulation.mirror import BROKEN, Mirror
from tests.simulation.play import Difference, Played, Scene, play

HISTORIES = 150
STEPS = 120


async def play_mirrored(history: History, make: type[Auditor], clock: Clock) -> Played:
    book = cast("Book", Mirror(make, clock))
    return await play(history, Scene(book, book, clock), "m.")


async def differs(history: History, make: type[Auditor], clock: Clock) -> bool:
    try:
        await play_mirrored(history, make, clock)
    except Difference:
        return True
    return False


async def first_that_shows(broken: type[Auditor], clock: Clock) -> int | None:
    """The seed of the first history that differs."""
    for seed in range(HISTORIES):
        if await differs(make_history(seed, STEPS), broken, clock):
            return seed
    return None


@pytest.mark.parametrize("seed", range(40))
async def test_an_auditor_agrees_with_itself(seed: int, clock: Clock) -> None:
    """Every billing step can be played, I7 holds at the end, and nothing is found where nothing is wrong."""
    played = await play_mirrored(make_history(seed, STEPS), Auditor, clock)
    assert played.unclear < played.steps / 2


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_a_broken_rule_is_noticed(broken: type[Auditor], clock: Clock) -> None:
    """Among so many histories at least one shows it."""
    assert await first_that_shows(broken, clock) is not None, (
        f"{HISTORIES} histories didn't show that it {broken.__name__}"
    )


async def test_a_difference_is_shrunk(clock: Clock) -> None:
    """What is left still differs, and no single step can be left out of it."""
    broken = BROKEN[0]

    async def fails(history: History) -> bool:
        return await differs(history, broken, clock)

    seed = 0
    while not await fails(make_history(seed, STEPS)):
        seed += 1
    smallest = await shrink(make_history(seed, STEPS), fails)
    assert await fails(smallest)
    for position in range(len(smallest.steps)):
        steps = smallest.steps[:position] + smallest.steps[position + 1 :]
        assert not await fails(History(smallest.seed, smallest.start, steps))
