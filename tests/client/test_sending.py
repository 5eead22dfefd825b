"""What is sent later: in order, in batches, once; what is refused or can't be taken now holds up nothing else."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from meterbook.client import AsyncClient, Client, Refusal, Spooled
from meterbook.client.calls import Call
from meterbook.client.pauses import Pauses
from meterbook.client.queues import Bounds
from meterbook.client.spool import Spool
from meterbook.errors import ClientClosed, EntriesRefused, InvalidRequest, Overloaded, SpoolFull, Undelivered
from tests.client.conftest import ON_ONE_SERVER, House, until
from tests.client.unruly import CUT_AFTER, CUT_BEFORE, SLOW, Asked, Instead, Unruly, answer, problem
from tests.ledger import query

pytestmark = ON_ONE_SERVER
D = Decimal
SAID: dict[str, Any] = {"source": "workflow", "description": "gpt-4o"}
GONE = Instead(says=answer(503, b"nobody is home"))
QUICK: dict[str, Any] = {"deadline_s": 0.2, "check_deadline_s": 0.2, "close_s": 0.2}
MIXED: dict[str, Any] = QUICK | {"deadline_s": 1.0, "check_deadline_s": 1.0, "timeout_s": 1.0}
"""Where a call that follows is to be answered, on a slow machine too."""


def batches(unruly: Unruly) -> list[list[dict[str, Any]]]:
    """Bodies of what was sent together."""
    return [json.loads(asked.body) for asked in unruly.asked if "/batch" in asked.line]


def test_what_cant_be_sent_is_spooled_and_sent_in_order(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """Told apart from what is recorded; its money is shown while it waits; recorded once the server is back, at its own time."""
    unruly.does(GONE)
    before = datetime.now(UTC)
    with Client(unruly.url, house.key, spool=tmp_path, **QUICK) as client:
        receipts = [client.record(actor, amount=f"0.{number}", **SAID) for number in range(1, 6)]
        waits = client.spooled()
        after = datetime.now(UTC)
        assert house.amounts(actor) == []
        unruly.asked.clear()
        unruly.behaves()
        left = client.flush()
    assert {receipt.state for receipt in receipts} == {"spooled"}
    assert (receipts[0].inserted, receipts[0].amount, receipts[0].entries) == (0, D(0), ())
    assert (waits.calls, waits.entries, waits.exposure, waits.by_actor) == (5, 5, D("1.5"), {actor: D("1.5")})
    assert waits.oldest is not None
    assert before <= waits.oldest <= after
    assert waits.trouble is not None
    assert waits.trouble.startswith(("unexpected_answer: ", "unreachable: "))
    assert (left.calls, left.exposure, left.trouble) == (0, D(0), None)
    sent = [body["amount"] for batch in batches(unruly) for body in batch]
    assert sent == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert sum(house.amounts(actor)) == D("1.5")
    times = query(
        house.database_url,
        "select l.occurred_at from meterbook.usage_log l join meterbook.actor a on a.id = l.actor_id where a.external_id = %s",
        actor,
    )
    assert all(before <= at <= after for (at,) in times)


async def test_a_restart_goes_on_where_it_was(house: House, unruly: Unruly, actor: str, tmp_path: Path) -> None:
    """What one client leaves, the next one of the folder sends; closing says what is left."""
    unruly.does(GONE)
    client = AsyncClient(unruly.url, house.key, spool=tmp_path, **QUICK)
    await client.open()
    await client.record(actor, amount="1", **SAID)
    await client.record_many([{"actor": actor, "amount": "2", **SAID}, {"actor": actor, "amount": "3", **SAID}])
    await client.record_cumulative(actor, request=actor, total="4", **SAID)
    left = await client.close()
    unruly.behaves()
    async with AsyncClient(unruly.url, house.key, spool=tmp_path) as client:
        again = await client.flush()
    assert (left.calls, left.entries, left.exposure) == (3, 4, D(10))
    assert again.calls == 0
    assert sorted(house.amounts(actor)) == [1, 2, 3, 4]


@pytest.mark.parametrize("spooled", [True, False])
async def test_enqueued_entries_go_together(
    house: House, unruly: Unruly, actor: str, tmp_path: Path, spooled: bool
) -> None:
    """Gathered into batches, from disk or from memory; each is there once, also when answers are lost."""
    unruly.decide = lambda asked: CUT_AFTER if asked.number % 2 else None
    folder = tmp_path if spooled else None
    async with AsyncClient(unruly.url, house.key, spool=folder, batch_entries_max=40) as client:
        receipts = await asyncio.gather(*(client.enqueue(actor, amount="0.01", **SAID) for _ in range(100)))
        left = await client.flush()
    assert {receipt.state for receipt in receipts} == {"spooled" if spooled else "queued"}
    assert left.calls == 0
    assert house.amounts(actor) == [D("0.01")] * 100
    assert 3 <= len(batches(unruly)) <= 20
    assert max(map(len, batches(unruly))) <= 40


@pytest.mark.parametrize("spooled", [True, False])
def test_a_bad_entry_refuses_no_other(house: House, actor: str, tmp_path: Path, spooled: bool) -> None:
    """A conflict and an unknown workspace among sound ones: those are told with their reasons, the others recorded."""
    told: list[Refusal] = []
    with Client(house.url, house.key, spool=tmp_path if spooled else None, on_refused=told.append) as client:
        client.record(actor, amount="1", event_key=f"{actor}:1", **SAID)
        client.enqueue(actor, amount="2", **SAID)
        client.enqueue(actor, amount="3", event_key=f"{actor}:1", **SAID)
        client.enqueue(actor, amount="4", workspace="nowhere", **SAID)
        client.enqueue(actor, amount="5", **SAID)
        left = client.flush()
    assert sorted(house.amounts(actor)) == [1, 2, 5]
    assert [each.code for each in told] == ["key_conflict", "unknown_workspace"]
    assert told[1].body["amount"] == "4"
    assert "workspace" in told[1].message
    assert (left.calls, left.refused) == (0, 2 if spooled else 0)


@pytest.mark.parametrize("spooled", [True, False])
async def test_refusals_nobody_listens_for_are_raised(house: House, actor: str, tmp_path: Path, spooled: bool) -> None:
    """By `flush` and by `close`, once each; a spool keeps them."""
    client = AsyncClient(house.url, house.key, spool=tmp_path if spooled else None)
    await client.open()
    await client.enqueue(actor, amount="4", workspace="nowhere", **SAID)
    with pytest.raises(EntriesRefused) as refused:
        await client.flush()
    assert [each.code for each in refused.value.refusals] == ["unknown_workspace"]
    assert (await client.flush()).refused == (1 if spooled else 0)
    await client.enqueue(actor, amount="5", workspace="nowhere", **SAID)
    with pytest.raises(EntriesRefused):
        await client.close()
    with pytest.raises(ClientClosed):
        await client.record(actor, amount="1", **SAID)


async def test_refused_calls_are_sent_again_when_somebody_mended_it(house: House, actor: str, tmp_path: Path) -> None:
    """The workspace is made known: the entry is recorded with its key and its time. Or they are given up by a decision."""
    async with AsyncClient(house.url, house.key, spool=tmp_path, on_refused=lambda _: None) as client:
        await client.enqueue(actor, amount="4", workspace=f"of {actor}", **SAID)
        await client.enqueue(actor, amount="5", workspace="nowhere", **SAID)
        await client.flush()
        async with httpx.AsyncClient(base_url=house.url, headers=house.served.headers("admin")) as admin:
            made = await admin.put("/v1/workspaces", json={"workspace": f"of {actor}"})
        assert made.status_code == 200
        assert len(client.refused()) == 2
        assert await client.resend_refused() == 2
        await client.flush()
        assert house.amounts(actor) == [4]
        assert [each.body["amount"] for each in client.refused()] == ["5"]
        assert await client.forget_refused() == 1
        assert client.spooled().refused == 0


def _one_is_stuck(asked: Asked) -> Instead | None:
    return Instead(says=problem(503, "attribution_unavailable")) if b'"stuck"' in asked.body else None


async def test_an_entry_that_cant_be_taken_now_holds_up_no_other(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """While the server takes others, it goes behind them, and is tried again; nothing is refused or lost."""
    unruly.decide = _one_is_stuck
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, deadline_s=0.1) as client:
        for number in range(1, 8):
            await client.enqueue(
                actor, amount=str(number), **{**SAID, "source": "stuck" if number in (1, 2, 5) else "ok"}
            )
        while client.spooled().calls > 3:  # noqa: ASYNC110  the sender works beside
            await asyncio.sleep(0.02)
        assert sorted(house.amounts(actor)) == [3, 4, 6, 7]
        assert client.spooled().exposure == 8
        unruly.behaves()
        assert (await client.flush()).calls == 0
    assert sorted(house.amounts(actor)) == [1, 2, 3, 4, 5, 6, 7]


async def test_who_comes_later_does_not_wait_for_what_is_stuck(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """However long the pause before the stuck one's next try is by now."""
    unruly.decide = _one_is_stuck
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, close_s=0.1) as client:
        assert client._opened is not None
        client._opened.sender._pauses = Pauses(first_s=1e6, longest_s=1e6)
        await client.enqueue(actor, amount="1", **{**SAID, "source": "stuck"})
        while len(unruly.asked) < 2:  # noqa: ASYNC110  the sender works beside
            await asyncio.sleep(0.02)
        await client.enqueue(actor, amount="2", **SAID)
        async with asyncio.timeout(20):
            while client.spooled().calls > 1:  # noqa: ASYNC110  the sender works beside
                await asyncio.sleep(0.02)
        assert house.amounts(actor) == [2]
        assert client.spooled().exposure == 1


