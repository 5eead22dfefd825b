"""Checks and holds through the client: what happens when the server can't answer is chosen, and to deny unless it is."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from meterbook.client import AsyncClient, Client
from meterbook.errors import Denied, InvalidKey, InvalidUsage, UnknownHold, Unreachable
from tests.client.conftest import ON_ONE_SERVER, House, until
from tests.client.unruly import CUT_AFTER, CUT_BEFORE, SLOW, Instead, Unruly, answer, problem
from tests.ledger import query

pytestmark = ON_ONE_SERVER
D = Decimal
SAID: dict[str, Any] = {"source": "workflow", "description": "gpt-4o"}
QUICK: dict[str, Any] = {"deadline_s": 0.2, "check_deadline_s": 0.2, "close_s": 0.2, "timeout_s": 0.2}
MIXED: dict[str, Any] = QUICK | {"deadline_s": 1.0, "check_deadline_s": 1.0, "timeout_s": 1.0}
"""Where a call that follows is to be answered, on a slow machine too."""
FAULTS = {
    "cut": CUT_BEFORE,
    "slow": SLOW,
    "500": Instead(says=answer(500)),
    "a fault": Instead(says=problem(500, "internal_error", retryable=False)),
    "full": Instead(says=problem(503, "overloaded")),
    "no database": Instead(says=problem(503, "ledger_unavailable")),
    "a hotel's page": Instead(says=answer(200, b"<html>")),
}
NOT_LOOKED = (
    b'{"allowed":false,"code":"check_failed","message":"m","scope":"user","entity":null,"used":null,"held":null,'
    b'"limit":null,"retryable":true,"overshoot":"0.00"}'
)
faulty = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
Choice = Literal["deny", "allow"]


def holds(house: House, actor: str) -> list[str]:
    """What became of an actor's holds."""
    found = query(
        house.database_url,
        "select h.state from meterbook.hold h join meterbook.actor a on a.id = h.actor_id where a.external_id = %s",
        actor,
    )
    return [state for (state,) in found]


async def test_a_check_answers_what_the_ledger_says(house: House, actor: str) -> None:
    """Allowed with what is left, denied at the limit; a denial is an answer whatever is chosen for no answer."""
    async with AsyncClient(house.url, house.key, when_unreachable="allow") as client:
        before = await client.check(actor)
        await client.record(actor, amount="5", **SAID)
        after = await client.check(actor)
        with pytest.raises(Denied) as denied:
            async with client.hold(actor, amount="1"):
                pass
    assert (before.allowed, before.code, before.limit) == (True, "allowed", D(5))
    assert (after.allowed, after.code, after.used) == (False, "limit_reached", D(5))
    assert (denied.value.admission.code, denied.value.retryable) == ("limit_reached", False)


@faulty
async def test_who_chooses_nothing_is_denied(house: House, unruly: Unruly, actor: str, fault: Instead) -> None:
    """A server that can't answer: denied, retryable, nothing compared; and no block is entered."""
    unruly.does(fault)
    async with AsyncClient(unruly.url, house.key, **QUICK) as client:
        admission = await client.check(actor)
        with pytest.raises(Denied) as denied:
            async with client.hold(actor, amount="1", hold_id=f"of {actor}"):
                pytest.fail("the work began")
    assert (admission.allowed, admission.code, admission.retryable) == (False, "unreachable", True)
    assert (admission.used, admission.limit, admission.overshoot) == (None, None, D(0))
    assert (denied.value.admission.code, denied.value.retryable) == ("unreachable", True)


@faulty
async def test_who_chooses_to_allow_is_told_that_nobody_was_asked(
    house: House, unruly: Unruly, actor: str, fault: Instead
) -> None:
    """Allowed by a code of its own, bounded by nothing."""
    unruly.does(fault)
    async with AsyncClient(unruly.url, house.key, **QUICK) as client:
        admission = await client.check(actor, when_unreachable="allow")
    assert (admission.allowed, admission.code, admission.overshoot) == (True, "allowed_unreachable", None)


