"""What old instances still count after the switch: never lost, never counted twice, whatever else happens beside it."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from meterbook import Book
from meterbook.book.cutover import Cutover
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.cutover.test_shadow import JOINED, START, team
from tests.ledger import query, utc
from tests.legacy_product.history import Product

ORIGIN = load_mapping()
MANY = 20_001
_OLD_ROWS = (
    "insert into public.usage_log select 'old' || n, 'u', 'model', 's', 'd', 0.01, null, null, null, '2026-06-11'"
    " from generate_series(1, %s) n"
)
_BOTH_ROW = (
    "insert into public.usage_log values ('both', 'u', 'model', 's', 'd', 0.5, null, null, null, '2026-06-11 00:00:30')"
)
_COUNT = "update public.user_stats set current_period_cost = current_period_cost + %s where user_id = 'u'"


@pytest.fixture
def product(legacy_url: str, clock: Clock) -> Product:
    """One person with a plan and 150.00 on the counter, on day ten."""
    made = Product()
    made.user("u")
    made.subscription("u", "pro_6000")
    made.charge("u", "150", START)
    made.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    return made


async def switched(cutover: Cutover, entity: str | None = None) -> None:
    await cutover.shadow()
    assert {one.outcome async for one in cutover.switch(entity)} == {"switched"}


@pytest.mark.usefixtures("product")
async def test_a_writer_of_both_is_counted_once_among_any_number_of_old_rows(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """More rows of old instances than one look takes: what is in the ledger under its own key is no late usage for all that."""
    async with book.cutover(ORIGIN) as cutover:
        await switched(cutover)
        clock.now += timedelta(minutes=1)
        query(legacy_url, _OLD_ROWS, MANY)
        query(legacy_url, _BOTH_ROW)
        query(legacy_url, _COUNT, Decimal("0.01") * MANY + Decimal("0.5"))
        await book.record("u", source="s", description="d", amount="0.5", event_key="legacy:both")
        assert (await cutover.absorb()).recorded == Decimal("0.01") * MANY
        assert (await cutover.absorb()).recorded == 0
        assert await cutover.verify() == []
    assert (await book.usage("user:u")).total == Decimal("150.5") + Decimal("0.01") * MANY


@pytest.mark.usefixtures("product")
async def test_a_round_ends_where_the_application_feeds_and_has_recorded_nothing_yet(
    legacy_url: str, book: Book
) -> None:
    """Its rows are its own business, however many they are: the difference is said."""
    async with book.cutover(ORIGIN, feed="application") as cutover:
        await cutover.shadow()
        query(legacy_url, _OLD_ROWS, MANY)
        query(legacy_url, _COUNT, Decimal("0.01") * MANY)
        async with asyncio.timeout(60):
            done = await cutover.shadow()
        (said,) = [one async for one in cutover.compare()]
    assert (done.rows, said.difference) == (0, Decimal("0.01") * MANY)


@pytest.mark.usefixtures("product")
async def test_rows_beyond_one_look_are_fed_by_the_next(legacy_url: str, book: Book) -> None:
    """A shadow that was stopped for a day: all rows, each once, in one round."""
    async with book.cutover(ORIGIN) as cutover:
        await cutover.shadow()
        query(legacy_url, _OLD_ROWS, MANY)
        query(legacy_url, _COUNT, Decimal("0.01") * MANY)
        done = await cutover.shadow()
    assert (done.rows, done.differing) == (MANY, 0)
