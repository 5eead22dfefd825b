"""Holds (BEHAVIOUR §8): settled once, above or below; dead ones; whose they are; what they may not overshoot."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

import meterbook
from meterbook import Book, InvalidUsage, KeyConflict
from meterbook.core.ledgers import HoldState
from meterbook.errors import Denied, UnknownHold
from meterbook.operations.settle_hold import Settled
from tests.bills import check_books, lump, organization, pays
from tests.conftest import Clock
from tests.ledger import P1, count, query, sums, use, utc
from tests.races.playing import connected


async def settle(book: Book, hold_id: str = "h", amount: str = "0.31", key: str | None = None) -> Settled:
    return await book.settle(hold_id, amount=amount, source="workflow", description="m", event_key=key)


async def the(book: Book, hold_id: str = "h", entity: str = "user:u") -> HoldState:
    (found,) = [hold for hold in await book.holds(entity) if hold.id == hold_id]
    return found


@pytest.mark.parametrize("cost", ["0.31", "0.50", "4.00", "9.00"])
async def test_the_real_cost_is_recorded_below_or_above_the_held_amount(book: Book, cost: str) -> None:
    """Also above the limit: work that was done is recorded; nothing stays set aside."""
    async with book.hold("u", amount="0.50", hold_id="h") as hold:
        assert (await book.usage("user:u")).held == Decimal("0.50")
        settled = await hold.settle(amount=cost, source="workflow", description="m")
    assert (settled.state, settled.recorded.inserted) == ("settled", 1)
    usage = await book.usage("user:u")
    assert (usage.total, usage.held) == (Decimal(cost), 0)
    assert ((await the(book)).state, (await the(book)).settled) == ("settled", Decimal(cost))


async def test_settling_at_nothing_writes_no_row(book: Book, database_url: str) -> None:
    """0: the hold ends; again: replayed; another amount: a conflict."""
    await book.place_hold("u", amount="0.50", hold_id="h")
    for _ in range(2):
        assert (await settle(book, amount="0")).recorded.inserted == 0
    assert count(database_url) == 0
    assert (await book.usage("user:u")).held == 0
    with pytest.raises(KeyConflict):
        await settle(book, amount="0.01")


async def test_the_same_settle_again_is_replayed(book: Book, database_url: str) -> None:
    """Ten at once and one later: one row; another amount or another key is a conflict and changes nothing."""
    await book.place_hold("u", amount="0.50", hold_id="h")
    settled = await asyncio.gather(*(settle(book) for _ in range(10)))
    assert sum(one.recorded.inserted for one in settled) == 1
    assert (await settle(book, amount="0.310")).recorded.replayed == 1
    with pytest.raises(KeyConflict):
        await settle(book, amount="0.32")
    with pytest.raises(KeyConflict):
        await settle(book, key="another")
    assert sums(database_url) == {"user:u": Decimal("0.31")}


async def test_a_settle_whose_key_is_taken_leaves_the_hold_as_it_was(book: Book) -> None:
    """The row and the end of the hold are one transaction."""
    await use(book, "u", "1.00", "taken")
    await book.place_hold("u", amount="0.50", hold_id="h")
    with pytest.raises(KeyConflict):
        await settle(book, key="taken")
    assert (await the(book)).state == "active"
    assert (await book.usage("user:u")).held == Decimal("0.50")


async def test_a_hold_inside_itself_is_released_by_whom_it_was_granted_to(book: Book) -> None:
    """§8: the same id is one hold, so who found it there leaves it to the one who works under it; settled inside, it stays settled."""
    async with book.hold("u", amount="0.50", hold_id="h") as outer:
        async with book.hold("u", amount="0.50", hold_id="h"):
            pass
        assert (await the(book)).state == "active"
        assert (await book.usage("user:u")).held == Decimal("0.50")
        together = [book.hold("u", amount="0.50", hold_id="h") for _ in range(5)]
        for one in together:
            await one.__aenter__()
        for one in together:
            await one.__aexit__(None, None, None)
        assert (await the(book)).state == "active"
    assert outer.ended is False
    assert (await the(book)).state == "released"
    async with book.hold("u", amount="0.50", hold_id="other"), book.hold("u", amount="0.50", hold_id="other") as inner:
        await inner.settle(amount="0.31", source="workflow", description="m")
    assert (await the(book, "other")).state == "settled"


async def test_of_those_who_ask_for_one_id_at_once_one_releases_it(book: Book) -> None:
    """Granted to one of them: while it works, no other's leaving frees the money."""
    ready, go = asyncio.Event(), asyncio.Event()
    states: list[str] = []

    async def work(n: int) -> None:
        async with book.hold("u", amount="0.50", hold_id="h"):
            if n == 0:
                ready.set()
                await go.wait()
            else:
                await ready.wait()
        states.append((await the(book)).state)

    async def first_then_others() -> None:
        await ready.wait()
        await asyncio.gather(*(work(n) for n in range(1, 6)))
        go.set()

    await asyncio.gather(work(0), first_then_others())
    assert states == ["active"] * 5 + ["released"]


