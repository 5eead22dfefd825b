"""Who pays as members come and go (BEHAVIOUR §12): whose cancellation it is, what moves and what doesn't."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

from collections.abc import Awaitable, Callable

import pytest

from meterbook import Book, MeterbookError
from meterbook.errors import MembershipRefused
from tests.bills import balance, charged, check_books, invoices, lump, organization, pays
from tests.conftest import Clock
from tests.ledger import P1, P2, query, use, utc, windows


async def toggles(book: Book, user: str = "u") -> list[bool]:
    """What was said of a person's subscription, in order."""
    rows = await book.outbox(f"user:{user}")
    return [row.payload["cancel_at_period_end"] for row in rows if row.kind == "cancel_at_period_end"]


def cancels(database_url: str, user: str = "u") -> tuple[bool, bool]:
    """Whether a person's subscription ends with its period, and whether that is our doing."""
    (found,) = query(
        database_url,
        "select cancel_at_period_end, cancelled_by_us from meterbook.subscription where id = %s",
        f"sub_user:{user}",
    )
    return found[0], found[1]


async def test_leaving_takes_back_a_cancellation_of_ours(book: Book, clock: Clock, database_url: str) -> None:
    """Joined: set to cancel, by us. Left: taken back; the period is not cut and goes on."""
    await pays(book, "user:u")
    await organization(book, "o", "u")
    assert (await toggles(book), cancels(database_url)) == ([True], (True, True))
    assert windows(database_url, "user:u") == [P1]
    await book.remove_member("o", "u")
    assert (await toggles(book), cancels(database_url)) == ([True, False], (False, False))
    assert (await use(book, "u", "1")).entries[0].entity == "user:u"
    clock.now = P2[0]
    assert (await book.usage("user:u")).period.starts_at == P2[0]


async def test_an_organization_that_is_merely_unpaid_takes_nothing_back(book: Book, database_url: str) -> None:
    """While its subscription rests, and when it is paid again, one cancellation stands; the subscription's end takes it back."""
    await pays(book, "user:u")
    await organization(book, "o", "u")
    for status in ("unpaid", "active", "unpaid"):
        await pays(book, "organization:o", "team_6000", status=status)
        assert (await toggles(book), cancels(database_url)) == ([True], (True, True))
    assert (await use(book, "u", "1")).entries[0].entity == "user:u"
    await pays(book, "organization:o", "team_6000", status="canceled")
    assert (await toggles(book), cancels(database_url)) == ([True, False], (False, False))


async def test_leaving_an_organization_that_rests_takes_the_cancellation_back(book: Book, database_url: str) -> None:
    """Who pays doesn't change by leaving: the person paid already."""
    await pays(book, "user:u")
    await organization(book, "o", "u")
    await pays(book, "organization:o", "team_6000", status="unpaid")
    await book.remove_member("o", "u")
    assert (await toggles(book), cancels(database_url)) == ([True, False], (False, False))


async def test_an_unpaid_subscription_of_ones_own_is_set_to_cancel_too(book: Book, database_url: str) -> None:
    """Else it would be paid beside the organization's, once its invoice is."""
    await pays(book, "user:u", status="unpaid")
    await organization(book, "o", "u")
    assert (await toggles(book), cancels(database_url)) == ([True], (True, True))
    await pays(book, "user:u", status="unpaid")
    assert cancels(database_url) == (True, True)
    await book.remove_member("o", "u")
    assert (await toggles(book), cancels(database_url)) == ([True, False], (False, False))


async def test_a_persons_own_cancellation_is_theirs(book: Book, clock: Clock, database_url: str) -> None:
    """Cancelled before joining: nothing is said on joining nor on leaving, and it ends."""
    await pays(book, "user:u", cancel_at_period_end=True)
    await organization(book, "o", "u")
    await book.remove_member("o", "u")
    assert (await toggles(book), cancels(database_url)) == ([], (True, False))
    clock.now = P2[0]
    assert (await book.usage("user:u")).period.kind == "free"


