"""Holds of one entity from several Books and processes at once (BEHAVIOUR §8): 0 overshoot, and nobody is harmed by a neighbour."""

# mypy: disable-error-code="comparison-overlap"
# An amount is compared with the plain number of the text: Decimal(30) == 30.

import asyncio
import contextlib
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from decimal import Decimal

import pytest

import meterbook
import meterbook.sync
from meterbook.book import Book
from meterbook.core.ledgers import HoldState
from meterbook.errors import Denied, KeyConflict, UnknownHold
from meterbook.operations.settle_hold import Settled
from tests.bills import check_books, organization, somebody_waits
from tests.conftest import Clock
from tests.ledger import count, query, sums, use
from tests.races.playing import connected, first_contact

AMOUNT = Decimal("0.30")
LIMIT = Decimal(30)
TURNS = int(os.environ.get("METERBOOK_HOLD_TURNS", "40"))


async def try_hold(book: Book, actor: str, amount: str, hold_id: str | None = None) -> HoldState | None:
    """None: there was not enough left. Any other denial is a mistake."""
    try:
        return await book.place_hold(actor, amount=amount, hold_id=hold_id)
    except Denied as denied:
        assert denied.admission.code in ("limit_reached", "member_cap_reached")  # noqa: PT017
        return None


async def settle(book: Book, hold_id: str, amount: str = "0.30", **more: object) -> Settled:
    return await book.settle(hold_id, amount=amount, source="workflow", description="m", **more)  # type: ignore[arg-type]


async def test_holds_of_many_books_never_exceed_the_limit(database_url: str, clock: Clock) -> None:
    """Limit 5, five Books, 200 holds of 0.30 at once: 16 are granted, whoever they came to."""
    async with AsyncExitStack() as stack:
        books = [await stack.enter_async_context(meterbook.open(database_url, clock=clock)) for _ in range(5)]
        granted = await asyncio.gather(*(try_hold(books[n % 5], "u", "0.30") for n in range(200)))
        assert sum(one is not None for one in granted) == 16
        assert (await books[0].usage("user:u")).held == Decimal("4.80")


async def test_open_and_aborted_settles_never_let_a_hold_overshoot(database_url: str, clock: Clock, seed: int) -> None:
    """Three Books hold, settle and release at the limit, while settles in callers' own transactions stay open, are aborted and come
    again: at no look is more used and set aside than the limit, and at the end everything was settled once.
    """
    async with AsyncExitStack() as stack:
        books = [await stack.enter_async_context(meterbook.open(database_url, clock=clock)) for _ in range(3)]
        await organization(books[0], "o", "u")
        limit = (await books[0].usage("organization:o")).limit
        chance, settled = random.Random(seed), list[str]()

        async def in_the_open(book: Book, hold_id: str) -> None:
            for commits in (False, True):
                async with connected(database_url) as conn:
                    await settle(book, hold_id, "0.05", conn=conn)
                    await asyncio.sleep(chance.random() / 50)
                    await (conn.commit() if commits else conn.rollback())

        async def work(book: Book, name: str) -> None:
            for turn in range(TURNS):
                held = await try_hold(book, "u", "3.00", f"{name}.{turn}")
                usage = await book.usage("organization:o")
                assert usage.effective + usage.held <= limit
                if held is None:
                    await asyncio.sleep(0)
                elif turn % 3 == 0:
                    await book.release(held.id)
                else:
                    await (in_the_open(book, held.id) if turn % 3 == 1 else settle(book, held.id, "0.05"))
                    settled.append(held.id)

        await asyncio.gather(*(work(books[n % 3], f"w{n}") for n in range(18)))
        usage = await books[0].usage("organization:o")
        assert (usage.held, usage.total) == (0, len(settled) * Decimal("0.05"))
        assert len(settled) > 10
        await check_books(books[0], database_url)