async def test_a_conflict_of_a_settle_shows_both_versions(book: Book) -> None:
    """What it was settled with, and what is said now: the amount, and the entry where the key differs."""
    await book.place_hold("u", amount="0.50", hold_id="h")
    first = await settle(book)
    with pytest.raises(KeyConflict) as refused:
        await settle(book, amount="0.32")
    (conflict,) = refused.value.conflicts
    assert (conflict.first["amount"], conflict.now["amount"]) == (Decimal("0.31"), Decimal("0.32"))
    assert "amount 0.31 then, 0.32 now" in str(refused.value)
    with pytest.raises(KeyConflict) as refused:
        await settle(book, key="another")
    (conflict,) = refused.value.conflicts
    assert conflict.first["entry"] == first.recorded.entries[0].id != conflict.now["entry"]


async def test_the_same_id_is_the_same_hold(book: Book) -> None:
    """Ten at once: 0.50 are held; for another amount or another person the id is a conflict."""
    held = await asyncio.gather(*(book.place_hold("u", amount="0.50", hold_id="h") for _ in range(10)))
    assert len({hold.granted_at for hold in held}) == 1
    assert (await book.usage("user:u")).held == Decimal("0.50")
    for actor, amount in [("u", "0.51"), ("v", "0.50")]:
        with pytest.raises(KeyConflict):
            await book.place_hold(actor, amount=amount, hold_id="h")


async def test_one_id_for_two_at_the_same_time_is_a_conflict_of_one(book: Book) -> None:
    """Whoever comes second is told so, whichever entity the first one's is."""
    for n in range(5):
        said = await asyncio.gather(
            *(book.place_hold(f"u{one}", amount="0.50", hold_id=f"h{n}") for one in range(4)), return_exceptions=True
        )
        assert sum(isinstance(one, HoldState) for one in said) == 1
        assert sum(isinstance(one, KeyConflict) for one in said) == 3


async def test_an_expired_hold_counts_no_longer_and_its_settle_is_recorded_all_the_same(
    book: Book, clock: Clock
) -> None:
    """By the clock, with nobody coming by; a microsecond before, it counts."""
    await book.place_hold("u", amount="5", hold_id="h", ttl_s=60)
    clock.now += timedelta(seconds=60) - timedelta(microseconds=1)
    assert not (await book.check("u")).allowed
    clock.now += timedelta(microseconds=1)
    assert ((await book.check("u")).allowed, (await the(book)).state) == (True, "expired")
    await book.place_hold("u", amount="5", hold_id="next")
    for inserted in (1, 0):
        settled = await settle(book)
        assert (settled.state, settled.recorded.inserted) == ("expired", inserted)
    assert (await book.usage("user:u")).held == 5
    with pytest.raises(KeyConflict):
        await settle(book, amount="0.32")


