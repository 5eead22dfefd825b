"""A caller's connection of psycopg with habits of its own: nothing of the ledger's depends on them."""

from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.rows import dict_row
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

from meterbook import Book
from meterbook.errors import KeyConflict
from tests.conftest import Clock
from tests.integrations.callers import ENTRY, PREPARATIONS, RECORDS, record_by, total
from tests.ledger import P1, query


async def peculiar(url: str) -> AsyncConnection[Any]:
    """Numbers as floats, jsonb and times as text, rows as dicts, placeholders as $1, times in another zone and style."""
    conn = await AsyncConnection.connect(url, cursor_factory=AsyncRawCursor, row_factory=dict_row)
    conn.adapters.register_loader("numeric", FloatLoader)
    for kind in ("jsonb", "json", "timestamptz", "uuid"):
        conn.adapters.register_loader(kind, TextLoader)
    await conn.execute("set timezone = 'Asia/Kolkata'")
    await conn.execute("set datestyle = 'German'")
    return conn


@pytest.mark.parametrize("call", RECORDS)
async def test_every_call_works_on_a_connection_with_other_cursors_and_adapters(
    book: Book, database_url: str, call: str
) -> None:
    """Neither cursor factory, row factory, adapters nor session settings of the caller matter."""
    prepared = await PREPARATIONS[call](book)
    before = total(database_url)
    async with await peculiar(database_url) as conn:
        await record_by(book, call, conn, prepared)
    assert total(database_url) == before + Decimal("0.25")


async def test_amounts_and_times_of_the_answer_are_exact(book: Book, database_url: str, clock: Clock) -> None:
    """Where the caller reads numbers as floats, the ledger still says Decimal."""
    async with await peculiar(database_url) as conn:
        done = await book.record("u", amount="0.123456789012", **ENTRY, conn=conn)
        with pytest.raises(KeyConflict) as raised:
            await book.record("u", amount="1", **ENTRY, conn=conn)
    assert (done.amount, done.entries[0].recorded_at) == (Decimal("0.123456789012"), clock.now)
    assert raised.value.conflicts[0].first["amount"] == Decimal("0.123456789012")


async def test_a_correction_after_the_close_gives_back_the_right_cents(
    book: Book, database_url: str, clock: Clock
) -> None:
    """The longest path: a closed period's figures are read, computed with and credited on the caller's connection."""
    await book.put_subscription(
        id="s", owner="user:u", plan="pro", status="active", starts_at=P1[0], ends_at=P1[1],
        stripe_customer="cus", stripe_subscription="sub",
    )  # fmt: skip
    entry = (await book.record("u", amount="50.00", **ENTRY)).entries[0]
    clock.now = P1[1].replace(hour=3)
    assert (await book.close("user:u")).closed == 1
    async with await peculiar(database_url) as conn:
        await book.correct(entry.id, amount="-7.00", reason="refund", event_key="c", conn=conn)
    assert (await book.credits("user:u")).balance_cents == 700


async def test_the_connection_keeps_its_habits(book: Book, database_url: str) -> None:
    """What the caller set stays set, and the transaction is still the caller's to roll back."""
    async with await peculiar(database_url) as conn:
        await book.record("u", amount="0.25", **ENTRY, conn=conn)
        row = await (await conn.execute("select $1::numeric as amount", ["0.5"])).fetchone()
        assert row == {"amount": 0.5}
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        await conn.rollback()
    assert query(database_url, "select count(*) from meterbook.usage_log") == [(0,)]
