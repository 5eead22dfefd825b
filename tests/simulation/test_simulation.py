"""Random histories on the Book and on the auditor, which must agree to the cent; a failure prints its seed and the shrunk history."""

import os
from random import Random

import pytest

from tests.conftest import Clock
from tests.databases import Databases
from tests.simulation.stage import play_or_explain, stage

HISTORIES = int(os.environ.get("METERBOOK_SIM_HISTORIES", "300"))
STEPS = int(os.environ.get("METERBOOK_SIM_STEPS", "60"))
GROUPS = 20
# What the rules say is the same on every server; on the second one a sample shows that it is.
ONE_IN_ON_THE_SECOND_SERVER = 7


def chosen(seed: int, server: str) -> list[int]:
    """The same every time, or of METERBOOK_TEST_SEED."""
    seeds = list(range(1, HISTORIES + 1))
    if "METERBOOK_TEST_SEED" in os.environ:
        seeds = [Random(f"{seed} {number}").randrange(2**32) for number in range(HISTORIES)]
    return seeds if server == "embedded18" else seeds[::ONE_IN_ON_THE_SECOND_SERVER]


@pytest.mark.parametrize("group", range(GROUPS))
async def test_a_random_history_agrees_with_the_auditor(
    group: int, seed: int, databases: Databases, clock: Clock, request: pytest.FixtureRequest
) -> None:
    """After each step what it touched, and at the end every period, charge and sum, are the auditor's to the cent."""
    seeds = chosen(seed, request.node.callspec.params["server"])[group::GROUPS]
    with databases.fresh() as url:
        async with stage(url, clock) as on:
            for each in seeds:
                await play_or_explain(on, each, STEPS)
            assert on.played == len(seeds)
