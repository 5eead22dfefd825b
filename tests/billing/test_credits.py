"""Credits (BEHAVIOUR §9): the order in which grants are spent, their expiry, what a purchase may be."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

from datetime import timedelta
from typing import Any

import pytest

from meterbook import Book, InvalidUsage, KeyConflict
from meterbook.core.ledgers import Billed
from tests.bills import alerts, balance, charged, check_books, lump, pays
from tests.conftest import Clock
from tests.ledger import P1, query, use, utc


async def grant(book: Book, grant_id: str, amount: str = "10", **terms: Any) -> bool:
    return await book.grant_credit("user:u", amount=amount, grant_id=grant_id, **terms)


async def left(book: Book) -> dict[str, int]:
    """Cents left of each grant."""
    return {one.grant_id: one.remaining_cents for one in (await book.credits("user:u")).grants}


async def test_grants_are_spent_in_the_published_order(book: Book, clock: Clock, database_url: str) -> None:
    """Lowest priority number, earliest expiry (none last), oldest, id; and each charge knows which grants paid it."""
    await pays(book, "user:u")
    soon, later = clock.now + timedelta(days=30), clock.now + timedelta(days=60)
    await grant(book, "never, old")
    clock.now += timedelta(minutes=1)
    await grant(book, "never, new")
    await grant(book, "never, newest")
    await grant(book, "later", expires_at=later)
    await grant(book, "soon", expires_at=soon)
    await grant(book, "first", priority=1)
    await grant(book, "last", priority=99, expires_at=soon, amount="500")
    await lump(book, "u", "130.25")
    await book.bill_threshold("user:u")
    paid = query(
        database_url,
        "select g.grant_key, s.cents from meterbook.credit_spend s join meterbook.credit_grant g"
        " on g.id = s.grant_id where s.charge_id is not null order by s.id",
    )
    assert paid == [
        ("first", 1_000),
        ("soon", 1_000),
        ("later", 1_000),
        ("never, old", 1_000),
        ("never, new", 1_000),
        ("never, newest", 1_000),
        ("last", 4_000),
    ]
    await check_books(book, database_url)


async def test_at_a_threshold_a_grant_is_spendable_while_now_is_before_its_expiry(book: Book, clock: Clock) -> None:
    """A microsecond before it pays; at the very instant it doesn't."""
    await pays(book, "user:u")
    expiry = clock.now
    clock.now = expiry - timedelta(microseconds=1)
    await grant(book, "g", expires_at=expiry)
    await lump(book, "u", "130.25")
    assert await book.bill_threshold("user:u") == Billed(9_000, 1_000, None)
    await grant(book, "too late", expires_at=expiry)
    clock.now = expiry
    await lump(book, "u", "100")
    assert await balance(book, "user:u") == 0
    assert await book.bill_threshold("user:u") == Billed(10_000, 0, None)


@pytest.mark.parametrize(
    ("expiry", "charges"),
    [
        (P1[1], [2_000]),
        (P1[1] + timedelta(microseconds=1), [1_000]),
        (P1[1] + timedelta(minutes=30), [1_000]),
    ],
)
async def test_at_a_close_the_period_end_decides_however_late_the_closer(
    book: Book, clock: Clock, database_url: str, expiry: Any, charges: list[int]
) -> None:
    """Period end < expiry: pays, also when the closer comes a month after it."""
    await pays(book, "user:u")
    await grant(book, "g", expires_at=expiry)
    await lump(book, "u", "50.25")
    clock.now = utc(2026, 8, 2)
    await book.sweep()
    assert await charged(book, "user:u") == charges
    await check_books(book, database_url)


async def test_what_was_spent_is_never_taken_back(book: Book, clock: Clock) -> None:
    """An expiry after the spending changes neither the charge nor what was billed, nor does it raise the limit again."""
    await pays(book, "user:u")
    await grant(book, "g", "40", expires_at=clock.now + timedelta(days=1))
    await lump(book, "u", "130.25")
    await book.bill_threshold("user:u")
    clock.now += timedelta(days=2)
    usage = await book.usage("user:u")
    assert (usage.billed_cents, usage.credits_cents, usage.limit) == (10_000, 4_000, 70)
    assert await left(book) == {"g": 0}


async def test_an_expired_grant_is_neither_spendable_nor_in_the_limit(book: Book, clock: Clock) -> None:
    """Its balance is 0 from its expiry on."""
    await pays(book, "user:u")
    await grant(book, "g", "40", expires_at=clock.now + timedelta(days=1))
    assert ((await book.usage("user:u")).limit, await balance(book, "user:u")) == (70, 4_000)
    clock.now += timedelta(days=1)
    assert ((await book.usage("user:u")).limit, await balance(book, "user:u")) == (30, 0)


@pytest.mark.parametrize("amount", ["9.99", "1000.01"])
async def test_a_purchase_has_bounds(book: Book, amount: str) -> None:
    """9.99 and 1 000.01 are refused; a promotion of that amount is not."""
    with pytest.raises(InvalidUsage):
        await grant(book, "g", amount, source="purchase")
    assert await grant(book, "g", amount)


@pytest.mark.parametrize("amount", ["10", "1000.00"])
async def test_a_purchase_within_its_bounds_is_granted_once(book: Book, amount: str) -> None:
    """However often it is delivered; the same id for something else is a conflict."""
    assert [await grant(book, "in_1", amount, source="purchase") for _ in range(3)] == [True, False, False]
    with pytest.raises(KeyConflict):
        await grant(book, "in_1", "11", source="purchase")
    assert await balance(book, "user:u") == int(amount.split(".", maxsplit=1)[0]) * 100