@pytest.mark.parametrize(("choice", "allowed"), [("deny", False), ("allow", True)])
async def test_a_server_that_could_not_look_has_not_answered(
    house: House, unruly: Unruly, actor: str, choice: Choice, allowed: bool
) -> None:
    """`check_failed` is the server's way to say so; a retryable denial of a hold likewise."""
    refused = (
        b'{"type":"urn:meterbook:problem:denied","detail":"m","code":"denied","retryable":true,"admission":'
        + NOT_LOOKED
        + b"}"
    )
    unlooked = Instead(says=answer(200, NOT_LOOKED, b"application/json"))
    ungranted = Instead(says=answer(503, refused, b"application/problem+json"))
    unruly.decide = lambda asked: unlooked if "checks" in asked.line else ungranted
    async with AsyncClient(unruly.url, house.key, when_unreachable=choice, **QUICK) as client:
        assert (await client.check(actor)).allowed is allowed
        entered = False
        try:
            async with client.hold(actor, amount="1", hold_id=f"of {actor}") as held:
                entered = True
                assert not held.is_granted
        except Denied:
            pass
        assert entered is allowed


async def test_a_wrong_key_is_no_absence(house: House, actor: str) -> None:
    """Raised, whatever is chosen: the choice is about a server that can't answer."""
    async with AsyncClient(house.url, "mb_wrong", when_unreachable="allow") as client:
        with pytest.raises(InvalidKey):
            await client.check(actor)
        with pytest.raises(InvalidKey):
            async with client.hold(actor, amount="1"):
                pass


async def test_a_choice_is_one_of_two(house: House, actor: str) -> None:
    """A misspelt one is refused, not taken for one of them."""
    with pytest.raises(InvalidUsage):
        AsyncClient(house.url, house.key, when_unreachable="alow")  # type: ignore[arg-type]
    async with AsyncClient(house.url, house.key) as client:
        with pytest.raises(InvalidUsage):
            await client.check(actor, when_unreachable="Allow")  # type: ignore[arg-type]
        with pytest.raises(InvalidUsage):
            async with client.hold(actor, amount="0"):
                pass


async def test_a_hold_is_settled_released_and_left(house: House, actor: str) -> None:
    """As the library's; leaving unsettled releases, also by an exception; the same settle again is replayed."""
    async with AsyncClient(house.url, house.served.keys["admin"]) as client:
        async with client.hold(actor, amount="2", hold_id=f"of {actor}") as held:
            assert held.is_granted
            assert (await client.check(actor)).held == 2
            settled = await held.settle(amount="0.30", **SAID)
        again = await client.settle(held.id, amount="0.30", **SAID)
        async with client.hold(actor, amount="2") as released:
            assert await released.release()
        with pytest.raises(RuntimeError):
            async with client.hold(actor, amount="2"):
                raise RuntimeError
        states = [hold.state for hold in await client.holds(f"user:{actor}")]
        with pytest.raises(UnknownHold):
            await client.settle("nobody's", amount="1", **SAID)
        with pytest.raises(UnknownHold):
            await client.release("nobody's")
    assert (settled.state, settled.receipt.inserted, again.receipt.replayed) == ("settled", 1, 1)
    assert states == ["released", "released", "settled"]
    assert house.amounts(actor) == [D("0.30")]


async def test_a_hold_with_a_name_is_not_released_by_leaving(house: House, actor: str) -> None:
    """Two processes, or two tries of one work, share it: who leaves first takes it from nobody."""
    async with AsyncClient(house.url, house.key) as client, AsyncClient(house.url, house.key) as other:
        async with client.hold(actor, amount="2", hold_id=f"of {actor}") as first:
            async with other.hold(actor, amount="2", hold_id=f"of {actor}") as second:
                assert (first.state, second.is_granted) == (second.state, True)
            assert holds(house, actor) == ["active"]
            await first.settle(amount="0.30", **SAID)
        assert holds(house, actor) == ["settled"]


def test_the_synchronous_client_holds_too(house: House, actor: str) -> None:
    """With `with`."""
    with Client(house.url, house.key) as client:
        assert client.check(actor).allowed
        with client.hold(actor, amount="2") as held:
            assert held.settle(amount="0.30", **SAID).state == "settled"
    assert house.amounts(actor) == [D("0.30")]


async def test_a_settle_goes_through_the_spool(house: House, unruly: Unruly, actor: str, tmp_path: Path) -> None:
    """The server went away while the work ran: the cost is on disk, and ends the hold when the server is back."""
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, **MIXED) as client:
        async with client.hold(actor, amount="2") as held:
            unruly.does(CUT_BEFORE)
            settled = await held.settle(amount="0.30", **SAID)
            assert (settled.state, settled.receipt.state) == (None, "spooled")
            assert client.spooled().by_actor == {actor: D("0.30")}
        unruly.behaves()
        assert (await client.flush()).calls == 0
    assert house.amounts(actor) == [D("0.30")]
    assert holds(house, actor) == ["settled"]


