"""Where histories are played: two books on a database of their own for a group of them, each under names of its own."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg import AsyncConnection

import meterbook
from meterbook import Book
from tests.conftest import Clock
from tests.ledger import query
from tests.simulation.histories import History, make_history, shrink
from tests.simulation.play import Difference, Played, Scene, play

HISTORIES_A_DATABASE = 10  # verify() reads all of them
# A sweep looks at everybody who is due: those of a history that is over are not any more.
RETIRED = """
update meterbook.billing_period set state = 'closed' where state <> 'closed';
update meterbook.period_clock set due_at = 'infinity';
update meterbook.actor set payer_until = 'infinity';
delete from meterbook.moved_entity;
"""


class Accident:
    """Lets a connection die at the n-th statement from now: before it, or `answered` too late, when it has taken effect."""

    def __init__(self) -> None:
        self.left = 0
        self.answered = False

    @contextmanager
    def ahead(self, statement: int, answered: bool) -> Iterator[None]:
        self.left, self.answered = statement, answered
        try:
            yield
        finally:
            self.left = 0

    def strikes(self) -> bool:
        """Counts a statement."""
        self.left -= 1
        return self.left == 0


class Mortal(AsyncConnection[Any]):
    """A connection that dies when its accident says so."""

    accident: Accident

    async def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        if not self.accident.strikes():
            return await super().wait(gen, *arguments, **options)
        if self.accident.answered:
            await super().wait(gen, *arguments, **options)
        self.pgconn.finish()
        raise psycopg.OperationalError("the connection died")


async def make_mortal(book: Book, accident: Accident) -> None:
    """Every connection that the book makes from now on."""
    book._pool.connection_class = type("MortalOfOne", (Mortal,), {"accident": accident})
    async with book._pool.connection() as conn:
        await conn.close()


class Stage:
    def __init__(self, book: Book, other: Book, clock: Clock, accident: Accident, database_url: str) -> None:
        self._scene = Scene(book, other, clock, accident.ahead, partial(AsyncConnection.connect, database_url))
        self._database_url = database_url
        self.played = 0

    async def play(self, history: History) -> Played:
        """Raises `Difference`."""
        self.played += 1
        query(self._database_url, RETIRED)
        return await play(history, self._scene, f"{self.played}.")

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
    accident = Accident()
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of connections that die
    async with meterbook.open(database_url, clock=clock) as book, meterbook.open(database_url, clock=clock) as other:
        await make_mortal(book, accident)
        yield Stage(book, other, clock, accident, database_url)


async def play_or_explain(on: Stage, seed: int, steps: int) -> None:
    """Raises with the seed, the shrunk history and what differs in it."""
    history = make_history(seed, steps)
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
    raise Difference(f"{history}\n→ differs only sometimes: {first}")