async def test_a_server_that_fails_at_everything_changes_no_order(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """500 to everything: nothing moves, nothing is refused, and all is recorded in its order afterwards."""
    unruly.does(Instead(says=problem(500, "internal_error", retryable=False)))
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, deadline_s=0.1) as client:
        for number in range(1, 7):
            await client.enqueue(actor, amount=str(number), **SAID)
        while len(unruly.asked) < 8:  # noqa: ASYNC110  the sender works beside
            await asyncio.sleep(0.02)
        assert [entry.amount for entry in (await _waiting(client))] == ["1", "2", "3", "4", "5", "6"]
        unruly.behaves()
        left = await client.flush()
    assert (left.calls, left.refused) == (0, 0)
    assert sorted(house.amounts(actor)) == [1, 2, 3, 4, 5, 6]


class _Entry:
    def __init__(self, call: Call) -> None:
        self.amount = call.bodies[0]["amount"]


async def _waiting(client: AsyncClient) -> list[_Entry]:
    assert client._opened is not None
    return [_Entry(call) for call in client._opened.queue.peek(0, 100)]


@pytest.mark.parametrize("code", ["invalid_key", "scope_missing", "not_found"])
async def test_a_key_that_is_revoked_refuses_nothing_that_waits(
    house: House, unruly: Unruly, actor: str, tmp_path: Path, code: str
) -> None:
    """It is the client's trouble, not the entries': they wait until somebody has mended it."""
    status = {"invalid_key": 401, "scope_missing": 403, "not_found": 404}[code]
    unruly.does(Instead(says=problem(status, code, retryable=False)))
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, close_s=0.1) as client:
        await client.enqueue(actor, amount="1", **SAID)
        waits = await client.flush(0.3)
        assert (waits.calls, waits.refused) == (1, 0)
        assert waits.trouble is not None
        assert code in waits.trouble
        unruly.behaves()
        assert (await client.flush()).calls == 0
    assert house.amounts(actor) == [1]


