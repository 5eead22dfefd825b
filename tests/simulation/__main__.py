"""`python -m tests.simulation [SEED …] [--steps 60] [--histories 1]`: plays seeds on an embedded server, and shrinks what differs."""

import argparse
import asyncio
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from meterbook.postgres.embedded import Embedded
from tests.conftest import QUICK, Clock
from tests.databases import Databases
from tests.simulation.play import Difference
from tests.simulation.stage import HISTORIES_A_DATABASE, play_or_explain, stage


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seeds", nargs="*", type=int)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--histories", type=int, default=1)
    said = parser.parse_args()
    seeds = said.seeds or [random.randrange(2**32) for _ in range(said.histories)]
    with TemporaryDirectory() as folder:
        engine = Embedded(Path(folder) / "engine", QUICK)
        try:
            with Databases(engine.start(), random.randbytes(6).hex(), "main") as databases:
                return _play_all(databases, seeds, said.steps)
        finally:
            engine.stop()


def _play_all(databases: Databases, seeds: list[int], steps: int) -> int:
    began, failed = time.monotonic(), 0
    for first in range(0, len(seeds), HISTORIES_A_DATABASE):
        with databases.fresh() as url:
            failed += asyncio.run(_play(url, seeds[first : first + HISTORIES_A_DATABASE], steps))
    seconds = time.monotonic() - began
    sys.stdout.write(f"{len(seeds)} histories of {steps} steps in {seconds:.1f} s, {failed} differ\n")
    return min(failed, 1)


async def _play(url: str, seeds: list[int], steps: int) -> int:
    failed = 0
    async with stage(url, Clock(datetime(2026, 6, 20, 12, tzinfo=UTC))) as on:
        for seed in seeds:
            try:
                await play_or_explain(on, seed, steps)
            except Difference as found:
                failed += 1
                sys.stdout.write(f"{found}\n\n")
    return failed


sys.exit(main())
