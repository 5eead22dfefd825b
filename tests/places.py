"""Where the tests' server keeps its data: in memory where there is plenty.

A database is some 700 files, and ext4 looks past every file that was deleted within minutes before it makes a new one: after a few hundred
databases, `create database` takes half a second of the processor there, and 40 ms in memory.
"""

import shutil
from contextlib import suppress
from pathlib import Path

from meterbook.errors import EngineUnavailable
from meterbook.postgres.embedded import erase

MEMORY = Path("/dev/shm")
BYTES_WANTED = 6 << 30
PREFIX = "meterbook-tests-"


def engine_folder(run: str, otherwise: Path) -> Path:
    """A folder for the processes of one run: in memory, or in the folder `otherwise`. What a killed run left in memory is deleted."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < BYTES_WANTED or _available() < BYTES_WANTED:
        return otherwise / "engine"
    for left in MEMORY.glob(f"{PREFIX}*"):
        if left.name != PREFIX + run:
            with suppress(EngineUnavailable, OSError):  # another user's
                erase(left)
    folder = MEMORY / (PREFIX + run)
    folder.mkdir(mode=0o755, exist_ok=True)
    return folder


def _available() -> int:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) << 10
