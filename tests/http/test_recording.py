"""Recording over HTTP: exactly once, all or nothing, every bad entry named, no float on the way."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest

from meterbook.core.entries import Usage
from meterbook.http.wire import EntryIn
from tests.http.conftest import Making, Service, entry
from tests.ledger import amounts, count

NDJSON = {"Content-Type": "application/x-ndjson"}


def test_the_wire_entry_is_the_librarys(root: object) -> None:
    """The same fields, in the same order, with the same defaults: nothing is lost or swapped on the way in."""
    assert EntryIn.__struct_fields__ == Usage._fields
    made = EntryIn("ada", "workflow", "gpt-4o", "1").usage()
    assert made == Usage("ada", "workflow", "gpt-4o", "1")
    assert root


async def test_one_entry_is_recorded_once(recorder: httpx.AsyncClient, database_url: str) -> None:
    """The first POST inserts, the same again replays, and both say the same id and amount."""
    first = await recorder.post("/v1/entries", json=entry(amount="0.0123"))
    again = await recorder.post("/v1/entries", json=entry(amount="0.01230"))
    assert (first.status_code, again.status_code) == (200, 200)
    assert [(each.json()["inserted"], each.json()["replayed"]) for each in (first, again)] == [(1, 0), (0, 1)]
    assert first.json()["entries"][0]["id"] == again.json()["entries"][0]["id"]
    assert first.json()["amount"] == "0.0123"
    assert amounts(database_url) == [Decimal("0.0123")]


async def test_another_content_of_a_key_is_a_conflict(recorder: httpx.AsyncClient, database_url: str) -> None:
    """409 with both versions, not retryable; nothing is written."""
    await recorder.post("/v1/entries", json=entry(amount="1"))
    refused = await recorder.post("/v1/entries", json=entry(amount="2"))
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["retryable"]) == (409, "key_conflict", False)
    assert refused.headers["content-type"] == "application/problem+json"
    assert [(each["first"]["amount"], each["now"]["amount"]) for each in problem["conflicts"]] == [("1.00", "2.00")]
    assert amounts(database_url) == [Decimal(1)]


NUMBERS: list[Any] = [0.1, 1, 1e400, True, None, [], {}]
TEXTS = ["NaN", "Infinity", "1e3", "1_000", " 1", "1 ", "1\n", "+1", "-1", ".5", "5.", "", "١", "0x1", "1,0", "-0"]


@pytest.mark.parametrize("amount", [*NUMBERS, *TEXTS, "1" * 13, "0." + "1" * 13])
async def test_what_is_no_plain_amount_is_refused(recorder: httpx.AsyncClient, amount: Any, database_url: str) -> None:
    """A JSON number, a sign, an exponent, other digits, a thirteenth place: 422 that names the field, and no row."""
    body = json.dumps(entry(), allow_nan=True).replace('"1.50"', json.dumps(amount))
    refused = await recorder.post("/v1/entries", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code in ((400, 422) if amount == 1e400 else (422,))
    if refused.status_code == 422:
        assert [(each["field"], each["code"]) for each in refused.json()["problems"]] == [("amount", "invalid_amount")]
    assert count(database_url) == 0


@pytest.mark.parametrize("as_lines", [False, True])
async def test_a_batch_is_all_or_nothing_and_names_every_bad_entry(
    recorder: httpx.AsyncClient, database_url: str, *, as_lines: bool
) -> None:
    """Bad types, unknown fields, missing ones and bad amounts: each by its place and field, and nothing is written."""
    said: list[Any] = [
        entry("a"),
        entry("b", amount="x"),
        {"actor": "ada"},
        entry("c", colour="red"),
        entry("d"),
        7,
        entry("e", occurred_at="2026-06-20T12:00:00"),
    ]
    refused = await recorder.post("/v1/entries/batch", **sent(said, as_lines=as_lines))
    assert refused.status_code == 422
    named = [(each["index"], each["field"], each["code"]) for each in refused.json()["problems"]]
    assert named == [
        (1, "amount", "invalid_amount"),
        (2, "source", "missing"),
        (3, "colour", "unknown_field"),
        (5, "entry", "invalid_entry"),
        (6, "occurred_at", "invalid_time"),
    ]
    assert count(database_url) == 0


def sent(said: list[Any], *, as_lines: bool) -> dict[str, Any]:
    if not as_lines:
        return {"json": said}
    return {"content": "\n".join(json.dumps(each) for each in said), "headers": NDJSON}


@pytest.mark.parametrize("as_lines", [False, True])
async def test_a_partial_batch_says_what_became_of_each(
    recorder: httpx.AsyncClient, database_url: str, *, as_lines: bool
) -> None:
    """inserted, replayed, conflict with both versions, refused with the problem, nothing for 0: in the order of the body."""
    await recorder.post("/v1/entries", json=entry("old", amount="1"))
    said = [
        entry("new", amount="2"),
        entry("old", amount="1"),
        entry("old", amount="9"),
        entry("bad", amount="-1"),
        entry("zero", amount="0"),
        entry("lost", workspace="nowhere"),
        entry("last", amount="3"),
    ]
    answer = await recorder.post("/v1/entries/batch?partial=true", **sent(said, as_lines=as_lines))
    became = answer.json()
    assert answer.status_code == 200
    outcomes = ["inserted", "replayed", "conflict", "refused", "nothing", "refused", "inserted"]
    assert [each["outcome"] for each in became["results"]] == outcomes
    assert [each["index"] for each in became["results"]] == list(range(7))
    counts = {name: became[name] for name in ("inserted", "replayed", "conflict", "refused", "nothing")}
    assert counts == {"inserted": 2, "replayed": 1, "conflict": 1, "refused": 2, "nothing": 1}
    assert became["results"][2]["conflict"]["first"]["amount"] == "1.00"
    assert became["results"][5]["problem"]["code"] == "unknown_workspace"
    assert sorted(amounts(database_url)) == [Decimal(1), Decimal(2), Decimal(3)]


async def test_a_partial_batch_sent_again_charges_nothing_again(recorder: httpx.AsyncClient, database_url: str) -> None:
    """All its sound entries are replayed; entries that can't be told apart are refused both times."""
    alike: dict[str, Any] = {"key": None, "execution": "e1"}
    said = [entry("a"), entry(**alike), entry(**alike), entry("b")]
    first = (await recorder.post("/v1/entries/batch?partial=true", json=said)).json()
    second = (await recorder.post("/v1/entries/batch?partial=true", json=said)).json()
    assert [each["outcome"] for each in first["results"]] == ["inserted", "refused", "refused", "inserted"]
    assert [each["outcome"] for each in second["results"]] == ["replayed", "refused", "refused", "replayed"]
    assert first["results"][1]["problem"]["code"] == "ambiguous_identity"
    assert count(database_url) == 2