HOLDER = """
import asyncio, sys, meterbook
from meterbook.errors import Denied

async def main(url, name):
    async with meterbook.open(url) as book:
        async def hold(n):
            try:
                await book.place_hold("u", amount="0.30", hold_id=f"{name}.{n}")
            except Denied as denied:
                assert denied.admission.code == "limit_reached", denied
                return 0
            return 1
        print(sum(await asyncio.gather(*(hold(n) for n in range(60)))))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_holds_of_several_processes_never_exceed_the_limit(database_url: str) -> None:
    """Limit 5, three processes, 180 holds of 0.30 in groups: 16 are granted."""
    async with meterbook.open(database_url) as book:
        await first_contact(book, "u")

    async def process(name: str) -> int:
        arguments = sys.executable, "-c", HOLDER, database_url, name
        running = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        said, _ = await running.communicate()
        assert running.returncode == 0
        return int(said)

    assert sum(await asyncio.gather(*(process(f"p{n}") for n in range(3)))) == 16
    assert query(database_url, "select held from meterbook.hold_gate") == [(Decimal("4.80"),)]


def test_holds_of_threads_never_exceed_the_limit_and_settle_once(database_url: str, clock: Clock) -> None:
    """Limit 5, thirty threads of one synchronous Book: 16 of 90 are granted, settled twice each and charged once."""
    with meterbook.sync.open(database_url, clock=clock) as book, ThreadPoolExecutor(30) as threads:

        def hold(n: int) -> str | None:
            try:
                return book.place_hold("u", amount="0.30", hold_id=f"h{n}").id
            except Denied as denied:
                assert denied.admission.code == "limit_reached"  # noqa: PT017
                return None

        granted = [hold_id for hold_id in threads.map(hold, range(90)) if hold_id is not None]
        assert len(granted) == 16

        def end(hold_id: str) -> int:
            return book.settle(hold_id, amount="0.25", source="workflow", description="m").recorded.inserted

        assert sum(threads.map(end, granted + granted)) == 16
        assert (book.usage("user:u").total, book.usage("user:u").held) == (4, 0)


async def test_members_of_one_group_are_each_held_to_their_cap(book: Book) -> None:
    """Two members with caps of 1.00 and one without ask ten times each at once: three, three, ten; the limit counts them all."""
    await organization(book, "o", "a", "b", "c")
    for member in ("a", "b"):
        await book.set_member_cap("o", member, "1")
    said = await asyncio.gather(*(try_hold(book, "abc"[n % 3], "0.30") for n in range(30)))
    granted = [one.actor for one in said if one is not None]
    assert {actor: granted.count(actor) for actor in "abc"} == {"a": 3, "b": 3, "c": 10}
    assert (await book.usage("organization:o")).held == Decimal("4.80")


async def test_a_group_is_decided_in_order_and_a_smaller_one_may_still_fit(book: Book) -> None:
    """4.00, 2.00 and 1.00 of a limit of 5: the second is denied with what the first left, the third fills the limit."""
    await book.release(
        (await book.place_hold("u", amount=5)).id
    )  # from here on who pays is remembered, and nobody looks it up first
    said = await asyncio.gather(*(book.place_hold("u", amount=amount) for amount in (4, 2, 1)), return_exceptions=True)
    assert [isinstance(one, HoldState) for one in said] == [True, False, True]
    assert isinstance(said[1], Denied)
    admission = said[1].admission
    assert (admission.code, admission.used, admission.held, admission.limit) == ("limit_reached", 0, 4, 5)


async def test_a_taken_id_harms_nobody_beside_it(book: Book) -> None:
    """Among twenty at once, one id is another person's and one is for another amount: two conflicts, eighteen holds."""
    await first_contact(book, "u")
    await book.place_hold("v", amount="0.10", hold_id="h3")
    await book.place_hold("u", amount="0.20", hold_id="h7")
    said = await asyncio.gather(
        *(book.place_hold("u", amount="0.10", hold_id=f"h{n}") for n in range(20)), return_exceptions=True
    )
    assert [n for n, one in enumerate(said) if isinstance(one, KeyConflict)] == [3, 7]
    assert sum(isinstance(one, HoldState) for one in said) == 18
    assert (await book.usage("user:u")).held == Decimal("2.00")


async def test_an_id_that_somebody_is_writing_elsewhere_harms_nobody_beside_it(book: Book, database_url: str) -> None:
    """Another process is writing `h3` for another entity and does not finish: that one is denied for now, the others are granted."""
    await first_contact(book, "u", "v")
    async with connected(database_url) as other:
        await other.execute(
            "select meterbook.write_holds(meterbook.entity_id_of('user:v'), array['h3'], array[(select id from meterbook.actor where"
            " external_id = 'v')], array[null], array[1.0], array[600], clock_timestamp())"
        )
        said = await asyncio.gather(
            *(book.place_hold("u", amount="0.10", hold_id=f"h{n}") for n in range(10)), return_exceptions=True
        )
    refused = {n: one for n, one in enumerate(said) if not isinstance(one, HoldState)}
    assert list(refused) == [3]
    assert isinstance(refused[3], Denied)
    assert refused[3].admission.code == "check_failed"
    assert (await book.usage("user:u")).held == Decimal("0.90")
    assert (await book.place_hold("u", amount="0.10", hold_id="h3")).actor == "u"


async def test_a_payer_who_changed_is_found_under_the_gate(book: Book, database_url: str) -> None:
    """What this process remembers of who pays is a guess: another one made `u` a member, and the organization's gate is the one."""
    assert (await book.place_hold("u", amount="1")).entity == "user:u"
    async with meterbook.open(database_url, clock=book._clock) as another:
        await organization(another, "o", "u")
    held = await asyncio.gather(*(book.place_hold("u", amount="1") for _ in range(5)))
    assert {one.entity for one in held} == {"organization:o"}
    assert (await book.usage("user:u")).held == 1
    assert (await book.usage("organization:o")).held == 5


