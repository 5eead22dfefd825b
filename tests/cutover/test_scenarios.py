"""What SCENARIOS.md says of the transition: S25, S28, S29, S74, S79, and the refresh for pooled people and those who join mid-cycle."""

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from meterbook import Book, mappings
from meterbook.core.legacy_mapping import parse_mapping
from meterbook.mappings import load_mapping
from tests.conftest import Clock
from tests.ledger import P1, query, subscribe, use, utc
from tests.legacy_product.history import Product

ORIGIN = load_mapping()
START = P1[0]
DAY = timedelta(days=1)
FOUR, FIVE = Decimal(4), Decimal(5)


async def switch(book: Book) -> None:
    """Compared once, then switched; every entity has to go over."""
    async with book.cutover(ORIGIN) as cutover:
        round_ = await cutover.shadow()
        assert (round_.refused, round_.differing) == (0, 0)
        done = [one async for one in cutover.switch()]
    assert [one.reason for one in done if one.outcome != "switched"] == []


def person(product: Product, name: str, plan: str | None = "pro_6000") -> None:
    product.user(name)
    if plan is not None:
        product.subscription(name, plan)


async def test_s25_usage_is_baseline_and_ledger_once(legacy_url: str, book: Book, clock: Clock) -> None:
    """Baseline 18.40, its audit rows behind it, ledger 3.10: 21.50, not 3.10 and not 39.90."""
    product = Product()
    person(product, "u")
    product.charge("u", "18.40", START)
    product.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    await switch(book)
    await use(book, "u", "3.10")
    usage = await book.usage("user:u")
    assert (usage.total, usage.baseline) == (Decimal("21.50"), Decimal("18.40"))


async def test_s28_first_contact_is_not_usage_zero(legacy_url: str, book: Book) -> None:
    """A free user's counter of 4.00: everybody says 4.00 of 5.00, a warning at 80 %."""
    product = Product()
    person(product, "u", None)
    product.charge("u", "4", START)
    product.write(legacy_url)
    await switch(book)
    usage = await book.usage("user:u")
    check = await book.check("u")
    assert (usage.total, usage.limit, usage.percent, usage.status) == (FOUR, FIVE, Decimal(80), "warning")
    assert (check.used, check.limit) == (FOUR, FIVE)


async def test_s29_legacy_days_are_refreshed(legacy_url: str, book: Book, clock: Clock) -> None:
    """4.00 on each of ten days before the cutover, 10.00 after it: refresh 2.75, usage 47.25, overage 17.25. The origin: 0.25."""
    product = Product()
    person(product, "u")
    for day in range(10):
        for quarter in range(4):
            product.charge("u", "1", START + day * DAY + quarter * timedelta(hours=1))
    product.write(legacy_url)
    clock.now = START + 10 * DAY
    await switch(book)
    await use(book, "u", "10")
    usage = await book.usage("user:u")
    assert (usage.refresh, usage.effective, usage.overage) == (Decimal("2.75"), Decimal("47.25"), Decimal("17.25"))


async def test_s29_second_case(legacy_url: str, book: Book, clock: Clock) -> None:
    """1.00 a day (10.00) and 2.00 afterwards: usage 9.25. The origin: 11.75."""
    product = Product()
    person(product, "u")
    for day in range(10):
        product.charge("u", "1", START + day * DAY)
    product.write(legacy_url)
    clock.now = START + 10 * DAY
    await switch(book)
    await use(book, "u", "2")
    assert (await book.usage("user:u")).effective == Decimal("9.25")


