"""Recording through the client: what is acknowledged is in the ledger, each entry once, whatever happens on the way."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from meterbook.client import AsyncClient, Client
from meterbook.errors import (
    CorrectionRefused,
    InvalidKey,
    InvalidUsage,
    KeyConflict,
    ScopeMissing,
    ServerRefused,
    UnknownEntity,
    UnknownEntry,
    UnknownPeriod,
)
from tests.client.conftest import ON_ONE_SERVER, House
from tests.client.unruly import CUT_AFTER, CUT_BEFORE, HALF, Instead, Unruly, answer, problem

pytestmark = ON_ONE_SERVER
D = Decimal
SAID: dict[str, Any] = {"source": "workflow", "description": "gpt-4o"}


async def test_an_entry_is_recorded_and_told(house: House, actor: str) -> None:
    """The receipt has what the ledger says of it, and the key that was made."""
    async with AsyncClient(house.url, house.key) as client:
        receipt = await client.record(actor, amount="0.0123", **SAID)
        again = await client.record(actor, amount="0.01230", event_key=receipt.event_keys[0], **SAID)
    assert (receipt.state, receipt.inserted, receipt.replayed, receipt.amount) == ("recorded", 1, 0, D("0.0123"))
    assert (again.inserted, again.replayed, again.amount) == (0, 1, D(0))
    assert again.entries[0].id == receipt.entries[0].id
    assert receipt.entries[0].entity == f"user:{actor}"
    assert house.amounts(actor) == [D("0.0123")]


def test_the_synchronous_client_does_the_same(house: House, actor: str) -> None:
    """Generated from the asynchronous one."""
    with Client(house.url, house.key) as client:
        receipt = client.record(actor, amount="0.0123", **SAID)
        many = client.record_many([{"actor": actor, "amount": "1", **SAID}, {"actor": actor, "amount": "2", **SAID}])
        client.enqueue(actor, amount="3", **SAID)
        left = client.flush()
    assert (receipt.state, many.inserted, left.calls) == ("recorded", 2, 0)
    assert house.amounts(actor) == [D("0.0123"), 1, 2, 3]


FAULTS = {
    "cut before": CUT_BEFORE,
    "cut after": CUT_AFTER,
    "half an answer": HALF,
    "a proxy's 502": Instead(says=answer(502, b"<html>bad gateway</html>")),
    "another's 200": Instead(says=answer(200, b"<html>welcome to the hotel</html>")),
    "less than an answer": Instead(says=answer(200, b'{"inserted": 1}', b"application/json")),
    "another's 404": Instead(says=answer(404, b"not here")),
    "500 after it was stored": Instead(forwards=True, says=answer(500, b"")),
    "too many requests": Instead(says=answer(429, b"", Retry_After="0")),
    "full": Instead(says=problem(503, "overloaded", Retry_After="0")),
    "a fault after it was stored": Instead(forwards=True, says=problem(500, "internal_error", retryable=False)),
    "in progress": Instead(says=problem(503, "in_progress")),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_a_try_that_fails_is_repeated_with_its_key(
    house: House, unruly: Unruly, actor: str, fault: Instead
) -> None:
    """Cut before or after the server stored it, answered by a proxy or with a fault: recorded once, and acknowledged."""
    unruly.decide = lambda asked: fault if asked.number <= 2 else None
    async with AsyncClient(unruly.url, house.key) as client:
        receipt = await client.record(actor, amount="0.50", **SAID)
    assert receipt.is_recorded
    assert receipt.inserted + receipt.replayed == 1
    assert len({asked.body for asked in unruly.asked}) == 1
    assert house.amounts(actor) == [D("0.50")]


@pytest.mark.parametrize("amount", ["0.1234567890123", "-1", "NaN", 0.1, True, "1_000"])
async def test_what_is_no_usage_is_refused_before_it_is_sent(
    house: House, unruly: Unruly, actor: str, amount: str
) -> None:
    """As the library does; nothing goes over the wire."""
    async with AsyncClient(unruly.url, house.key) as client:
        with pytest.raises(InvalidUsage):
            await client.record(actor, amount=amount, **SAID)
        with pytest.raises(InvalidUsage):
            await client.record_many(
                [{"actor": actor, "amount": "1", **SAID}, {"actor": actor, "amount": amount, **SAID}]
            )
        with pytest.raises(InvalidUsage):
            await client.enqueue(actor, amount=amount, **SAID)
        with pytest.raises(InvalidUsage):
            await client.record_cumulative(actor, request="r", total=amount, **SAID)
    assert unruly.asked == []


async def test_refusals_are_the_librarys_errors(house: House, actor: str) -> None:
    """By the server's codes, with their facts; not retried."""
    async with AsyncClient(house.url, house.served.keys["admin"]) as client:
        first = await client.record(actor, amount="1", event_key=f"{actor}:1", **SAID)
        with pytest.raises(KeyConflict) as conflict:
            await client.record(actor, amount="2", event_key=f"{actor}:1", **SAID)
        with pytest.raises(InvalidUsage) as invalid:
            await client.record(actor, amount="1", workspace="nowhere", **SAID)
        with pytest.raises(CorrectionRefused):
            await client.correct(first.entries[0].id, amount="-2", reason="too much")
        with pytest.raises(UnknownEntry):
            await client.correct("8a15603f-587e-a0c3-f4f7-66e80b6e826f", amount="-2", reason="too much")
        with pytest.raises(UnknownPeriod):
            await client.usage(f"user:{actor}", 4711)
        with pytest.raises(UnknownEntity):
            await client.usage("organization:nobody")
    assert conflict.value.conflicts[0].first["amount"] == D(1)
    assert conflict.value.conflicts[0].now["amount"] == D(2)
    assert invalid.value.problems[0].code == "unknown_workspace"
    async with AsyncClient(house.url, "mb_nonsense") as client:
        with pytest.raises(InvalidKey):
            await client.record(actor, amount="1", **SAID)
    async with AsyncClient(house.url, house.key) as client:
        with pytest.raises(ScopeMissing):
            await client.usage(f"user:{actor}")
    assert house.amounts(actor) == [D(1)]