async def test_ends_of_one_group_are_told_apart(book: Book, database_url: str) -> None:
    """Settles above and below, of nothing, twice, of an unknown hold, with a taken key, and releases, all at once: each its own answer."""
    await use(book, "u", "0.50", "taken")
    for n in range(8):
        await book.place_hold("u", amount="0.30", hold_id=f"h{n}")
    said = await asyncio.gather(
        settle(book, "h0", "0.10"),
        settle(book, "h1", "0.90"),
        settle(book, "h2", "0"),
        settle(book, "h3"),
        settle(book, "h3"),
        settle(book, "nowhere"),
        settle(book, "h4", event_key="taken"),
        book.release("h5"),
        book.release("nowhere"),
        book.release("h6"),
        settle(book, "h0", "0.11"),
        return_exceptions=True,
    )
    inserted = [one.recorded.inserted if isinstance(one, Settled) else one for one in said]
    assert inserted[:3] == [1, 1, 0]
    assert sorted(inserted[3:5]) == [0, 1]  # type: ignore[type-var]
    assert isinstance(said[5], UnknownHold)
    assert isinstance(said[6], KeyConflict)
    assert said[7] is True
    assert isinstance(said[8], UnknownHold)
    assert said[9] is True
    assert isinstance(said[10], KeyConflict)
    assert sums(database_url) == {"user:u": Decimal("0.50") + Decimal("0.10") + Decimal("0.90") + AMOUNT}
    assert (await book.usage("user:u")).held == 2 * AMOUNT


async def test_a_settle_that_has_to_wait_holds_up_no_other(book: Book, database_url: str) -> None:
    """A caller's transaction is settling `h0` and stays open: another settle of it waits, those beside it do not; then it is replayed."""
    for n in range(6):
        await book.place_hold("u", amount="0.30", hold_id=f"h{n}")
    async with connected(database_url) as caller:
        await settle(book, "h0", conn=caller)
        waits = asyncio.create_task(settle(book, "h0"))
        others = await asyncio.wait_for(asyncio.gather(*(settle(book, f"h{n}") for n in range(1, 6))), 4)
        assert [one.recorded.inserted for one in others] == [1] * 5
        await somebody_waits(database_url)
        assert not waits.done()
        await caller.commit()
    assert (await waits).recorded.replayed == 1
    assert count(database_url) == 6


async def test_first_settles_after_the_clock_has_passed_are_attributed(book: Book, clock: Clock) -> None:
    """Ten at once, the first that anybody does after the period's end: the next period is opened, and each is recorded in it."""
    await organization(book, "o", "u")
    held = [await book.place_hold("u", amount="0.30", ttl_s=7 * 24 * 3600) for _ in range(10)]
    end = (await book.usage("organization:o")).period.ends_at
    clock.now = end
    settled = await asyncio.gather(*(settle(book, one.id) for one in held))
    assert sum(one.recorded.inserted for one in settled) == 10
    usage = await book.usage("organization:o")
    assert (usage.period.starts_at, usage.total) == (end, 3)


async def test_a_connection_that_is_cut_denies_all_who_waited_and_nothing_is_half_written(
    book: Book, database_url: str
) -> None:
    """Holds at once while backends are killed: granted or denied as retryable, and the gate counts exactly those that there are."""
    await first_contact(book, "u")
    asked = [asyncio.create_task(book.place_hold("u", amount="0.01", hold_id=f"h{n}")) for n in range(60)]
    await asyncio.sleep(0.002)
    query(
        database_url,
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    )
    said = await asyncio.gather(*asked, return_exceptions=True)
    assert all(one.retryable for one in said if isinstance(one, Denied))
    assert not [one for one in said if isinstance(one, BaseException) and not isinstance(one, Denied)]
    ((held, amount),) = query(
        database_url,
        "select coalesce((select held from meterbook.hold_gate), 0),"
        " coalesce((select sum(amount) from meterbook.hold where state = 'active'), 0)",
    )
    assert held == amount >= sum(isinstance(one, HoldState) for one in said) * Decimal("0.01")
    with contextlib.suppress(Denied):
        await book.place_hold("u", amount="0.01")
    assert (await book.place_hold("u", amount="0.01", hold_id="h0")).state == "active"


@pytest.mark.parametrize("bad", [{"actor": ""}, {"actor": "\0"}, {"workspace": ""}, {"hold_id": "\0"}])
async def test_what_cannot_be_a_hold_is_refused_before_it_joins_others(book: Book, bad: dict[str, str]) -> None:
    """An id that no table can hold never reaches a group."""
    said = {"actor": "u", "hold_id": "h"} | bad
    with pytest.raises(meterbook.InvalidUsage):
        await book.place_hold(said.pop("actor"), amount="1", **said)  # type: ignore[arg-type]
