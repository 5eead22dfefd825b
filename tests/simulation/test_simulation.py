"""Random histories on the Book and on the auditor, which must agree to the cent; a failure prints its seed and the shrunk history."""

import os
from random import Random

import pytest

from tests.conftest import Clock
from tests.databases import Databases
from tests.simulation.stage import HISTORIES_A_DATABASE, play_or_explain, stage

HISTORIES = int(os.environ.get("METERBOOK_SIM_HISTORIES", "40"))
STEPS = int(os.environ.get("METERBOOK_SIM_STEPS", "60"))
GROUPS = 8


def chosen(seed: int) -> list[int]:
    """The same every time, or of METERBOOK_TEST_SEED."""
    if "METERBOOK_TEST_SEED" in os.environ:
        return [Random(f"{seed} {number}").randrange(2**32) for number in range(HISTORIES)]
    return list(range(1, HISTORIES + 1))


@pytest.mark.parametrize("group", range(GROUPS))
async def test_a_random_history_agrees_with_the_auditor(
    group: int, seed: int, databases: Databases, clock: Clock
) -> None:
    """After each step what it touched, and at the end every period, charge and sum, are the auditor's to the cent."""
    seeds = chosen(seed)[group::GROUPS]
    played = 0
    for first in range(0, len(seeds), HISTORIES_A_DATABASE):
        with databases.fresh() as url:
            async with stage(url, clock) as on:
                for each in seeds[first : first + HISTORIES_A_DATABASE]:
                    await play_or_explain(on, each, STEPS)
                played += on.played
    assert played == len(seeds)
