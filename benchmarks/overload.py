"""A recorder under overload: 10 000 callers hand in more than the database takes. What waits is bounded, and so is memory.

The callers live in a process of their own, `python -m benchmarks.overload URL SECONDS`, whose memory is what is measured.
"""

import asyncio
import json
import resource
import sys
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from time import perf_counter

import meterbook
from benchmarks.measuring import Figure
from benchmarks.options import Options
from benchmarks.server import Server
from meterbook.errors import Overloaded

CALLERS = 10_000
CALLERS_QUICK = 500
ENTRIES_PER_CALL = 5
"""All together 50 000 entries, against 20 000 that may wait."""
SECONDS = 30
SECONDS_QUICK = 3
KIB_PER_MB = 1e6 / 1024


@dataclass(slots=True)
class Overload:
    """Memory is the process's peak so far: before the callers, after a third of the time, at the end."""

    before_mb: float = 0
    third_mb: float = 0
    end_mb: float = 0
    written: int = 0
    refused: int = 0


async def measure(server: Server, options: Options) -> list[Figure]:
    seconds, callers = (SECONDS_QUICK, CALLERS_QUICK) if options.quick else (SECONDS, CALLERS)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.overload", server.database("overload"), str(seconds), str(callers),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("the recorder under overload has failed")
    seen = Overload(**json.loads(output))
    return [
        Figure("overload/memory before", "MB", (seen.before_mb,)),
        Figure("overload/memory after a third", "MB", (seen.third_mb,)),
        Figure("overload/memory at the end", "MB", (seen.end_mb,)),
        Figure("overload/written", "events/s", (seen.written / seconds,)),
        Figure("overload/refused", "calls/s", (seen.refused / seconds,)),
    ]


async def overload(url: str, seconds: int, callers: int) -> Overload:
    async with meterbook.open(url) as book:
        await book.record("user_0", source="workflow", description="first", amount="1", event_key="first")
        seen = Overload(before_mb=_peak_mb())
        until = perf_counter() + seconds
        numbers = count()

        async def call() -> None:
            while perf_counter() < until:
                entries = [
                    meterbook.Usage("user_0", "workflow", "gpt-4o", "0.001", event_key=f"overload {next(numbers)}")
                    for _ in range(ENTRIES_PER_CALL)
                ]
                try:
                    recorded = await book.record_many(entries)
                except Overloaded:
                    seen.refused += 1
                else:
                    seen.written += recorded.inserted

        async def watch() -> None:
            await asyncio.sleep(seconds / 3)
            seen.third_mb = _peak_mb()

        await asyncio.gather(watch(), *(call() for _ in range(callers)))
    seen.end_mb = _peak_mb()
    return seen


def _peak_mb() -> float:
    """Linux's own count where there is one: the other begins with what the parent process used."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MB
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak) / KIB_PER_MB


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(overload(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))))
