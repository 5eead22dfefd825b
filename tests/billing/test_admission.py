"""Admission (BEHAVIOUR §8): the order of the questions, blocks, caps, alerts when the limit is what changed."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

from decimal import Decimal

import pytest

import meterbook
from meterbook import Book
from meterbook.errors import Denied, MembershipRefused
from tests.bills import alerts, lump, organization, pays
from tests.conftest import Clock
from tests.ledger import P1, P2, query, use, utc


async def code(book: Book, actor: str, workspace: str | None = None) -> str:
    admission = await book.check(actor, workspace=workspace)
    assert admission.allowed == (admission.code == "allowed")
    assert admission.message
    return admission.code


async def test_the_questions_have_an_order(book: Book) -> None:
    """The actor's own block, the paying entity's, the member's cap, the entity's limit; each takes the next one's place."""
    await organization(book, "o", "u")
    await lump(book, "u", "31.00")
    assert await code(book, "u") == "limit_reached"
    await book.set_member_cap("o", "u", "1")
    assert await code(book, "u") == "member_cap_reached"
    await book.block("organization:o", reason="administrative")
    assert await code(book, "u") == "blocked"
    await book.block("organization:o", reason="payment_failed", reference="in_1")
    assert await code(book, "u") == "payment_failed"
    await book.block("organization:o", reason="dispute", reference="dp_1")
    assert await code(book, "u") == "dispute"
    await book.block("user:u", reason="administrative")
    assert await code(book, "u") == "actor_blocked"


async def test_a_persons_payment_block_does_not_touch_the_organization(book: Book) -> None:
    """Only the entity is blocked: the member works on the organization's account; outside of it not."""
    await organization(book, "o", "u")
    await book.block("user:u", reason="payment_failed", reference="in_1")
    assert await code(book, "u") == "allowed"
    await book.remove_member("o", "u")
    assert await code(book, "u") == "payment_failed"


async def test_a_blocked_organization_denies_each_of_its_members(book: Book) -> None:
    """All four, by the organization's name, until that very invoice is paid."""
    await organization(book, "o", "a", "b", "c")
    await book.block("organization:o", reason="payment_failed", reference="in_1")
    assert [await code(book, member) for member in ("boss", "a", "b", "c")] == ["payment_failed"] * 4
    assert not await book.unblock("organization:o", reason="payment_failed", reference="in_2")
    assert await code(book, "a") == "payment_failed"
    assert await book.unblock("organization:o", reason="payment_failed", reference="in_1")
    assert await code(book, "a") == "allowed"


async def test_a_cap_counts_the_members_raw_total_and_own_holds(book: Book) -> None:
    """Cap 5: 4.99 and no refresh → allowed; a hold of 0.01 fills it; other members are not concerned."""
    await organization(book, "o", "u", "v")
    await book.set_member_cap("o", "u", "5")
    await lump(book, "u", "4.99")
    assert await code(book, "u") == "allowed"
    await book.place_hold("u", amount="0.01", hold_id="h")
    admission = await book.check("u")
    assert (admission.code, admission.scope) == ("member_cap_reached", "member")
    assert (admission.used, admission.held, admission.limit) == (Decimal("4.99"), Decimal("0.01"), 5)
    with pytest.raises(Denied) as denied:
        await book.place_hold("u", amount="0.01")
    assert denied.value.admission.code == "member_cap_reached"
    assert await code(book, "v") == "allowed"
    await book.release("h")
    assert await code(book, "u") == "allowed"


async def test_no_cap_and_a_cap_of_nothing(book: Book) -> None:
    """None = none; 0 = nothing; only of members."""
    await organization(book, "o", "u")
    await book.set_member_cap("o", "u", 0)
    assert await code(book, "u") == "member_cap_reached"
    await book.set_member_cap("o", "u", None)
    assert await code(book, "u") == "allowed"
    with pytest.raises(MembershipRefused):
        await book.set_member_cap("o", "stranger", 1)


async def test_a_cap_is_of_the_running_period(book: Book, clock: Clock) -> None:
    """What filled it in P1 is not counted in P2."""
    await organization(book, "o", "u")
    await book.set_member_cap("o", "u", "5")
    await lump(book, "u", "5")
    assert await code(book, "u") == "member_cap_reached"
    clock.now = P1[1]
    assert await code(book, "u") == "allowed"


