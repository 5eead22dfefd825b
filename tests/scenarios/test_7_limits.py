"""Section 7: limits and enforcement."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

import meterbook
from meterbook import Book
from meterbook.errors import LimitRefused
from tests.bills import alerts, lump, organization, pays
from tests.conftest import Clock
from tests.ledger import P1, P2, query, use, utc


@pytest.mark.parametrize(
    ("used", "percent", "status"),
    [
        ("39.99", "79.98", "ok"),
        ("40.00", "80", "warning"),
        ("49.99", "99.98", "warning"),
        ("50.00", "100", "exceeded"),
        ("60.00", "100", "exceeded"),
    ],
)
async def test_s40_boundaries_of_a_limit_of_50(book: Book, used: str, percent: str, status: str) -> None:
    """39.99 → 79.98 %, ok; 40.00 → 80 %, warning; 49.99 → 99.98 %, warning; 50.00 → exceeded, 100 %; 60 shows 100 %."""
    await pays(book, "user:u")
    await book.set_limit("user:u", "50")
    await lump(book, "u", str(Decimal(used) + Decimal("0.25")))
    usage = await book.usage("user:u")
    assert (usage.effective, usage.percent, usage.status) == (Decimal(used), Decimal(percent), status)
    assert (await book.check("u")).allowed == (status != "exceeded")


async def test_s40_a_limit_of_nothing_is_exceeded(book: Book) -> None:
    """Limit 0 → exceeded, 100 %: a free organization."""
    await book.put_organization("o", owner="boss")
    usage = await book.usage("organization:o")
    assert (usage.limit, usage.percent, usage.status) == (0, 100, "exceeded")


async def test_s40_percent_is_cut(book: Book) -> None:
    """97.40 of 120 is shown as 81 % (81.166… cut)."""
    await organization(book, "o", seats=4)
    await lump(book, "boss", "98.40")
    usage = await book.usage("organization:o")
    assert (usage.effective, usage.limit, usage.standing.percent_shown) == (Decimal("97.40"), Decimal(120), 81)


@pytest.mark.parametrize(("configured", "limit"), [(None, 120), ("80", 120), ("200", 200)])
async def test_s41_an_organizations_limit_is_at_least_its_included(
    book: Book, configured: str | None, limit: int
) -> None:
    """team_6000 × 4: configured null → 120; 80 → 120; 200 → 200; the minimum is 120 each time."""
    await organization(book, "o", seats=2)
    if configured is not None:
        await book.set_limit("organization:o", configured)
    await pays(book, "organization:o", "team_6000", seats=4)
    assert (await book.usage("organization:o")).limit == limit
    with pytest.raises(LimitRefused):
        await book.set_limit("organization:o", "119.99")


async def test_s41_enterprise_is_limited_by_what_is_stored(book: Book) -> None:
    """Configured 1500 → 1500; null → 0 and everything is denied."""
    await organization(book, "o", plan="enterprise", seats=25)
    assert (await book.usage("organization:o")).limit == 0
    assert (await book.check("boss")).code == "limit_reached"
    await book.set_limit("organization:o", "1500")
    assert (await book.usage("organization:o")).limit == 1500
    assert (await book.check("boss")).allowed


async def test_s42_edits_of_a_person(book: Book) -> None:
    """pro_6000: 29.99 refused, 30 accepted; free refused; past_due or blocked refused."""
    with pytest.raises(LimitRefused):
        await book.set_limit("user:free", "10", by="free")
    await pays(book, "user:u")
    with pytest.raises(LimitRefused):
        await book.set_limit("user:u", "29.99", by="u")
    assert await book.set_limit("user:u", "30", by="u") == 30
    await book.block("user:u", reason="dispute")
    with pytest.raises(LimitRefused):
        await book.set_limit("user:u", "50", by="u")
    await book.unblock("user:u", reason="dispute")
    await pays(book, "user:u", status="past_due")
    with pytest.raises(LimitRefused):
        await book.set_limit("user:u", "50", by="u")
    assert (await book.usage("user:u")).limit == 30


async def test_s42_edits_of_an_organization(book: Book) -> None:
    """team_6000 × 4: 119.99 refused, 120.00 and 250.555 accepted (stored 250.56); a member refused; enterprise refused."""
    await organization(book, "o", "m", seats=4)
    with pytest.raises(LimitRefused):
        await book.set_limit("organization:o", "119.99", by="boss")
    assert await book.set_limit("organization:o", "120.00", by="boss") == 120
    assert await book.set_limit("organization:o", "250.555", by="boss") == Decimal("250.56")
    for stranger in ("m", "somebody"):
        with pytest.raises(LimitRefused):
            await book.set_limit("organization:o", "300", by=stranger)
    await pays(book, "organization:o", "enterprise")
    with pytest.raises(LimitRefused):
        await book.set_limit("organization:o", "2000", by="boss")


async def limit(book: Book, actor: str) -> Decimal | None:
    """What `actor` is checked against."""
    return (await book.check(actor)).limit


async def test_s43_what_the_limit_of_a_person_follows(book: Book, clock: Clock) -> None:
    """free 5 → pro_6000 30 → stored 75 → pro_25000 125 → back in the next period 75 → canceled 5."""
    assert await limit(book, "u") == 5
    await pays(book, "user:u")
    assert await limit(book, "u") == 30
    await book.set_limit("user:u", "75", by="u")
    assert await limit(book, "u") == 75
    await pays(book, "user:u", "pro_25000")
    assert await limit(book, "u") == 125
    clock.now = utc(2026, 6, 25)
    await pays(book, "user:u")
    assert await limit(book, "u") == 125
    clock.now = P2[0]
    assert await limit(book, "u") == 75
    clock.now = utc(2026, 7, 10)
    await pays(book, "user:u", window=P2, status="canceled")
    assert await limit(book, "u") == 5


async def test_s43_the_limit_follows_who_pays(book: Book) -> None:
    """Stored 75 on pro_6000; joins a paying organization: its limit; leaves with Pro restored: 75."""
    await pays(book, "user:u")
    await book.set_limit("user:u", "75", by="u")
    await organization(book, "o", "u", seats=4)
    assert await limit(book, "u") == 120
    await book.remove_member("o", "u")
    assert await limit(book, "u") == 75


async def test_s43_fewer_seats_lower_the_minimum_not_the_stored_limit(book: Book, clock: Clock) -> None:
    """Org team_6000 × 5 stored 150 → 3 seats from the next period: 150, and the minimum of an edit is 90."""
    await organization(book, "o", seats=5)
    await book.set_limit("organization:o", "150")
    await pays(book, "organization:o", "team_6000", seats=3)
    clock.now = P2[0]
    usage = await book.usage("organization:o")
    assert (usage.limit, usage.included) == (150, 90)
    with pytest.raises(LimitRefused):
        await book.set_limit("organization:o", "89.99", by="boss")
    assert await book.set_limit("organization:o", "90", by="boss") == 90


async def test_s44_without_a_stored_limit_credits_raise_it(book: Book) -> None:
    """pro_6000, credits 10 → 40 and usage 12 is allowed; storing 60 makes it 60. The origin: denied."""
    await pays(book, "user:u")
    await book.grant_credit("user:u", amount="10", grant_id="g")
    await lump(book, "u", "12.25")
    admission = await book.check("u")
    assert (admission.allowed, admission.used, admission.limit) == (True, 12, 40)
    await book.set_limit("user:u", "60", by="u")
    assert await limit(book, "u") == 60


async def test_s45_a_check_that_fails_denies(book: Book, database_url: str) -> None:
    """Denied, retryable, limit and used unknown."""
    await use(book, "u", "1.00")
    query(database_url, "alter function meterbook.admission_terms rename to gone")
    admission = await book.check("u")
    assert (admission.allowed, admission.retryable, admission.code) == (False, True, "check_failed")
    assert (admission.used, admission.limit) == (None, None)


async def test_s45_billing_disabled_allows(database_url: str, clock: Clock) -> None:
    """Billing disabled → allowed."""
    async with meterbook.open(database_url, clock=clock, billing=False) as book:
        await use(book, "u", "9.00")
        admission = await book.check("u")
        assert (admission.allowed, admission.code) == (True, "billing_off")
        async with book.hold("u", amount="100", hold_id="h") as held:
            assert held.state.amount == 100


async def test_s47_the_free_allowance_is_for_a_lifetime(book: Book, clock: Clock) -> None:
    """4.99 → allowed; 4.995 → allowed; 5.000 → denied; still denied next month."""
    for amount, allowed in [("4.99", True), ("0.005", True), ("0.005", False)]:
        await use(book, "u", amount)
        assert (await book.check("u")).allowed == allowed
    clock.now += timedelta(days=31)
    assert (await book.check("u")).code == "limit_reached"


async def crossing(book: Book, *levels: str) -> list[list[str]]:
    """What has been told after a sweep at each level of effective usage of a paying person with limit 50."""
    await pays(book, "user:u")
    await book.set_limit("user:u", "50")
    told, before = [], Decimal("-0.25")
    for level in levels:
        await lump(book, "u", str(Decimal(level) - before))
        before = Decimal(level)
        await book.sweep()
        told.append(await alerts(book, "user:u"))
    return told


async def test_s48_each_mark_is_told_once(book: Book) -> None:
    """Limit 50: 39.00 → 40.00 one 80 % alert; 40 → 45 none."""
    assert await crossing(book, "39.00", "40.00", "45.00") == [[], ["limit_80"], ["limit_80"]]


async def test_s48_a_jump_over_both_marks_tells_of_the_limit_only(book: Book) -> None:
    """39 → 52: only the 100 % alert, and nothing after it."""
    assert await crossing(book, "39.00", "52.00", "53.00") == [[], ["limit_100"], ["limit_100"]]


@pytest.mark.parametrize(("then", "told"), [("0.20", ["limit_80"]), ("1.20", ["limit_100"])])
async def test_s48_alerts_on_the_free_limit(book: Book, then: str, told: list[str]) -> None:
    """Limit 5: 3.90 → 4.10 the 80 % alert; 3.90 → 5.10 only the 100 % one."""
    await use(book, "u", "3.90")
    await book.sweep()
    assert await alerts(book, "user:u") == []
    await use(book, "u", then)
    await book.sweep()
    assert await alerts(book, "user:u") == told


async def test_s48_twenty_crossings_at_once_tell_once(book: Book) -> None:
    """Claimed once across 20 concurrent crossings."""
    await use(book, "u", "3.90")
    await asyncio.gather(*(use(book, "u", "0.01") for _ in range(20)))
    await asyncio.gather(*(book.sweep() for _ in range(20)))
    assert await alerts(book, "user:u") == ["limit_80"]


async def test_s48_re_armed_only_below_70_percent(book: Book) -> None:
    """4.00 of 5 told; 3.50 (70 %) and 4.00 again: nothing; 3.49 and 4.00 again: told again."""
    entry = (await use(book, "u", "4.00")).entries[0].id
    await book.sweep()
    for n, (fall, told) in enumerate([("0.50", 1), ("0.51", 2)]):
        await book.correct(entry, amount=f"-{fall}", reason="test", event_key=f"fall {n}")
        await book.sweep()
        await use(book, "u", fall)
        await book.sweep()
        assert await alerts(book, "user:u") == ["limit_80"] * told


async def test_s48_alerts_are_of_the_period(book: Book, clock: Clock) -> None:
    """What was told in P1 is told anew in P2."""
    await pays(book, "user:u")
    await lump(book, "u", "24.25")
    await book.sweep()
    clock.now = utc(2026, 7, 2)
    await lump(book, "u", "24.25", window=P2)
    await book.sweep()
    assert P1[1] == P2[0]
    assert await alerts(book, "user:u") == ["limit_80", "limit_80"]