async def test_s74_the_close_ends_the_baseline_and_again_changes_nothing(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """S25 closed: the last period is 21.50, and closed again it still is. The origin's second call: 3.10."""
    product = Product()
    person(product, "u")
    product.charge("u", "18.40", START)
    product.write(legacy_url)
    clock.now = utc(2026, 6, 11)
    await switch(book)
    await use(book, "u", "3.10")
    clock.now = utc(2026, 7, 1, 2)
    for _ in range(2):
        await book.sweep()
        assert (await book.usage("user:u", "last")).total == Decimal("21.50")
    assert (await book.usage("user:u")).total == 0
    async with book.cutover(ORIGIN) as cutover:
        assert await cutover.retire() == 1


async def test_s79_the_free_baseline_waits_while_a_plan_is_paid(legacy_url: str, book: Book, clock: Clock) -> None:
    """Baseline 3.00 and 1.50 of free usage; upgraded: 0 of 30; free again: 4.50 of 5."""
    product = Product()
    person(product, "u", None)
    product.charge("u", "3", START)
    product.write(legacy_url)
    clock.now = utc(2026, 6, 5)
    await switch(book)
    await use(book, "u", "1.50")
    before = await book.usage("user:u")
    assert (before.total, before.percent, before.status) == (Decimal("4.50"), Decimal(90), "warning")
    clock.now = utc(2026, 6, 10)
    await subscribe(book, "user:u", window=(utc(2026, 6, 10), utc(2026, 7, 10)))
    assert ((await book.usage("user:u")).total, (await book.usage("user:u")).limit) == (Decimal(0), Decimal(30))
    clock.now = utc(2026, 6, 20)
    await subscribe(book, "user:u", window=(utc(2026, 6, 10), utc(2026, 7, 10)), status="canceled")
    assert ((await book.usage("user:u")).total, (await book.usage("user:u")).limit) == (Decimal("4.50"), FIVE)


async def test_pooled_days_have_one_cap(legacy_url: str, book: Book, clock: Clock) -> None:
    """team_6000 with two seats refreshes 0.50 a day: 0.30 and 0.30 on one day are 0.50, not 0.60; departed usage has no day."""
    product = Product()
    _team(product, departed="7.50")
    product.charge("owner", "0.30", START)
    product.charge("member", "0.30", START)
    product.write(legacy_url)
    clock.now = START + 10 * DAY
    await switch(book)
    usage = await book.usage("organization:team")
    assert (usage.baseline, usage.refresh) == (Decimal("8.10"), Decimal("0.50"))


async def test_who_joined_counts_from_the_first_day_that_the_organization_paid(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """Rows of before joining date the person's own kept usage, those of after it the pool's; the counters say how much of each is owed."""
    product = Product()
    joined = START + 4 * DAY
    _team(product, joined=joined)
    product.subscription("member", "pro_6000", cancels=True)
    _charge_daily(product, "member", 4, START)
    person_ = product.users["member"]
    person_.kept, person_.kept_at, person_.running = person_.running, joined, Decimal(0)
    _charge_daily(product, "member", 3, joined)
    product.write(legacy_url)
    clock.now = START + 10 * DAY
    await switch(book)
    own, pool = await book.usage("user:member"), await book.usage("organization:team")
    assert (own.baseline, own.refresh) == (FOUR, Decimal("1.00"))
    assert (pool.baseline, pool.refresh) == (Decimal(3), Decimal("1.50"))


async def test_the_counter_is_what_is_owed_and_the_oldest_rows_date_it(
    legacy_url: str, book: Book, clock: Clock
) -> None:
    """A counter of 2.50 with rows of 1.00 on four days: days 0, 1 and half of 2. One of 5.00: one has no day."""
    product = Product()
    person(product, "below")
    person(product, "above")
    for name, counter in (("below", "2.50"), ("above", "5")):
        for day in range(4):
            product.charge(name, "1", START + day * DAY, counted=False)
        product.users[name].running = Decimal(counter)
    product.write(legacy_url)
    clock.now = START + 10 * DAY
    await switch(book)
    below, above = await book.usage("user:below"), await book.usage("user:above")
    assert dict(below.by_day) == {0: 1, 1: 1, 2: Decimal("0.50")}
    assert (above.total, above.refresh) == (FIVE, Decimal("1.00"))


async def test_billed_credits_limits_and_blocks_go_over(legacy_url: str, book: Book) -> None:
    """What the product had billed is billed, without a second invoice; an organization's bills and block are its owner's."""
    product = Product()
    _team(product, limit="450.5")
    owner = product.users["owner"]
    owner.billed, owner.blocked, owner.running = Decimal(100), "payment_failed", Decimal(170)
    product.user("u", credits=Decimal("25.10"), limit=Decimal(75), running=Decimal(3))
    product.subscription("u", "pro_6000")
    product.write(legacy_url)
    await switch(book)
    team, own = await book.usage("organization:team"), await book.usage("user:u")
    assert (team.billed_cents, team.facts.blocks, team.limit) == (100_00, ("payment_failed",), Decimal("450.50"))
    assert ((await book.credits("user:u")).balance_cents, own.limit) == (25_10, Decimal(75))
    assert await book.outbox() == []
    assert [one.kind for one in await book.charges("organization:team")] == ["carried"]
    assert await book.verify() == []


def _team(product: Product, *, departed: str = "0", joined: datetime = START - DAY, limit: str | None = None) -> None:
    product.user("owner")
    product.user("member")
    product.organization("team", "owner", joined=START - DAY, departed=departed, limit=limit)
    product.member("team", "member", joined)
    product.subscription("team", "team_6000", seats=2)


def _charge_daily(product: Product, user: str, days: int, since: datetime) -> None:
    for day in range(days):
        product.charge(user, "1", since + day * DAY)


async def test_departed_usage_has_days_where_the_log_says_who_paid(legacy_url: str, book: Book, clock: Clock) -> None:
    """0.30 of a member who left on each of two days, and 6.90 that nobody can date: refresh 0.30 twice; who came back counts once."""
    product = Product()
    _team(product, departed="7.50", joined=START + 5 * DAY)
    _charge_daily(product, "member", 1, START + 6 * DAY)
    for day in range(2):
        product.charge("gone", "0.30", START + day * DAY, counted=False)
    product.charge("gone", "5", START + 3 * DAY, counted=False)
    product.write(legacy_url)
    query(
        legacy_url,
        "update public.usage_log set workspace_id = case when cost = 5 then 'user:gone' else 'organization:team' end",
    )
    text = (Path(mappings.__file__).parent / "origin.toml").read_text()
    mapping = parse_mapping(
        text.replace('execution   = "execution_id"', 'execution = "execution_id"\npayer = "workspace_id"')
    )
    clock.now = START + 10 * DAY
    async with book.cutover(mapping) as cutover:
        plan = {one.entity: one async for one in cutover.plan()}
        assert plan["organization:team"].dated == Decimal("1.60")
        assert [one.message for one in cutover.findings if one.code == "departed_without_days"] == [
            "departed members used 7.50; whose rows 6.90 of it were, the log does not say"
        ]
        await cutover.shadow()
        assert {one.outcome async for one in cutover.switch()} == {"switched"}
    usage = await book.usage("organization:team")
    assert (usage.baseline, usage.refresh) == (Decimal("8.50"), Decimal("1.10"))
