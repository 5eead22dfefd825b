"""Where histories are played: a book of its own for a group of them, each under names of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import meterbook
from meterbook import Book
from tests.conftest import Clock
from tests.ledger import close
from tests.simulation.histories import History, make_history, shrink
from tests.simulation.play import Difference, Played, kinds_of, play

HISTORIES_A_DATABASE = 5  # a sweep looks at everybody in it


class Stage:
    def __init__(self, book: Book, clock: Clock, database_url: str) -> None:
        self.book = book
        self.clock = clock
        self.database_url = database_url
        self.played = 0

    async def play(self, history: History) -> Played:
        """Raises `Difference`."""
        self.played += 1
        return await play(
            history, self.book, self.clock, f"{self.played}.", lambda period: close(self.database_url, period)
        )

    async def fails(self, history: History) -> bool:
        return await self.difference(history) is not None

    async def difference(self, history: History) -> Difference | None:
        try:
            await self.play(history)
        except Difference as found:
            return found
        return None


@asynccontextmanager
async def stage(database_url: str, clock: Clock) -> AsyncIterator[Stage]:
    async with meterbook.open(database_url, clock=clock) as book:
        yield Stage(book, clock, database_url)


async def play_or_explain(on: Stage, seed: int, steps: int) -> None:
    """Raises with the seed, the shrunk history and what differs in it."""
    history = make_history(seed, steps, kinds_of(on.book))
    first = await on.difference(history)
    if first is None:
        return
    if first.step is not None:
        history = History(history.seed, history.start, history.steps[: first.step + 1])
    smallest = await shrink(history, on.fails)
    try:
        await on.play(smallest)
    except Difference as found:
        text = f"python -m tests.simulation {seed} --steps {steps}\n{smallest}\n→ {found}"
        raise Difference(text) from found
    raise Difference(f"{history}\n→ differs only sometimes")
