"""The calls that take `conn`, and an application's own table beside the ledger."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from meterbook import Book
from meterbook.sync import Book as SyncBook
from tests.ledger import query, use

OURS = "create table answer (id text primary key, text text)"
WROTE = "insert into answer values ('a1', 'forty-two')"
ENTRY: dict[str, Any] = {"source": "workflow", "description": "gpt-4o", "event_key": "k"}


def own_table(url: str) -> None:
    query(url, OURS)


def answers(url: str) -> int:
    return int(query(url, "select count(*) from answer")[0][0])


def total(url: str) -> Decimal:
    """Of the whole ledger."""
    return Decimal(query(url, "select coalesce(sum(amount), 0) from meterbook.usage_log")[0][0])


async def _first_entry(book: Book) -> str:
    return (await use(book, "u", "2.00", "first")).entries[0].id


async def _hold(book: Book) -> str:
    return (await book.place_hold("u", amount="1.00", hold_id="h")).id


async def _nothing(_: Book) -> str:
    return ""


PREPARATIONS: dict[str, Callable[[Book], Awaitable[str]]] = {
    "record": _nothing,
    "record_many": _nothing,
    "record_cumulative": _nothing,
    "correct": _first_entry,
    "settle": _hold,
}
RECORDS = sorted(PREPARATIONS)


async def record_by(book: Book, call: str, conn: Any, prepared: str) -> None:
    """0.25 more, by each of the calls."""
    match call:
        case "record":
            await book.record("u", amount="0.25", **ENTRY, conn=conn)
        case "record_many":
            await book.record_many([{"actor": "u", "amount": "0.25", **ENTRY}], conn=conn)
        case "record_cumulative":
            await book.record_cumulative("u", request="r", total="0.25", source="s", description="d", conn=conn)
        case "correct":
            await book.correct(prepared, amount="0.25", reason="why", event_key="c", conn=conn)
        case "settle":
            await book.settle(prepared, amount="0.25", source="s", description="d", event_key="k", conn=conn)


def record_synchronously_by(book: SyncBook, call: str, conn: Any, prepared: str) -> None:
    match call:
        case "record":
            book.record("u", amount="0.25", **ENTRY, conn=conn)
        case "record_many":
            book.record_many([{"actor": "u", "amount": "0.25", **ENTRY}], conn=conn)
        case "record_cumulative":
            book.record_cumulative("u", request="r", total="0.25", source="s", description="d", conn=conn)
        case "correct":
            book.correct(prepared, amount="0.25", reason="why", event_key="c", conn=conn)
        case "settle":
            book.settle(prepared, amount="0.25", source="s", description="d", event_key="k", conn=conn)


class RollBack(Exception):
    """The application changes its mind."""