async def test_a_released_hold_settles_as_released(book: Book) -> None:
    """The usage is recorded, and nothing is freed twice."""
    await book.place_hold("u", amount="2", hold_id="other")
    await book.place_hold("u", amount="0.50", hold_id="h")
    assert [await book.release("h"), await book.release("h")] == [True, False]
    assert (await settle(book)).state == "released"
    usage = await book.usage("user:u")
    assert (usage.total, usage.held) == (Decimal("0.31"), 2)


async def test_a_settled_hold_is_not_released(book: Book) -> None:
    """False, and its history stays."""
    await book.place_hold("u", amount="0.50", hold_id="h")
    await settle(book)
    assert not await book.release("h")
    assert (await the(book)).state == "settled"


async def test_leaving_the_block_unsettled_releases(book: Book) -> None:
    """Also by an error."""
    with pytest.raises(ZeroDivisionError):
        async with book.hold("u", amount="0.50", hold_id="h"):
            raise ZeroDivisionError
    assert (await the(book)).state == "released"
    assert (await book.usage("user:u")).held == 0


async def test_an_unknown_hold_is_neither_settled_nor_released(book: Book) -> None:
    """`UnknownHold`, and nothing is written."""
    for call in (settle(book, "nowhere"), book.release("nowhere")):
        with pytest.raises(UnknownHold):
            await call


@pytest.mark.parametrize("amount", ["0", "-1", "NaN", 0.5])
async def test_a_hold_is_an_amount_above_nothing(book: Book, amount: str) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidUsage):
        await book.place_hold("u", amount=amount)
    assert (await book.usage("user:u")).held == 0


async def test_a_hold_may_fill_the_limit_and_not_exceed_it(book: Book) -> None:
    """4.00 + 1.00 ≤ 5 is granted, one more 10⁻¹² is denied with the numbers compared."""
    await use(book, "u", "4.00")
    await book.place_hold("u", amount="1.00")
    with pytest.raises(Denied) as denied:
        await book.place_hold("u", amount="0.000000000001")
    admission = denied.value.admission
    assert (admission.code, admission.used, admission.held, admission.limit) == ("limit_reached", 4, 1, 5)
    assert not denied.value.retryable


async def test_a_settle_goes_to_the_holds_entity_whoever_pays_now(book: Book, clock: Clock, database_url: str) -> None:
    """Held on the organization's account; the member leaves, the period passes: the row is the organization's, in its next period."""
    await organization(book, "o", "u")
    await book.place_hold("u", amount="0.50", hold_id="h")
    await book.remove_member("o", "u")
    clock.now = utc(2026, 7, 1, 2)
    settled = await settle(book)
    assert settled.recorded.entries[0].entity == "organization:o"
    assert sums(database_url) == {"organization:o": Decimal("0.31")}
    usage = await book.usage("organization:o")
    assert (usage.period.starts_at, usage.total) == (P1[1], Decimal("0.31"))


async def test_a_hold_counts_against_whichever_period_is_running(book: Book, clock: Clock) -> None:
    """Granted in P1 for a week, it is set aside in P2 too, and gets no refresh."""
    await pays(book, "user:u")
    clock.now = P1[1] - timedelta(hours=1)
    await book.place_hold("u", amount="10", hold_id="h", ttl_s=7 * 24 * 3600)
    clock.now = P1[1]
    assert (await book.usage("user:u")).held == 10
    assert (await book.check("u")).held == 10


async def test_a_settle_in_the_callers_transaction_vanishes_with_it(book: Book, database_url: str) -> None:
    """Rolled back: the hold is active and nothing recorded; committed: both."""
    await book.place_hold("u", amount="0.50", hold_id="h")
    for commits in (False, True):
        async with connected(database_url) as conn:
            await book.settle("h", amount="0.31", source="workflow", description="m", conn=conn)
            assert (await book.usage("user:u")).held == Decimal("0.50")
            await (conn.commit() if commits else conn.rollback())
    assert ((await the(book)).state, sums(database_url)) == ("settled", {"user:u": Decimal("0.31")})