@pytest.mark.parametrize("fault", [CUT_BEFORE, CUT_AFTER], ids=["never granted", "granted unheard"])
@pytest.mark.parametrize("back", ["before the settle", "after the settle"])
async def test_what_was_allowed_without_the_server_is_recorded(
    house: House, unruly: Unruly, actor: str, tmp_path: Path, fault: Instead, back: str
) -> None:
    """Once, whether the server has the hold or not, and ends it if it has."""
    unruly.does(fault)
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, **MIXED) as client:
        async with client.hold(actor, amount="2", when_unreachable="allow") as held:
            assert not held.is_granted
            if back == "before the settle":
                unruly.behaves()
            settled = await held.settle(amount="0.30", **SAID)
        unruly.behaves()
        left = await client.flush()
    assert (left.calls, left.refused) == (0, 0)
    if back == "before the settle":
        assert settled.state == ("no_hold" if fault is CUT_BEFORE else "settled")
    assert house.amounts(actor) == [D("0.30")]
    assert holds(house, actor) == ([] if fault is CUT_BEFORE else ["settled"])


async def test_a_denied_hold_that_was_granted_unheard_is_released(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """Its answer was lost and the work did not begin: the money is not set aside until its time is over."""
    unruly.does(CUT_AFTER)
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, **MIXED) as client:
        with pytest.raises(Denied):
            async with client.hold(actor, amount="2"):
                pass
        assert holds(house, actor) == ["active"]
        unruly.behaves()
        assert (await client.flush()).refused == 0
    assert holds(house, actor) == ["released"]


@pytest.mark.parametrize("is_spooled", [True, False])
async def test_a_hold_whose_asking_was_interrupted_is_released(
    house: House, unruly: Unruly, actor: str, tmp_path: Path, is_spooled: bool
) -> None:
    """Its work never began: the money is not set aside until its time is over, whoever was granted it unheard."""
    unruly.does(SLOW)
    settings: dict[str, Any] = {"spool": tmp_path if is_spooled else None, "check_deadline_s": 20, "timeout_s": 20}
    async with AsyncClient(unruly.url, house.key, **settings) as client:

        async def work() -> None:
            async with client.hold(actor, amount="2"):
                pass

        asking = asyncio.create_task(work())
        await until(lambda: holds(house, actor) == ["active"])
        unruly.behaves()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (await client.flush()).calls == 0
    assert holds(house, actor) == ["released"]


async def test_a_hold_that_cant_be_released_fails_no_work(house: House, unruly: Unruly, actor: str) -> None:
    """The block's own exception comes through, and a server that is away is none of the work's."""
    async with AsyncClient(unruly.url, house.key, **MIXED) as client:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012  raised by the block that is left
            async with client.hold(actor, amount="2"):
                unruly.does(CUT_BEFORE)
                raise ZeroDivisionError
    unruly.behaves()
    async with AsyncClient(unruly.url, house.key, **MIXED) as client:
        async with client.hold(actor, amount="2") as held:
            unruly.does(CUT_BEFORE)
        assert held.ended


async def test_without_a_spool_a_settle_that_cant_be_sent_is_raised(house: House, unruly: Unruly, actor: str) -> None:
    """With its key; the hold is not released, so that the settle may be tried again."""
    async with AsyncClient(unruly.url, house.key, **MIXED) as client, client.hold(actor, amount="2") as held:
        unruly.does(CUT_BEFORE)
        with pytest.raises(Unreachable) as refused:
            await held.settle(amount="0.30", **SAID)
        assert refused.value.event_keys == (f"hold:{held.id}",)
        unruly.behaves()
        assert (await held.settle(amount="0.30", **SAID)).state == "settled"
    assert house.amounts(actor) == [D("0.30")]


async def test_a_hold_that_was_denied_unheard_is_no_lost_money(house: House, unruly: Unruly, actor: str) -> None:
    """Without a spool its release is tried and forgotten at the end; closing has nothing to tell."""
    unruly.does(CUT_BEFORE)
    async with AsyncClient(unruly.url, house.key, **QUICK) as client:
        with pytest.raises(Denied):
            async with client.hold(actor, amount="2"):
                pass
        waits = client.spooled()
    assert (waits.calls, waits.exposure) == (1, D(0))
