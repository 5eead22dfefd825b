"""A writer's process, to be killed: python -m tests.faults.writer URL JOURNAL CALLS DIES_AFTER_GROUPS

Records `CALLS` calls, several at a time, and notes in the journal what it is about to try and what was acknowledged. With
`DIES_AFTER_GROUPS` above 0 it kills itself when so many groups have been committed, before any of their callers hears of it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import meterbook
from meterbook.book import Book
from meterbook.core.entries import Entry
from meterbook.core.recorded import Answer

CALLERS = 8


class Journal:
    """Lines that outlive a kill -9: written to the kernel before the writer goes on."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, keys: Sequence[str]) -> None:
        os.write(self._file, "".join(f"{what} {key}\n" for key in keys).encode())


def call_of(number: int) -> list[dict[str, Any]]:
    """The same entries whoever asks: a retry says what the first attempt said. Every third call has five."""
    said = {"actor": f"actor {number % 5}", "source": "workflow", "description": "gpt-4o", "amount": number % 7 + 1}
    return [said | {"event_key": f"key {number}.{part}"} for part in range(5 if number % 3 == 0 else 1)]


def die_after(book: Book, groups: int) -> None:
    """Between the commit and its acknowledgement."""
    write, committed = book._group_commit._write, 0

    async def write_and_die(entries: Sequence[Entry]) -> list[Answer]:
        nonlocal committed
        answers = await write(entries)
        committed += 1
        if committed == groups:
            os.kill(os.getpid(), signal.SIGKILL)
        return answers

    book._group_commit._write = write_and_die


async def write_all(url: str, journal: Journal, calls: int, dies_after_groups: int) -> None:
    left = iter(range(calls))
    async with meterbook.open(url) as book:
        die_after(book, dies_after_groups)

        async def caller() -> None:
            for call in left:
                entries = call_of(call)
                keys = [str(entry["event_key"]) for entry in entries]
                journal.note("tried", keys)
                await book.record_many(entries)
                journal.note("acknowledged", keys)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(write_all(sys.argv[1], Journal(Path(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])))
