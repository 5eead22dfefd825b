"""Section 4: sums, as far as the ledger alone."""

from decimal import Decimal

import pytest

from meterbook import Book
from tests.ledger import total, use


@pytest.mark.parametrize(
    ("times", "each", "exactly"), [(3, "0.1", "0.3"), (10, "0.1", "1.0"), (1000, "0.0000001", "0.0001")]
)
async def test_s27_sums_are_exact(book: Book, times: int, each: str, exactly: str) -> None:
    """3 × 0.1 → 0.3; 10 × 0.1 → 1.0; 1 000 × 0.0000001 → 0.0001, before and after compaction."""
    entry = {"actor": "u", "source": "workflow", "description": "m", "amount": each, "execution": "e1"}
    await book.record_many([entry] * times)
    assert await total(book, "user:u") == Decimal(exactly)
    await book.compact()
    assert await total(book, "user:u") == Decimal(exactly)


async def test_s28_first_contact_is_never_shown_as_nothing(book: Book) -> None:
    """(user, free period) 4.00 and nothing else known: 4.00 of 5.00, 80 %, warning."""
    await use(book, "u", "4.00")
    usage = await book.usage("user:u")
    assert (usage.effective, usage.limit, usage.percent) == (Decimal(4), Decimal(5), Decimal(80))
    assert usage.status == "warning"