async def test_a_subscription_that_has_ended_stays_ended(book: Book, clock: Clock, database_url: str) -> None:
    """Left after the period's end: the Pro is over, nothing is taken back, free pays."""
    await pays(book, "user:u")
    await organization(book, "o", "u", window=(P1[0], utc(2026, 8, 1)), interval="2 months")
    clock.now = utc(2026, 7, 10)
    await book.sweep()
    await book.remove_member("o", "u")
    assert await toggles(book) == [True]
    assert windows(database_url, "user:u") == [P1]
    assert (await use(book, "u", "1")).entries[0].entity == "user:u"
    assert (await book.usage("user:u")).period.kind == "free"


async def test_an_organization_that_begins_to_pay_cancels_for_all_its_members(book: Book, database_url: str) -> None:
    """And its end takes them all back, except one's own."""
    for user in ("a", "b", "boss"):
        await pays(book, f"user:{user}")
    await pays(book, "user:own", cancel_at_period_end=True)
    await book.put_organization("o", owner="boss")
    for user in ("a", "b", "own"):
        await book.add_member("o", user)
    assert [await toggles(book, user) for user in ("a", "b", "boss", "own")] == [[], [], [], []]
    await pays(book, "organization:o", "team_6000")
    assert [await toggles(book, user) for user in ("a", "b", "boss", "own")] == [[True], [True], [True], []]
    await pays(book, "organization:o", "team_6000", status="canceled")
    assert [await toggles(book, user) for user in ("a", "b", "boss")] == [[True, False]] * 3
    assert [cancels(database_url, user)[0] for user in ("a", "b", "boss", "own")] == [False, False, False, True]


async def test_the_clocks_end_of_the_organizations_subscription_takes_back(
    book: Book, clock: Clock, database_url: str
) -> None:
    """It was to cancel on 06-25; the sweep after it gives the member's Pro back."""
    await pays(book, "user:u")
    await organization(book, "o", "u", window=(P1[0], utc(2026, 6, 25)), cancel_at_period_end=True)
    assert await toggles(book) == [True]
    clock.now = utc(2026, 6, 25)
    await book.sweep()
    assert (await toggles(book), cancels(database_url)) == ([True, False], (False, False))
    assert (await use(book, "u", "1")).entries[0].entity == "user:u"


async def test_a_better_plan_of_ones_own_is_not_cancelled(book: Book) -> None:
    """Personal enterprise against an organization's team: it goes on paying, nothing is said."""
    await pays(book, "user:u", "enterprise")
    await organization(book, "o", "u")
    assert await toggles(book) == []
    assert (await use(book, "u", "1")).entries[0].entity == "user:u"


async def test_a_subscription_reported_before_our_cancellation_arrived_does_not_undo_it(
    book: Book, database_url: str
) -> None:
    """Stripe's older word says "not cancelled": ours is still to be delivered."""
    await pays(book, "user:u")
    await organization(book, "o", "u")
    await pays(book, "user:u")
    assert cancels(database_url) == (True, True)
    await book.remove_member("o", "u")
    assert await toggles(book) == [True, False]


async def test_nothing_that_was_recorded_moves(book: Book, clock: Clock, database_url: str) -> None:
    """Joins, leaves, transfers: each row stays with whoever paid, each is billed once."""
    await pays(book, "user:u")
    await organization(book, "o")
    await lump(book, "u", "45.25")
    await book.add_member("o", "u")
    await use(book, "u", "50.25")
    await book.transfer_ownership("o", "u")
    await book.transfer_ownership("o", "boss")
    await book.remove_member("o", "u")
    await use(book, "u", "10.25")
    before = query(database_url, "select entity_id, period_id, key, amount from meterbook.usage_log order by key")
    clock.now = utc(2026, 7, 2)
    await book.sweep()
    # 45.25 − 0.25 on day 0 and 10.25 − 0.25 on day 19, less 30; 50.25 − 0.25 less 30
    assert (await charged(book, "user:u"), await charged(book, "organization:o")) == ([2_500], [2_000])
    assert (
        query(database_url, "select entity_id, period_id, key, amount from meterbook.usage_log order by key") == before
    )
    await check_books(book, database_url)


