"""Section 6: overage."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

from decimal import Decimal

import pytest

from meterbook import Book
from meterbook.core.ledgers import Billed
from tests.bills import charged, invoices, lump, organization, pays
from tests.conftest import Clock
from tests.ledger import P2, utc

TABLE = [
    # plan, seats, usage, departed, refresh, overage
    ("pro_6000", 1, "150", "0", ["0.25"] * 20, "115.00"),
    ("pro_25000", 1, "140", "0", ["1.00"] * 30, "0"),
    ("pro_25000", 1, "170", "0", ["1.00"] * 30, "15.00"),
    ("pro", 1, "31.40", "0", ["0.20"] * 5 + ["0.15"], "10.25"),
    ("team_6000", 3, "130", "7.50", ["0.75"] * 16 + ["0.25"], "35.25"),
    ("team", 2, "100", "0", ["0.80"] * 6, "15.20"),
    ("team_25000", None, "200", "0", [], "75.00"),
    ("enterprise", 1, "5000", "0", [], "0"),
    ("pro_6000", 1, "34.00", "0", ["0.25"] * 18, "0"),
]


@pytest.mark.parametrize(("plan", "seats", "used", "departed", "days", "overage"), TABLE)
async def test_s36_table(
    book: Book, clock: Clock, plan: str, seats: int | None, used: str, departed: str, days: list[str], overage: str
) -> None:
    """Overage = baseline (departed members' included) + ledger − refresh − included; enterprise none."""
    clock.now = utc(2026, 6, 30, 23)
    pooled = plan.startswith("team")
    entity, actor = ("organization:o", "boss") if pooled else ("user:boss", "boss")
    if pooled:
        await organization(book, "o", plan=plan, seats=seats)
    else:
        await pays(book, entity, plan)
    for day, amount in enumerate(days):
        await lump(book, actor, amount, day)
    await book.set_baseline(entity, Decimal(used) + Decimal(departed) - sum(map(Decimal, days)))
    assert (await book.usage(entity)).overage == Decimal(overage)


async def test_s38_an_upgrade_refunds_nothing_and_uses_up_the_surplus_first(book: Book) -> None:
    """Billed 120.00 on pro_6000; on pro_25000 151.00 leaves overage 25.00 and unbilled 0; 346.00 → 220.00, 100.00 is billed."""
    await pays(book, "user:u")
    await lump(book, "u", "150.25")
    assert (await book.usage("user:u")).overage == Decimal("120.00")
    assert await book.bill_threshold("user:u") == Billed(12_000, 0, None)
    await pays(book, "user:u", "pro_25000")
    await lump(book, "u", "0.75")
    usage = await book.usage("user:u")
    assert (usage.overage, usage.billed_cents) == (Decimal("25.00"), 12_000)
    assert await book.bill_threshold("user:u") == Billed(0, 0, "below_threshold")
    await lump(book, "u", "195.00")
    assert (await book.usage("user:u")).overage == Decimal("220.00")
    assert await book.bill_threshold("user:u") == Billed(10_000, 0, None)
    assert (await book.usage("user:u")).billed_cents == 22_000
    assert await charged(book, "user:u") == await invoices(book) == [12_000, 10_000]


async def test_s39_a_downgrade_waits_for_the_next_period(book: Book, clock: Clock) -> None:
    """pro_25000, lump 121.00 → overage 0; pro_6000 inside P1: still 0 (90.75 at once would be the origin's); pro_6000 from P2."""
    await pays(book, "user:u", "pro_25000")
    await lump(book, "u", "121.00")
    assert (await book.usage("user:u")).overage == 0
    await pays(book, "user:u", "pro_6000")
    usage = await book.usage("user:u")
    assert (usage.overage, usage.included) == (0, Decimal(125))
    clock.now = P2[0]
    usage = await book.usage("user:u")
    assert (usage.period.plan, usage.included, usage.period.refresh_per_day) == (
        "pro_6000",
        Decimal(30),
        Decimal("0.25"),
    )
