"""A few histories on a database of their own: what one process plays at a time."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.conftest import Clock
from tests.databases import Databases
from tests.simulation.play import Difference
from tests.simulation.stage import play_or_explain, stage


def play_batch(server: str, run: str, steps: int, seeds: Sequence[int]) -> list[str]:
    """What differs, explained."""
    with Databases(server, run, f"batch{seeds[0]}") as databases, databases.fresh() as url:
        return asyncio.run(_play(url, seeds, steps))


async def _play(url: str, seeds: Sequence[int], steps: int) -> list[str]:
    differences = []
    async with stage(url, Clock(datetime(2026, 6, 20, 12, tzinfo=UTC))) as on:
        for seed in seeds:
            try:
                await play_or_explain(on, seed, steps)
            except Difference as found:
                differences.append(str(found))
    return differences