@pytest.mark.parametrize("amount", ["0", "-1", "0.001", "NaN", 1.5, True])
async def test_credit_is_whole_cents_above_nothing(book: Book, amount: Any) -> None:
    """Anything else is refused and grants nothing."""
    with pytest.raises(InvalidUsage):
        await grant(book, "g", amount)
    assert (await book.credits("user:u")).grants == ()


async def test_credits_go_with_a_subscription_to_its_new_owner(book: Book, database_url: str) -> None:
    """What is spendable is spent here and granted there, terms kept; nothing is made or lost."""
    await pays(book, "user:u")
    await grant(book, "g", "25.10")
    await book.put_organization("o", owner="u")
    await pays(book, "organization:o", "team_6000", id="sub_user:u")
    assert (await balance(book, "user:u"), await balance(book, "organization:o")) == (0, 2_510)
    await check_books(book, database_url)


async def test_a_grant_that_expires_changes_the_limit_and_is_told(book: Book, clock: Clock) -> None:
    """31 effective of 30 + 10; when the ten have expired the next sweep tells of the limit, although nothing was used since."""
    await pays(book, "user:u")
    await grant(book, "g", expires_at=clock.now + timedelta(days=1))
    await lump(book, "u", "31.25")
    await book.sweep()
    assert await alerts(book, "user:u") == []
    clock.now += timedelta(days=1)
    await book.sweep()
    assert await alerts(book, "user:u") == ["limit_100"]
    await book.sweep()
    assert await alerts(book, "user:u") == ["limit_100"]


async def test_a_grant_that_passed_on_and_expires_is_told_to_its_new_owner(book: Book, clock: Clock) -> None:
    """Credits go with the subscription; so does the change of the limit at their expiry."""
    await pays(book, "user:u", id="s")
    await grant(book, "g", expires_at=clock.now + timedelta(days=1))
    await book.put_organization("o", owner="u")
    await pays(book, "organization:o", "pro_6000", id="s")
    await use(book, "u", "31.25")
    await book.sweep()
    assert await alerts(book, "organization:o") == []
    clock.now += timedelta(days=1)
    await book.sweep()
    assert await alerts(book, "organization:o") == ["limit_100"]


async def test_what_a_close_spends_lowers_the_limit_and_is_told(book: Book, clock: Clock) -> None:
    """50 effective of 30 + 50; P1's close spends 40 of the credit: 50 of 40, told though nothing was used since."""
    await pays(book, "user:u")
    await grant(book, "g", "50")
    await use(book, "u", "70.25")
    clock.now = P1[1]
    await use(book, "u", "50.25")
    await book.sweep()
    assert await alerts(book, "user:u") == []
    clock.now += timedelta(hours=1)
    assert (await book.sweep()).closed == 1
    assert ((await book.usage("user:u")).limit, await alerts(book, "user:u")) == (40, ["limit_100"])


async def test_credits_that_go_lower_the_old_owners_limit_and_it_is_told(book: Book) -> None:
    """130 effective of 125 + 50; the lesser of two subscriptions passes on and takes the 50 along: 130 of 125."""
    await pays(book, "user:u", "pro_25000")
    await pays(book, "user:u", id="lesser")
    await grant(book, "g", "50")
    await use(book, "u", "131")
    await book.sweep()
    assert await alerts(book, "user:u") == []
    await book.put_organization("o", owner="w")
    await pays(book, "organization:o", id="lesser")
    await book.sweep()
    assert ((await book.usage("user:u")).limit, await alerts(book, "user:u")) == (125, ["limit_100"])


@pytest.mark.parametrize("grant_id", ["close:1:1", "correction:x", "moved:1:1"])
async def test_the_names_of_our_own_grants_are_reserved(book: Book, grant_id: str) -> None:
    """§3.7: a grant of that name would stand where what a correction gives back belongs."""
    with pytest.raises(InvalidUsage, match="meterbook's own"):
        await book.grant_credit("user:u", amount="1", grant_id=grant_id)


@pytest.mark.parametrize(
    ("terms", "differs"),
    [
        ({"amount": "11"}, "amount 10.00 then, 11.00 now"),
        ({"source": "gift"}, "source promotion then, gift now"),
        ({"priority": 7}, "priority 50 then, 7 now"),
        ({"expires_at": P1[1]}, "expires_at never then, 2026-07-01T00:00:00+00:00 now"),
    ],
)
async def test_a_conflict_of_grants_shows_both_versions(book: Book, terms: dict[str, Any], differs: str) -> None:
    """What the first grant of that id said, and what is said now; and whose it is, where that differs."""
    await grant(book, "g")
    with pytest.raises(KeyConflict) as refused:
        await grant(book, "g", **({"amount": "10"} | terms))
    (conflict,) = refused.value.conflicts
    assert conflict.first.keys() == conflict.now.keys()
    assert f"({differs})" in str(refused.value)
    with pytest.raises(KeyConflict, match="entity_id") as refused:
        await book.grant_credit("user:other", amount="10", grant_id="g")


@pytest.mark.parametrize("priority", [True, 1.0, "1", None, 2**31, -(2**40)])
async def test_a_priority_is_a_whole_number(book: Book, priority: Any) -> None:
    """Neither True, 1.0 nor "1", which PostgreSQL would have taken; and it fits."""
    with pytest.raises(InvalidUsage, match="priority"):
        await grant(book, "g", priority=priority)


@pytest.mark.parametrize("expires_at", ["2026-07-01", 1, P1[1].replace(tzinfo=None), P1[1].date()])
async def test_an_expiry_is_an_aware_time(book: Book, expires_at: Any) -> None:
    """Text, a number, a date, a time without a zone: told so."""
    with pytest.raises(InvalidUsage, match="expires_at"):
        await grant(book, "g", expires_at=expires_at)