async def test_a_workspace_names_who_is_checked(book: Book) -> None:
    """Its payer's limit, whoever acts; an unknown one is a denial that compares nothing."""
    await organization(book, "o")
    await book.put_workspace("w", payer="organization:o")
    admission = await book.check("stranger", workspace="w")
    assert (admission.entity, admission.limit) == ("organization:o", 30)
    assert await code(book, "stranger", "nowhere") == "check_failed"


async def test_the_number_that_blocks_is_the_number_that_is_shown(book: Book) -> None:
    """used, held and limit of a check are those of the usage report (I6)."""
    await pays(book, "user:u")
    await lump(book, "u", "29.35")
    await book.place_hold("u", amount="0.90")
    admission, usage = await book.check("u"), await book.usage("user:u")
    assert admission.code == "limit_reached"
    assert (admission.used, admission.held, admission.limit) == (usage.effective, usage.held, usage.limit)
    assert (usage.effective, usage.held, usage.percent) == (Decimal("29.10"), Decimal("0.90"), 97)


async def test_an_answer_says_how_far_work_can_overshoot(book: Book, database_url: str) -> None:
    """A check that allows bounds nothing: None. A denial lets nothing begin, and what is held is settled inside the limit: 0."""
    await use(book, "u", "3.00")
    first, second = await book.check("u"), await book.check("u")
    assert (first.allowed, first.overshoot, second.allowed, second.overshoot) == (True, None, True, None)
    held = await book.place_hold("u", amount="2.00", hold_id="h")
    assert held.overshoot == 0
    denied = await book.check("u")
    assert (denied.allowed, denied.overshoot) == (False, 0)
    with pytest.raises(Denied) as refused:
        await book.place_hold("u", amount="0.01")
    assert refused.value.admission.overshoot == 0
    await book.settle("h", amount="2.00", source="workflow", description="m")
    usage = await book.usage("user:u")
    assert usage.effective + usage.held == usage.limit
    async with meterbook.open(database_url, clock=book._clock, billing=False) as unlimited:
        assert (await unlimited.check("u")).overshoot is None


async def test_a_database_that_goes_away_denies(book: Book, database_url: str) -> None:
    """The connection is cut: denied and retryable, nothing compared; then it answers again."""
    assert await code(book, "u") == "allowed"
    query(
        database_url,
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    )
    admission = await book.check("u")
    assert (admission.code, admission.retryable, admission.used, admission.limit) == ("check_failed", True, None, None)
    assert await code(book, "u") == "allowed"


async def test_marks_are_armed_again_when_the_limit_is_what_changed(book: Book) -> None:
    """40 of 50 told; the limit rises to 100 (40 %): armed; 85 of 100 is told again."""
    await pays(book, "user:u")
    await book.set_limit("user:u", "50")
    await lump(book, "u", "40.25")
    await book.sweep()
    await book.set_limit("user:u", "100")
    await book.sweep()
    await lump(book, "u", "45")
    await book.sweep()
    assert await alerts(book, "user:u") == ["limit_80", "limit_80"]


@pytest.mark.parametrize(("change", "told"), [("limit", ["limit_80"]), ("plan", ["limit_100"])])
async def test_a_limit_that_falls_below_the_usage_tells(
    book: Book, clock: Clock, database_url: str, change: str, told: list[str]
) -> None:
    """Nothing was recorded: 32 of 100, then 32 of 40; and an organization whose stored limit was all it had."""
    if change == "limit":
        await pays(book, "user:u")
        await book.set_limit("user:u", "100")
        await lump(book, "u", "32.25")
        await book.sweep()
        await book.set_limit("user:u", "40")
        await book.sweep()
        assert await alerts(book, "user:u") == told
        return
    await pays(book, "user:u", "pro_25000")
    clock.now = P2[0]
    await use(book, "u", "50")
    await book.sweep()
    assert await alerts(book, "user:u") == []
    clock.now = utc(2026, 7, 1, 1)
    await pays(book, "user:u", "pro_6000", P2, effective_at=P2[0])
    await book.sweep()
    assert await alerts(book, "user:u") == told
    assert query(database_url, "select count(*) from meterbook.moved_entity") == [(0,)]


async def test_credits_arm_the_marks_too(book: Book) -> None:
    """30 of 30 told; 20 of credit make it 60 %: armed, and told again at 80 %."""
    await pays(book, "user:u")
    await lump(book, "u", "30.25")
    await book.sweep()
    await book.grant_credit("user:u", amount="20", grant_id="g")
    await book.sweep()
    await lump(book, "u", "10")
    await book.sweep()
    assert await alerts(book, "user:u") == ["limit_100", "limit_80"]
