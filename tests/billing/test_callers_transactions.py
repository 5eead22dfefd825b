"""Corrections and settlements in the caller's own transaction (BEHAVIOUR §3.5, §8): work and its charge commit or vanish together."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

import meterbook
from meterbook import Book, KeyConflict, MeterbookError
from meterbook.errors import CorrectionRefused
from tests.bills import pays
from tests.conftest import Clock
from tests.ledger import P1, sums, use
from tests.races.playing import connected

Call = Callable[[Book, Any], Awaitable[object]]


async def correct(book: Book, conn: Any) -> object:
    entries = await book.entries("user:u", limit=1)
    return await book.correct(entries.entries[0].id, amount="-1", reason="test", event_key="fix", conn=conn)


async def settle(book: Book, conn: Any) -> object:
    await book.place_hold("u", amount="0.50", hold_id="h")
    return await book.settle("h", amount="1", source="workflow", description="m", conn=conn)


@pytest.mark.parametrize(("call", "after"), [(correct, "2"), (settle, "4")])
async def test_the_call_commits_with_the_caller_and_not_before(
    book: Book, database_url: str, call: Call, after: str
) -> None:
    """Also where the caller's transaction begins with this very call: rolled back, nothing happened."""
    await use(book, "u", "3")
    for commits in (False, True):
        async with connected(database_url) as conn:
            await call(book, conn)
            assert sums(database_url) == {"user:u": 3}
            await (conn.commit() if commits else conn.rollback())
    assert sums(database_url) == {"user:u": Decimal(after)}
    assert await book.verify() == []


async def refused_correction(book: Book, conn: Any) -> None:
    entries = await book.entries("user:u", limit=1)
    await book.correct(entries.entries[0].id, amount="-99", reason="test", event_key="fix", conn=conn)


async def refused_settle(book: Book, conn: Any) -> None:
    await book.place_hold("u", amount="0.50", hold_id="h")
    await book.settle("h", amount="1", source="workflow", description="m", event_key="first", conn=conn)


@pytest.mark.parametrize(("call", "refusal"), [(refused_correction, CorrectionRefused), (refused_settle, KeyConflict)])
async def test_a_refusal_undoes_itself_alone(
    book: Book, database_url: str, call: Call, refusal: type[MeterbookError]
) -> None:
    """The caller's transaction stays usable, and what it did before is committed."""
    await use(book, "u", "3", "first")
    async with connected(database_url) as conn:
        await use(book, "u", "0.25", conn=conn)
        with pytest.raises(refusal):
            await call(book, conn)
        await conn.commit()
    assert sums(database_url) == {"user:u": Decimal("3.25")}
    assert await book.verify() == []


async def test_many_at_once_at_a_boundary_share_few_connections(database_url: str, clock: Clock) -> None:
    """Eight settlements and eight corrections are the first to come by in the next period, two connections: none waits for a second one."""
    async with meterbook.open(database_url, clock=clock, connections_max=2) as book:
        entries = []
        for n in range(8):
            await pays(book, f"user:u{n}")
            entries.append((await use(book, f"u{n}", "3")).entries[0].id)
            await book.place_hold(f"u{n}", amount="1", hold_id=f"h{n}")
        clock.now = P1[1] + timedelta(hours=2)
        settled = (book.settle(f"h{n}", amount="1", source="workflow", description="m") for n in range(8))
        corrected = (
            book.correct(entry, amount="-1", reason="test", event_key=f"fix {n}") for n, entry in enumerate(entries)
        )
        async with asyncio.timeout(20):
            await asyncio.gather(*settled, *corrected)
        assert sums(database_url) == {f"user:u{n}": 3 for n in range(8)}