async def test_an_unknown_refusal_keeps_its_code(house: House, unruly: Unruly, actor: str) -> None:
    """A newer server refuses in a way that this client does not know: told, not retried."""
    unruly.does(Instead(says=problem(422, "never_heard_of", retryable=False)))
    async with AsyncClient(unruly.url, house.key) as client:
        with pytest.raises(ServerRefused) as refused:
            await client.record(actor, amount="1", **SAID)
    assert (refused.value.code, refused.value.retryable, len(unruly.asked)) == ("never_heard_of", False, 1)


async def test_many_are_all_or_nothing(house: House, actor: str) -> None:
    """One conflict refuses the call; an empty call is none."""
    async with AsyncClient(house.url, house.key) as client:
        await client.record(actor, amount="1", event_key=f"{actor}:1", **SAID)
        with pytest.raises(KeyConflict):
            await client.record_many(
                [
                    {"actor": actor, "amount": "5", **SAID},
                    {"actor": actor, "amount": "2", "event_key": f"{actor}:1", **SAID},
                ]
            )
        assert (await client.record_many([])).entries == ()
    assert house.amounts(actor) == [D(1)]


async def test_an_identity_is_a_key_too(house: House, actor: str) -> None:
    """With an execution or a source reference the ledger makes the key, and no other is made here."""
    async with AsyncClient(house.url, house.key) as client:
        first = await client.record(actor, amount="1", execution=f"run {actor}", **SAID)
        second = await client.record(actor, amount="1", execution=f"run {actor}", **SAID)
    assert (first.event_keys, first.inserted, second.replayed) == ((None,), 1, 1)


async def test_running_totals_and_corrections(house: House, actor: str) -> None:
    """The rise is recorded; a correction takes back."""
    async with AsyncClient(house.url, house.served.keys["admin"]) as client:
        await client.record_cumulative(actor, request=actor, total="0.40", **SAID)
        risen = await client.record_cumulative(actor, request=actor, total="0.70", **SAID)
        fallen = await client.record_cumulative(actor, request=actor, total="0.60", **SAID)
        corrected = await client.correct(risen.entries[0].id, amount="-0.10", reason="mistake")
        payer = await client.resolve(actor)
        given = await client.record(actor, amount="1", attribution=payer, **SAID)
    assert (risen.amount, fallen.amount, corrected.amount) == (D("0.30"), D(0), D("-0.10"))
    assert (payer.entity, given.inserted) == (f"user:{actor}", 1)
    assert sum(house.amounts(actor)) == D("1.60")


async def test_reading(house: House, actor: str) -> None:
    """Figures, entries by pages, periods: as the ledger has them, in Decimal and aware times."""
    at = datetime(2026, 5, 1, 12, tzinfo=UTC)
    async with AsyncClient(house.url, house.served.keys["admin"]) as client:
        for number in range(3):
            await client.record(
                actor, amount=f"1.{number}", occurred_at=at, metadata={"tokens": number, "raw": {"x": 1.5}}, **SAID
            )
        usage = await client.usage(f"user:{actor}")
        page = await client.entries(f"user:{actor}", limit=2, start=at)
        rest = await client.entries(f"user:{actor}", limit=2, start=at, cursor=page.next_cursor, summary=False)
        (period,) = await client.periods(f"user:{actor}")
    assert (usage.total, usage.limit, usage.status, usage.count) == (D("3.3"), D(5), "ok", 3)
    assert usage.by_actor == {actor: D("3.3")}
    assert usage.by_description == {("workflow", "gpt-4o"): D("3.3")}
    assert usage.period == period
    assert page.summary is not None
    assert (page.summary.count, page.summary.amount, rest.summary) == (3, D("3.3"), None)
    assert [entry.amount for entry in (*page.entries, *rest.entries)] == [D("1.2"), D("1.1"), D("1.0")]
    assert page.entries[0].occurred_at == at
    assert page.entries[0].metadata == {"tokens": 2, "raw": {"x": 1.5}}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("usage", {"entity": "user:\ud800"}),
        ("periods", {"entity": ""}),
        ("entries", {"entity": "user:ada", "actor": "\ud800"}),
        ("entries", {"entity": "user:ada", "start": datetime(2026, 5, 1)}),  # noqa: DTZ001  that is the point
        ("resolve", {"actor": "\ud800"}),
        ("resolve", {"actor": 7}),
    ],
)
def test_what_cant_be_asked_for_is_told_before_it_is_sent(
    house: House, unruly: Unruly, name: str, said: dict[str, Any]
) -> None:
    """A time without a zone would be another one on each machine, and half a character is no text."""
    with Client(unruly.url, house.served.keys["admin"]) as client, pytest.raises(InvalidUsage):
        getattr(client, name)(**said)
    assert unruly.asked == []