async def _record_elsewhere(house: House, actor: str) -> str:
    async with AsyncClient(house.url, house.key) as client:
        return (await client.record(actor, amount="5", **SAID)).entries[0].id


async def test_what_this_key_may_not_do_holds_up_nothing_else(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """A correction needs another scope than usage: it waits for another key, and all that came after it is recorded."""
    unruly.does(GONE)
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, **QUICK) as client:
        recorded = await _record_elsewhere(house, actor)
        assert (await client.correct(recorded, amount="-1", reason="mistake")).state == "spooled"
        await client.record(actor, amount="2", **SAID)
        unruly.behaves()
        waits = await client.flush(2)
        assert (waits.calls, waits.exposure, waits.refused) == (1, D(-1), 0)
        assert house.amounts(actor) == [D(5), D(2)]
    async with AsyncClient(house.url, house.served.keys["admin"], spool=tmp_path) as mended:
        assert (await mended.flush()).calls == 0
    assert house.amounts(actor) == [D(5), D(2), D(-1)]


async def test_batches_that_are_too_large_are_halved(house: House, unruly: Unruly, actor: str, tmp_path: Path) -> None:
    """413 says nothing of the entries; one that is too large alone is refused."""

    def decide(asked: Asked) -> Instead | None:
        too_large = asked.body.count(b"actor") > 3 or b"huge" in asked.body
        return Instead(says=problem(413, "body_too_large", retryable=False)) if too_large else None

    unruly.decide = decide
    told: list[Refusal] = []
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, on_refused=told.append) as client:
        for number in range(10):
            await client.enqueue(actor, amount="1", **{**SAID, "description": "huge" if number == 4 else "small"})
        assert (await client.flush()).calls == 0
    assert len(house.amounts(actor)) == 9
    assert [each.code for each in told] == ["body_too_large"]


