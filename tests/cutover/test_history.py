"""Past usage is imported sealed: readable, in no limit, no bill, no lateness; and refused rows are said."""

from datetime import timedelta
from decimal import Decimal

from meterbook import Book
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.ledger import P0, P1, query, utc
from tests.legacy_product.history import Product

ORIGIN = load_mapping()
DAY = timedelta(days=1)


async def test_past_rows_are_readable_and_never_billed(legacy_url: str, book: Book, clock: Clock) -> None:
    """S69: overage of 40 in P0 is history; P1 begins with its baseline alone. Again, nothing is added."""
    product = Product()
    product.user("u")
    product.subscription("u", "pro_6000")
    product.charge("u", "45", P0[0] + DAY, counted=False)
    product.charge("u", "25", P0[0] + 2 * DAY, counted=False)
    product.charge("u", "3", P1[0] + DAY)
    product.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
        done = await cutover.import_history()
        again = await cutover.import_history()
    assert (done.periods, done.rows, done.amount, done.refused) == (1, 2, Decimal(70), 0)
    assert (again.periods, again.rows) == (0, 0)
    past = [one for one in await book.periods("user:u") if one.kind == "history"]
    assert [(one.starts_at, one.ends_at, one.state) for one in past] == [(*P0, "closed")]
    assert (await book.usage("user:u", past[0].id)).total == Decimal(70)
    assert (await book.usage("user:u")).total == Decimal(3)
    await book.sweep()
    assert (await book.charges("user:u"), await book.outbox(), await book.verify()) == ([], [], [])


async def test_a_members_past_is_the_organizations_from_the_day_of_joining(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """Rows before it are not: a free plan's period has not ended, so there is no past of it."""
    product = Product()
    product.user("owner")
    product.user("member")
    product.organization("team", "owner", joined=P0[0] - 10 * DAY)
    product.member("team", "member", P0[0] + 10 * DAY)
    product.subscription("team", "team_6000", seats=2)
    product.charge("member", "1", P0[0] + 5 * DAY, counted=False)
    product.charge("member", "2", P0[0] + 15 * DAY, counted=False)
    product.charge("owner", "4", P0[0] + 5 * DAY, counted=False)
    product.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        done = await cutover.import_history()
    assert (done.rows, done.amount) == (2, Decimal(6))
    (past,) = [one for one in await book.periods("organization:team") if one.kind == "history"]
    assert dict((await book.usage("organization:team", past.id)).by_actor) == {"owner": 4, "member": 2}


async def test_a_row_that_is_no_usage_is_said_and_left_out(legacy_url: str, book: Book, clock: Clock) -> None:
    """More places than money has, or below zero: refused, the others imported."""
    product = Product()
    product.user("u")
    product.subscription("u", "pro_6000")
    product.charge("u", "0.1234567890123", P0[0] + DAY, counted=False)
    product.charge("u", "-2", P0[0] + DAY, counted=False)
    product.charge("u", "2", P0[0] + DAY, counted=False)
    product.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        done = await cutover.import_history()
    assert (done.rows, done.refused) == (1, 2)
    assert query(legacy_url, "select sum(amount) from meterbook.usage_log") == [(Decimal(2),)]