async def test_a_transfer_of_ownership_changes_not_one_amount(book: Book, clock: Clock) -> None:
    """Usage, limit, credits and what is charged are the same; the new owner can't be removed, the old one can."""
    await organization(book, "o", "u")
    await book.grant_credit("organization:o", amount="4", grant_id="g")
    await lump(book, "u", "60.25")
    before = await book.usage("organization:o")
    await book.transfer_ownership("o", "u")
    after = await book.usage("organization:o")
    assert (before.effective, before.limit, before.by_actor) == (after.effective, after.limit, after.by_actor)
    with pytest.raises(MembershipRefused):
        await book.remove_member("o", "u")
    await book.remove_member("o", "boss")
    clock.now = utc(2026, 7, 2)
    await book.sweep()
    assert (await invoices(book), await balance(book, "organization:o")) == ([2_600], 0)


async def test_an_owner_is_not_deleted(book: Book) -> None:
    """Neither removed nor deleted before the ownership is transferred; nothing changes."""
    await organization(book, "o", "u")
    with pytest.raises(MembershipRefused):
        await book.delete_user("boss")
    await book.transfer_ownership("o", "u")
    await book.delete_user("boss")
    assert (await book.usage("organization:o")).limit == 30


async def test_a_deleted_organizations_members_fall_back_as_on_leaving(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Our cancellation is taken back, their own subscription pays from now on."""
    await pays(book, "user:u")
    await organization(book, "o", "u")
    await use(book, "u", "40.25")
    await book.delete_organization("o")
    assert (await toggles(book), cancels(database_url)) == ([True, False], (False, False))
    assert (await use(book, "u", "1")).entries[0].entity == "user:u"
    with pytest.raises(MeterbookError):
        await book.add_member("o", "u")
    clock.now = utc(2026, 7, 2)
    await book.sweep()
    assert await invoices(book) == [1_000]
    await check_books(book, database_url)


async def test_back_before_the_end_the_same_period_goes_on(book: Book, clock: Clock) -> None:
    """Pro, away for days, back: the personal period has what it had, and takes entries again."""
    await pays(book, "user:u")
    await lump(book, "u", "5")
    await organization(book, "o", "u")
    clock.now = utc(2026, 6, 22)
    await use(book, "u", "7")
    await book.remove_member("o", "u")
    await use(book, "u", "3")
    usage = await book.usage("user:u")
    assert (usage.total, usage.period.starts_at) == (8, P1[0])


async def test_an_unpaid_subscription_rests_and_its_period_closes_once(
    book: Book, clock: Clock, database_url: str
) -> None:
    """Unpaid: entries go to the free period; entitled again: to the same one; it closes at its end."""
    await pays(book, "user:u")
    await use(book, "u", "40.25")
    clock.now = utc(2026, 6, 21)
    await pays(book, "user:u", status="unpaid")
    await use(book, "u", "1")
    assert (await book.usage("user:u")).period.kind == "free"
    clock.now = utc(2026, 6, 22)
    await pays(book, "user:u")
    await use(book, "u", "2")
    assert (await book.usage("user:u")).period.starts_at == P1[0]
    await pays(book, "user:u", status="unpaid")
    clock.now = utc(2026, 7, 2)
    for closed in (1, 0):
        assert (await book.sweep()).closed == closed
    assert await charged(book, "user:u") == [1_175]
    await check_books(book, database_url)


async def test_a_check_that_allows_says_what_is_left_to_the_member(book: Book) -> None:
    """Cap 1.00 with 0.25 used of it: 0.75, not what the organization has left; without a cap, the organization's."""
    await organization(book, "o", "u")
    await book.set_member_cap("o", "u", "1")
    await use(book, "u", "0.25")
    allowed = await book.check("u")
    assert (allowed.allowed, allowed.scope, allowed.limit) == (True, "member", 1)
    assert allowed.message.startswith("0.75 ")
    assert (await book.check("boss")).scope == "organization"


async def test_a_cap_ends_with_the_membership(book: Book) -> None:
    """§8: the member's own cap: who has left is a stranger like any other, and who comes back begins without one."""
    await organization(book, "o", "u")
    await book.put_workspace("w", payer="organization:o")
    await book.set_member_cap("o", "u", "0")
    assert (await book.check("u", workspace="w")).code == "member_cap_reached"
    await book.remove_member("o", "u")
    assert (await book.check("u", workspace="w")).allowed
    await book.add_member("o", "u")
    assert (await book.check("u", workspace="w")).allowed


async def test_deleting_a_user_leaves_no_name(book: Book, database_url: str) -> None:
    """I2: neither in what was told of a limit nor in who edited one."""
    await organization(book, "o", "gone")
    await book.transfer_ownership("o", "gone")
    await book.set_limit("organization:o", "500", by="gone")
    await book.transfer_ownership("o", "boss")
    await pays(book, "user:gone")
    await lump(book, "gone", "100.25", entity="user:gone")
    await book.sweep()
    await book.delete_user("gone")
    told = query(database_url, "select payload::text from meterbook.outbox where kind = 'alert'")
    editors = query(database_url, "select set_by from meterbook.entity_limit")
    assert told
    assert editors == [
        ("#" + str(query(database_url, "select id from meterbook.actor where external_id is null")[0][0]),)
    ]
    assert "gone" not in str(told)


async def come_by_workspace(book: Book) -> None:
    """Somebody else works in a workspace that the person pays for."""
    await use(book, "x", "1", workspace="w")


async def come_by_payer(book: Book) -> None:
    """A workspace is given to the person to pay for."""
    await book.put_workspace("w", payer="user:u")
    await use(book, "u", "1")


@pytest.mark.parametrize("status", ["active", "unpaid"])
@pytest.mark.parametrize("come_by", [come_by_workspace, come_by_payer])
async def test_a_cancellation_that_the_clock_takes_back_is_so_for_whoever_comes_by_first(
    book: Book, clock: Clock, status: str, come_by: Callable[[Book], Awaitable[None]]
) -> None:
    """§12: both end on 07-01, so the person's goes on; 1 + 6 of 07-01 are in their P2, whatever was asked for first."""
    await pays(book, "user:u")
    await organization(book, "o", "u", cancel_at_period_end=True)
    await pays(book, "organization:o", "team_6000", cancel_at_period_end=True, status=status)
    await book.put_workspace("w", payer="user:u")
    clock.now = utc(2026, 7, 1, 0, 1)
    await come_by(book)
    await book.sweep()
    await use(book, "u", "6")
    usage = await book.usage("user:u")
    assert (await toggles(book), usage.period.kind, usage.total, usage.limit) == ([True, False], "dated", 7, 30)
    assert (await book.check("u")).allowed


@pytest.mark.parametrize("at_once", [1, 2, 1000])
async def test_a_sweep_by_pages_takes_back_before_it_opens(
    book: Book, clock: Clock, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """§12: the person's entity is on the first page, the person as an actor on a later one: P2 begins all the same."""
    monkeypatch.setattr("meterbook.book.sweep.ENTITIES_PER_ROUND_MAX", at_once)
    await use(book, "a", "0.5")
    await pays(book, "user:u")
    await organization(book, "o", "a", "u", cancel_at_period_end=True)
    clock.now = utc(2026, 7, 1, 2)
    await book.sweep()
    await use(book, "u", "2")
    assert (await book.usage("user:u")).period.kind == "dated"