async def test_a_call_of_many_stays_all_or_nothing_on_its_way_through_the_spool(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """One bad entry refuses the call that it was said in, whole, and nothing beside it."""
    unruly.does(GONE)
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, on_refused=lambda _: None, **QUICK) as client:
        await client.record_many(
            [{"actor": actor, "amount": "1", **SAID}, {"actor": actor, "amount": "2", "workspace": "nowhere", **SAID}]
        )
        await client.record(actor, amount="3", **SAID)
        unruly.behaves()
        left = await client.flush()
        (refusal,) = client.refused()
    assert (left.calls, left.refused) == (0, 1)
    assert [body["amount"] for body in refusal.body] == ["1", "2"]
    assert house.amounts(actor) == [3]


async def test_an_identity_is_numbered_by_its_own_call(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """Entries without a key of their own are sent as they were said: joined with others they would be other entries."""
    unruly.does(GONE)
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, **QUICK) as client:
        for _ in range(2):
            await client.record(actor, amount="1", execution=f"run {actor}", **SAID)
        unruly.behaves()
        left = await client.flush()
    assert (left.calls, left.refused) == (0, 0)
    assert house.amounts(actor) == [1]


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=400)])
async def test_a_clock_that_is_ahead_refuses_nothing(
    house: House, unruly: Unruly, actor: str, tmp_path: Path, ahead: timedelta
) -> None:
    """A time that this machine stamped and the server says is still to come is left to the server; a caller's own is refused."""
    at = datetime.now(UTC) + ahead
    spool = Spool(tmp_path, Bounds(100, 100_000))
    bodies = [{"actor": actor, "amount": str(number), "event_key": f"{actor}:{number}", **SAID} for number in (1, 2, 3)]
    spool.append([Call("/v1/entries", bodies[0], at).stamped(), Call("/v1/entries/batch", bodies[1:2], at).stamped()])
    spool.append([Call("/v1/entries", {**bodies[2], "occurred_at": at.isoformat()}, at)])
    spool.close()
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, on_refused=lambda _: None) as client:
        left = await client.flush()
        refused = client.refused()
    assert left.calls == 0
    assert sorted(house.amounts(actor)) == [1, 2]
    assert [each.code for each in refused] == ["occurred_in_the_future"]


async def test_a_slow_server_is_away_after_the_timeout(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """The call is spooled, though the server has stored it; the second time is a replay, and it is there once."""
    unruly.decide = lambda asked: SLOW if asked.number == 1 else None
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, timeout_s=0.2, deadline_s=0.2) as client:
        receipt = await client.record(actor, amount="1", **SAID)
        assert receipt.state == "spooled"
        unruly.let_go()
        assert (await client.flush()).calls == 0
    assert house.amounts(actor) == [1]


async def test_while_the_server_is_away_callers_do_not_wait_for_it(
    house: House, unruly: Unruly, actor: str, tmp_path: Path
) -> None:
    """One finds out; those after it are spooled without a try of their own, and the sender asks for them."""
    unruly.does(GONE)
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, **MIXED) as client:
        await client.record(actor, amount="1", **SAID)
        singly = [asked for asked in unruly.asked if "/batch" not in asked.line]
        for _ in range(20):
            await client.record(actor, amount="1", **SAID)
        assert [asked for asked in unruly.asked if "/batch" not in asked.line] == singly
        unruly.behaves()
        await client.flush()
        assert (await client.record(actor, amount="1", **SAID)).is_recorded
    assert len(house.amounts(actor)) == 22


async def test_a_full_spool_is_told_and_drops_nothing(house: House, unruly: Unruly, actor: str, tmp_path: Path) -> None:
    """The caller decides; what was accepted before is recorded."""
    unruly.does(CUT_BEFORE)
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, waiting_entries_max=3, **MIXED) as client:
        for _ in range(3):
            await client.record(actor, amount="1", **SAID)
        with pytest.raises(SpoolFull) as full:
            await client.record(actor, amount="9", **SAID)
        with pytest.raises(SpoolFull):
            await client.enqueue(actor, amount="9", **SAID)
        assert full.value.retryable
        unruly.behaves()
        await client.flush()
        await client.record(actor, amount="2", **SAID)
    assert sorted(house.amounts(actor)) == [1, 1, 1, 2]