@pytest.mark.parametrize("piece", [1, 7, 100, 100_000])
async def test_lines_may_arrive_in_pieces_of_any_size(
    recorder: httpx.AsyncClient, piece: int, database_url: str
) -> None:
    """A piece may end in the middle of a line or of a character; empty lines and a last line without an end are fine."""
    lines = [json.dumps(entry(f"k{n}", description="größer", amount="0.01"), ensure_ascii=False) for n in range(40)]
    body = "\n\n".join(lines).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    answer = await recorder.post("/v1/entries/batch", content=pieces(), headers=NDJSON)
    assert (answer.status_code, answer.json()["inserted"], answer.json()["amount"]) == (200, 40, "0.40")
    assert count(database_url) == 40


async def test_more_than_a_group_lands_whole(recorder: httpx.AsyncClient, database_url: str) -> None:
    """2 500 entries in one batch: all or nothing also beyond the size of a group commit, and partially as well."""
    said = [entry(f"k{n}", amount="0.001") for n in range(2500)]
    assert (await recorder.post("/v1/entries/batch", json=said)).json()["amount"] == "2.50"
    again = (await recorder.post("/v1/entries/batch?partial=true", json=said)).json()
    assert (again["inserted"], again["replayed"], len(again["results"])) == (0, 2500, 2500)
    assert count(database_url) == 2500


