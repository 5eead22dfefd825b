"""CloudEvents 1.0, made by the official SDK, in the three modes of the HTTP binding."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.ledger import amounts, count

AT = datetime(2026, 6, 20, 11, tzinfo=UTC)


def event(id_: str = "1", amount: str = "1.25", **attributes: Any) -> CloudEvent:
    said = {
        "id": id_,
        "source": "/runs/9",
        "type": "meterbook.usage",
        "specversion": "1.0",
        "subject": "ada",
        "time": AT,
    }
    said |= {"datacontenttype": "application/json", **attributes}
    return CloudEvent(said, {"source": "workflow", "description": "gpt-4o", "amount": amount})


def batch(*events: CloudEvent) -> bytes:
    return b"[" + b",".join(to_structured_event(each).body for each in events) + b"]"


BATCHED = {"Content-Type": "application/cloudevents-batch+json"}


async def test_the_three_modes_are_one_event(recorder: httpx.AsyncClient, database_url: str) -> None:
    """Structured, binary and batched: the same source and id are the same intent, charged once, at the event's time for its subject."""
    structured, binary = to_structured_event(event()), to_binary_event(event())
    answers = [
        await recorder.post("/v1/events", content=structured.body, headers=structured.headers),
        await recorder.post("/v1/events", content=binary.body, headers=binary.headers),
        await recorder.post("/v1/events", content=batch(event()), headers=BATCHED),
    ]
    assert [(each.status_code, each.json()["inserted"], each.json()["replayed"]) for each in answers] == [
        (200, 1, 0),
        (200, 0, 1),
        (200, 0, 1),
    ]
    assert amounts(database_url) == [Decimal("1.25")]


async def test_ids_of_other_sources_are_other_events(recorder: httpx.AsyncClient, database_url: str) -> None:
    """`a` of `b/c` is not `c/a` of `b`: source and id are told apart whatever they contain."""
    told = batch(event("x", source="a/b"), event("b/x", source="a"), event('","x', source="a"))
    assert (await recorder.post("/v1/events", content=told, headers=BATCHED)).json()["inserted"] == 3
    assert count(database_url) == 3


async def test_attributes_in_headers_are_percent_encoded(
    recorder: httpx.AsyncClient, reader: httpx.AsyncClient
) -> None:
    """The binding encodes what is no plain ASCII; the actor is who was meant."""
    told = to_binary_event(event(subject="Zoë 100%"))
    assert (await recorder.post("/v1/events", content=told.body, headers=told.headers)).status_code == 200
    usage = await reader.get("/v1/usage", params={"entity": "user:Zoë 100%"})
    assert usage.json()["total"] == "1.25"


@pytest.mark.parametrize(
    ("wrong", "field", "code"),
    [
        ({"type": "com.other"}, "type", "unknown_event_type"),
        ({"specversion": "0.3"}, "specversion", "invalid_event"),
        ({"id": ""}, "id", "missing"),
        ({"source": None}, "source", "missing"),
        ({"datacontenttype": "text/xml"}, "datacontenttype", "invalid_event"),
        ({"data": "text"}, "data", "invalid_event"),
        ({"data": {"amount": 1}}, "amount", "invalid_amount"),
        ({"data": {"event_key": "mine"}}, "data.event_key", "invalid_event"),
        ({"data_base64": "!!"}, "data_base64", "invalid_event"),
        ({"time": "yesterday"}, "occurred_at", "invalid_time"),
        ({"id": "x" * 600}, "id", "too_long"),
    ],
)
async def test_an_event_that_is_none_of_ours_is_refused(
    recorder: httpx.AsyncClient, wrong: dict[str, Any], field: str, code: str, database_url: str
) -> None:
    """With its place in the batch, the attribute and why; the sound one beside it is not recorded either."""
    sound = json.loads(to_structured_event(event("sound")).body)
    bad = {**sound, "id": "bad", **wrong}
    refused = await recorder.post("/v1/events", content=json.dumps([sound, bad]), headers=BATCHED)
    assert refused.status_code == 422
    assert [(each["index"], each["field"], each["code"]) for each in refused.json()["problems"]] == [(1, field, code)]
    assert count(database_url) == 0
    partly = await recorder.post("/v1/events?partial=true", content=json.dumps([sound, bad]), headers=BATCHED)
    assert [each["outcome"] for each in partly.json()["results"]] == ["inserted", "refused"]


async def test_data_may_be_base64_and_extensions_are_let_be(recorder: httpx.AsyncClient, database_url: str) -> None:
    """What the specification allows beside what we read."""
    said = json.loads(to_structured_event(event(traceparent="00-1")).body)
    del said["data"]
    said["data_base64"] = "eyJzb3VyY2UiOiJ3IiwiZGVzY3JpcHRpb24iOiJkIiwiYW1vdW50IjoiMiJ9"
    told = await recorder.post(
        "/v1/events", content=json.dumps(said), headers={"Content-Type": "application/cloudevents+json"}
    )
    assert told.status_code == 200
    assert amounts(database_url) == [Decimal(2)]


async def test_a_body_without_a_mode_is_refused(recorder: httpx.AsyncClient) -> None:
    """Neither a CloudEvents content type nor ce- headers: 415."""
    assert (await recorder.post("/v1/events", json={})).status_code == 415
