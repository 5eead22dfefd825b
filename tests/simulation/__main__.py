"""`python -m tests.simulation [SEED …] [--first 1 --histories 20] [--steps 60] [--processes 2]`: plays seeds on an embedded server.

What differs is shrunk and printed at once. With --first the seeds are counted from there, and each batch that agrees is said, so that a
run that was stopped goes on with --first where it was; without seeds and --first they are new ones.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from meterbook.postgres.embedded import Embedded
from tests.conftest import QUICK
from tests.databases import Databases
from tests.simulation.batch import play_batch
from tests.simulation.stage import HISTORIES_A_DATABASE

# Nothing here outlives the run; a steady stream of small databases is no load to vacuum.
ENGINE = QUICK | {"synchronous_commit": "off", "autovacuum": "off"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seeds", nargs="*", type=int)
    parser.add_argument("--first", type=int)
    parser.add_argument("--histories", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--processes", type=int, default=1)
    said = parser.parse_args()
    seeds = said.seeds or [random.randrange(2**32) for _ in range(said.histories)]
    if said.first is not None:
        seeds = list(range(said.first, said.first + said.histories))
    with TemporaryDirectory() as folder:
        engine = Embedded(Path(folder) / "engine", ENGINE)
        try:
            return _play_all(engine.start(), seeds, said)
        finally:
            engine.stop()


def _play_all(server: str, seeds: Sequence[int], said: argparse.Namespace) -> int:
    began, failed, run = time.monotonic(), 0, random.randbytes(6).hex()
    batches = [seeds[at : at + HISTORIES_A_DATABASE] for at in range(0, len(seeds), HISTORIES_A_DATABASE)]
    play = partial(play_batch, server, run, said.steps)
    with Databases(server, run, "main"), ProcessPoolExecutor(said.processes, get_context("spawn")) as workers:
        for batch, differences in zip(batches, workers.map(play, batches), strict=True):
            failed += len(differences)
            for text in _report(batch, differences, counted=said.first is not None):
                sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
    seconds = time.monotonic() - began
    sys.stdout.write(f"{len(seeds)} histories of {said.steps} steps in {seconds:.1f} s, {failed} differ\n")
    return min(failed, 1)


def _report(batch: Sequence[int], differences: Sequence[str], *, counted: bool) -> Iterator[str]:
    for text in differences:
        yield f"{text}\n"
    if counted and not differences:
        yield f"{batch[0]} … {batch[-1]} agree"


if __name__ == "__main__":
    sys.exit(main())