async def test_a_disk_that_takes_no_refusal_loses_none(house: House, actor: str, tmp_path: Path) -> None:
    """What can't be put aside stays in front, is told as trouble, and is put aside when the disk takes it."""
    async with AsyncClient(house.url, house.key, spool=tmp_path, on_refused=lambda _: None) as client:
        (tmp_path / "refused.ndjson").symlink_to("/dev/full")  # after the folder was read: it has no end
        await client.enqueue(actor, amount="1", workspace="nowhere", **SAID)
        waits = await client.flush(0.5)
        assert waits.calls == 1
        assert waits.trouble is not None
        assert waits.trouble.startswith("spool_full: ")
        (tmp_path / "refused.ndjson").unlink()
        assert (await client.flush()).calls == 0
        assert [each.code for each in client.refused()] == ["unknown_workspace"]


async def test_a_record_that_is_interrupted_is_kept(house: House, unruly: Unruly, actor: str, tmp_path: Path) -> None:
    """Whoever waited for it is gone, as when a request's client leaves, and the work was done: it is recorded, once."""
    unruly.does(CUT_AFTER)
    async with AsyncClient(unruly.url, house.key, spool=tmp_path, deadline_s=30) as client:
        recording = asyncio.create_task(client.record(actor, amount="1", **SAID))
        await until(lambda: len(unruly.asked) >= 2)
        recording.cancel()
        with pytest.raises(asyncio.CancelledError):
            await recording
        assert client.spooled().exposure == 1
        unruly.behaves()
        assert (await client.flush()).calls == 0
    assert house.amounts(actor) == [1]


def test_a_call_that_is_in_work_while_the_client_is_closed_is_told(house: House, unruly: Unruly, actor: str) -> None:
    """By the library's own error, whatever the transport says of a connection that was closed beneath it."""
    unruly.does(SLOW)
    client = Client(unruly.url, house.key, deadline_s=30, timeout_s=30)
    client.open()
    with ThreadPoolExecutor(1) as threads:
        recording = threads.submit(client.record, actor, amount="1", **SAID)
        while not unruly.asked:
            time.sleep(0.02)
        client.close()
        unruly.let_go()
        with pytest.raises(ClientClosed):
            recording.result(30)


def test_a_client_is_opened_once(house: House) -> None:
    """A second opening would leave what the first has in memory to nobody."""
    with Client(house.url, house.key) as client, pytest.raises(InvalidRequest, match="open already"):
        client.open()


async def test_memory_that_cant_be_sent_is_told_at_the_end(house: House, unruly: Unruly, actor: str) -> None:
    """Without a spool: full is told, and closing hands back what is lost otherwise, with its keys and money."""
    unruly.does(GONE)
    client = AsyncClient(unruly.url, house.key, waiting_entries_max=2, **QUICK)
    await client.open()
    await client.enqueue(actor, amount="1", **SAID)
    await client.enqueue(actor, amount="2", **SAID)
    with pytest.raises(Overloaded):
        await client.enqueue(actor, amount="3", **SAID)
    with pytest.raises(Undelivered) as lost:
        await client.close()
    assert (lost.value.left.calls, lost.value.left.exposure) == (2, D(3))
    assert [body["amount"] for body in lost.value.bodies] == ["1", "2"]
    assert all(body["event_key"] for body in lost.value.bodies)


def _raise(refusal: Refusal) -> None:
    raise RuntimeError(f"no more: {refusal.code}")


async def test_a_callback_that_raises_is_not_swallowed(house: House, actor: str, tmp_path: Path) -> None:
    """The next call of the client raises what it raised; what waits stays on disk."""
    client = AsyncClient(house.url, house.key, spool=tmp_path, on_refused=_raise)
    await client.open()
    await client.enqueue(actor, amount="1", workspace="nowhere", **SAID)
    with pytest.raises(RuntimeError, match="no more: unknown_workspace"):
        await client.flush()
    with pytest.raises(RuntimeError):
        await client.record(actor, amount="1", **SAID)
    with pytest.raises(RuntimeError):
        await client.close()
    async with AsyncClient(house.url, house.key, spool=tmp_path) as again:
        assert again.spooled().refused == 1


def test_threads_share_a_client(house: House, unruly: Unruly, actor: str, tmp_path: Path) -> None:
    """Some record, some enqueue, while every third request is cut: each entry is there once."""
    unruly.decide = lambda asked: CUT_AFTER if asked.number % 3 == 0 else None
    with Client(unruly.url, house.key, spool=tmp_path) as client:

        def work(call: Callable[..., object]) -> None:
            for _ in range(15):
                call(actor, amount="0.01", **SAID)

        threads = [threading.Thread(target=work, args=(call,)) for call in (client.record, client.enqueue) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left: Spooled = client.flush(20)
    assert left.calls == 0
    assert house.amounts(actor) == [D("0.01")] * 90
