"""Section 10: membership and conversion."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

from decimal import Decimal

from meterbook import Book
from tests.bills import charged, check_books, invoices, lump, organization, pays
from tests.conftest import Clock
from tests.ledger import P1, sums, use, utc


async def test_s75_join_mid_cycle(book: Book, clock: Clock, database_url: str) -> None:
    """U's Pro: 60.00 on days 0–4, joins O on 06-06: O 110.25 − 2.25 − 90 = 18.00; U's Pro final 60 − 1.25 − 30 = 28.75 → 2 875."""
    clock.now = utc(2026, 6, 5, 12)
    await pays(book, "user:u")
    await organization(book, "o", "other", window=(utc(2026, 6, 3), utc(2026, 7, 3)), seats=3)
    for day in range(5):
        await lump(book, "u", "12.00", day)
    clock.now = utc(2026, 6, 6)
    await book.add_member("o", "u")
    for day in (6, 7):
        clock.now = utc(2026, 6, day, 12)
        await use(book, "u", "20.00")
    clock.now = utc(2026, 6, 10, 12)
    await use(book, "other", "70.25")
    assert ((await book.check("u")).entity, (await book.check("u")).limit) == ("organization:o", 90)
    cancels = [row.payload for row in await book.outbox("user:u") if row.kind == "cancel_at_period_end"]
    assert cancels == [{"subscription": "sub_user:u", "cancel_at_period_end": True}]
    usage = await book.usage("organization:o")
    assert (usage.total, usage.refresh, usage.effective, usage.overage) == (
        Decimal("110.25"),
        Decimal("2.25"),
        Decimal("108.00"),
        Decimal("18.00"),
    )
    clock.now = utc(2026, 7, 4)
    await book.sweep()
    assert (await charged(book, "user:u"), await charged(book, "organization:o")) == ([2_875], [1_800])
    assert sums(database_url) == {"user:u": Decimal("60.00"), "organization:o": Decimal("110.25")}
    assert len([period for period in await book.periods("user:u") if period.kind == "dated"]) == 1
    await check_books(book, database_url)


async def test_s78_pro_to_team_conversion(book: Book, clock: Clock, database_url: str) -> None:
    """Lump 80.25 (overage 50.00), converted to team_6000 × 2 → the personal segment closes with 5 000; the organization starts at 0."""
    await pays(book, "user:u")
    await lump(book, "u", "80.25")
    await book.put_organization("o", owner="u")
    await pays(book, "organization:o", "team_6000", seats=2, id="sub_user:u")
    usage = await book.usage("organization:o")
    assert (usage.effective, usage.limit, usage.billed_cents) == (0, 60, 0)
    assert (await use(book, "u", "1.00")).entries[0].entity == "organization:o"
    clock.now = utc(2026, 6, 20, 13)
    await book.sweep()
    assert (await charged(book, "user:u"), await charged(book, "organization:o")) == ([5_000], [])
    assert await invoices(book) == [5_000]
    await check_books(book, database_url)


async def test_s79_free_paid_free(book: Book, clock: Clock) -> None:
    """Baseline 3.00 + 1.50 = 4.50 of 5 (90 %, warning); pro_6000: usage 0, limit 30, not billed for it; cancelled: 4.50 of 5 again."""
    clock.now = utc(2026, 6, 9)
    await book.set_baseline("user:u", "3.00")
    await use(book, "u", "1.50")
    usage = await book.usage("user:u")
    assert (usage.effective, usage.percent, usage.status) == (Decimal("4.50"), 90, "warning")
    clock.now = utc(2026, 6, 10)
    window = (utc(2026, 6, 10), utc(2026, 7, 10))
    await pays(book, "user:u", window=window)
    usage = await book.usage("user:u")
    assert (usage.effective, usage.limit, usage.billed_cents) == (0, 30, 0)
    clock.now = utc(2026, 6, 20)
    await pays(book, "user:u", window=window, status="canceled")
    usage = await book.usage("user:u")
    assert (usage.effective, usage.limit) == (Decimal("4.50"), 5)
    clock.now = P1[1]
    await book.sweep()
    assert await invoices(book) == []