async def test_nothing_overshoots_while_holds_are_settled_released_and_expire(book: Book, clock: Clock) -> None:
    """Never more than the limit is used and set aside, whatever ends beside what begins."""

    async def work(n: int) -> None:
        for turn in range(6):
            hold_id = f"h{n}.{turn}"
            try:
                await book.place_hold("u", amount="0.40", hold_id=hold_id, ttl_s=60)
            except Denied:
                return
            if turn % 3 == 0:
                await book.release(hold_id)
            elif turn % 3 == 1:
                await settle(book, hold_id, "0.10")
            usage = await book.usage("user:u")
            assert usage.effective + usage.held <= 5

    await asyncio.gather(*(work(n) for n in range(12)))
    clock.now += timedelta(seconds=61)
    usage = await book.usage("user:u")
    assert usage.held == 0
    assert usage.total > 0


async def test_a_hold_and_its_end_are_seen_in_one_snapshot(book: Book, database_url: str) -> None:
    """While 1.00 goes from held to used and nothing else happens, every reader sees 1.00 in one of the two."""
    for n in range(20):
        hold_id = f"h{n}"
        await book.place_hold("u", amount="0.20", hold_id=hold_id)
        settling = asyncio.create_task(settle(book, hold_id, "0.20"))
        seen = await asyncio.gather(*(book.usage("user:u") for _ in range(4)))
        await settling
        assert {usage.total + usage.held for usage in seen} == {(n + 1) * Decimal("0.20")}
    assert query(database_url, "select count(*) from meterbook.hold where state = 'active'") == [(0,)]


async def test_history_is_kept_and_the_books_balance(book: Book, clock: Clock, database_url: str) -> None:
    """Newest first, with what became of each."""
    await pays(book, "user:u")
    await lump(book, "u", "1")
    for n in range(3):
        clock.now += timedelta(seconds=1)
        await book.place_hold("u", amount="1", hold_id=f"h{n}")
    await settle(book, "h0", "1")
    await book.release("h1")
    assert [(hold.id, hold.state) for hold in await book.holds("user:u")] == [
        ("h2", "active"),
        ("h1", "released"),
        ("h0", "settled"),
    ]
    await check_books(book, database_url)


async def test_work_of_somebody_who_was_deleted_meanwhile_is_still_owed(book: Book, database_url: str) -> None:
    """The organization pays what its hold was for; nobody is named."""
    await organization(book, "o", "u")
    await book.place_hold("u", amount="1", hold_id="h")
    await book.delete_user("u")
    assert (await settle(book, amount="1.10")).recorded.inserted == 1
    usage = await book.usage("organization:o")
    assert (dict(usage.by_actor), usage.held) == ({"(erased)": Decimal("1.10")}, 0)
    assert query(database_url, "select 1 from meterbook.actor where external_id = 'u'") == []


async def test_holds_at_once_never_exceed_a_members_cap(book: Book) -> None:
    """Cap 1.00, ten holds of 0.30: three."""
    await organization(book, "o", "u")
    await book.set_member_cap("o", "u", "1")
    said = await asyncio.gather(*(book.place_hold("u", amount="0.30") for _ in range(10)), return_exceptions=True)
    assert [isinstance(one, HoldState) for one in said].count(True) == 3
    assert sum(isinstance(one, Denied) for one in said) == 7


async def test_a_caller_who_goes_while_his_hold_is_granted_leaves_nothing_set_aside(database_url: str) -> None:
    """§8: nobody knows the id of such a hold. Cancelled at any moment of entering, it is released; one whose id is the caller's stays."""
    async with meterbook.open(database_url) as book:
        for number in range(30):
            entering = asyncio.create_task(book.place_hold("u", amount="0.10"))
            await asyncio.sleep(number / 5000)
            entering.cancel()
            await asyncio.wait([entering])
            if not entering.cancelled():
                await book.release(entering.result().id)
        await book.drain()
        assert [hold.state for hold in await book.holds("user:u") if hold.state == "active"] == []