@pytest.mark.parametrize("as_lines", [False, True])
async def test_a_batch_has_a_size(serve: Making, database_url: str, *, as_lines: bool) -> None:
    """One entry too many is 413 and writes nothing, announced or not."""
    service = serve(entries_per_request_max=3)
    recorder = await service.with_scope("record")
    said = [entry(f"k{n}") for n in range(4)]
    assert (await recorder.post("/v1/entries/batch", **sent(said, as_lines=as_lines))).status_code == 413
    assert count(database_url) == 0
    assert (await recorder.post("/v1/entries/batch", **sent(said[:3], as_lines=as_lines))).status_code == 200


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "bad_body"),
        (b'{"actor":"\xff"}', "application/json", 400, "bad_body"),
        (b"[" * 100_000, "application/json", 422, "invalid_usage"),
        (b'{"metadata":{"a":' + b"[" * 100_000, "application/json", 400, "bad_body"),
        (b"[]", "application/json", 422, "invalid_usage"),
        (b"actor=ada", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
    ],
)
async def test_a_body_that_is_none_is_refused(
    recorder: httpx.AsyncClient, body: bytes, kind: str, status: int, code: str
) -> None:
    """Broken, too deep, of another kind: 400, 415 or 422 as a problem, never a fault."""
    refused = await recorder.post("/v1/entries", content=body, headers={"Content-Type": kind})
    assert (refused.status_code, refused.json()["code"]) == (status, code)


async def test_a_parameter_that_is_misspelt_is_refused(recorder: httpx.AsyncClient, database_url: str) -> None:
    """`parital=true` would be all or nothing without a word otherwise."""
    refused = await recorder.post("/v1/entries/batch?parital=true", json=[entry()])
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_query")
    assert count(database_url) == 0


async def test_a_running_total_records_its_rise(recorder: httpx.AsyncClient, database_url: str) -> None:
    """Totals in any order: the maximum counts, once."""
    said = {"actor": "ada", "request": "r1", "source": "copilot", "description": "gpt-4o"}
    answers = [await recorder.post("/v1/cumulative", json={**said, "total": total}) for total in ("1", "3", "2")]
    assert [each.json()["amount"] for each in answers] == ["1.00", "2.00", "0.00"]
    assert sum(amounts(database_url)) == Decimal(3)


async def test_a_correction_is_noted_and_points_at_its_entry(service: Service, admin: httpx.AsyncClient) -> None:
    """Takes back by a negative amount, below zero is 409, an unknown entry 404; each is in the audit log with its outcome."""
    recorded = (await admin.post("/v1/entries", json=entry(amount="1"))).json()["entries"][0]["id"]
    said = {"entry": recorded, "reason": "refund", "event_key": "fix"}
    done = await admin.post("/v1/corrections", json={**said, "amount": "-0.25"})
    below = await admin.post("/v1/corrections", json={**said, "amount": "-9", "event_key": "fix2"})
    unknown = await admin.post("/v1/corrections", json={**said, "entry": "nope", "amount": "-1", "event_key": "fix3"})
    assert [each.status_code for each in (done, below, unknown)] == [200, 409, 404]
    assert done.json()["amount"] == "-0.25"
    acts = [(act.act, act.outcome, act.code) for act in await service.book.acts()]
    assert acts == [
        ("correct", "refused", "unknown_entry"),
        ("correct", "refused", "correction_refused"),
        ("correct", "done", None),
    ]


async def test_an_attribution_token_travels(recorder: httpx.AsyncClient) -> None:
    """Resolved over HTTP, given when recording over HTTP."""
    resolved = (await recorder.post("/v1/attributions", json={"actor": "ada"})).json()
    recorded = await recorder.post("/v1/entries", json=entry(attribution=resolved["token"]))
    assert (recorded.status_code, recorded.json()["entries"][0]["entity"]) == (200, resolved["entity"])


async def test_answers_are_what_the_wire_types_say(recorder: httpx.AsyncClient) -> None:
    """Amounts are strings, also in the answer."""
    answer = await recorder.post("/v1/entries", json=entry(amount="100"))
    assert msgspec.json.decode(answer.content)["entries"][0]["amount"] == "100.00"
