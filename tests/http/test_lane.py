"""The short way to a route answers as the framework's way does, to the letter."""

from typing import Any, cast

import httpx
import pytest

from meterbook.http.edge import App, Edge
from meterbook.http.lane import Lane
from tests.http.conftest import BASE, Service, entry

JSON = {"Content-Type": "application/json"}
PER_REQUEST = {"x-request-id", "date"}


def lane_of(service: Service) -> Lane:
    return cast("Lane", service.app.app)


def by_the_framework(service: Service) -> httpx.AsyncClient:
    """The same door without a short way."""
    app = Edge(cast("App", lane_of(service).framework), service.door)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE)


def test_the_routes_that_record_check_and_hold_have_one(service: Service) -> None:
    """What is asked all the time is there; what reads, or takes a parameter, is not."""
    ways = lane_of(service).handlers.keys()
    hot = {"/v1/entries", "/v1/cumulative", "/v1/checks", "/v1/holds", "/v1/holds/settle", "/v1/holds/release"}
    assert {("POST", path) for path in hot} <= ways
    assert not {path for _, path in ways} & {
        "/v1/entries/batch",
        "/v1/events",
        "/v1/usage",
        "/readyz",
        "/webhooks/stripe",
    }


REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/entries", entry()),
    ("POST", "/v1/entries", entry(amount="2")),
    ("POST", "/v1/entries", entry() | {"amount": 0.1}),
    ("POST", "/v1/entries", {}),
    ("POST", "/v1/entries", b"{"),
    ("POST", "/v1/entries", b"\xff"),
    ("POST", "/v1/entries?partial=true", entry()),
    ("POST", "/v1/entries?", entry()),
    ("POST", "/v1/entries/", entry()),
    ("GET", "/v1/entries", None),
    ("PATCH", "/v1/entries", entry()),
    ("OPTIONS", "/v1/entries", None),
    ("HEAD", "/v1/checks", None),
    ("POST", "/v1/checks", {"actor": "ada"}),
    ("POST", "/v1/checks", {"actor": ""}),
    ("POST", "/v1/holds", {"actor": "ada", "amount": "1000000", "hold_id": "h1"}),
    ("POST", "/v1/holds/settle", {"hold": "nobody's"}),
    ("POST", "/v1/blocks", {"entity": "user:ada"}),
    ("PUT", "/v1/organizations", {"organization": "acme", "owner": "ada"}),
    ("POST", "/v1/nothing", {}),
]


@pytest.mark.parametrize("scope", ["record", "read", "admin", None])
async def test_both_ways_give_the_same_answers(service: Service, scope: str | None) -> None:
    """Status, headers and body of every kind of request, with every kind of key: only the request's id differs."""
    by_lane = await service.with_scope(scope) if scope else service.caller(None)
    async with by_the_framework(service) as by_framework:
        by_framework.headers = by_lane.headers
        for method, path, said in REQUESTS:
            body = {"content": said, "headers": JSON} if isinstance(said, bytes) else {"json": said}
            await by_framework.request(method, path, **body)  # so that both are replays, or refused as conflicts
            answers = [await each.request(method, path, **body) for each in (by_lane, by_framework)]
            assert shown(answers[0]) == shown(answers[1]), (method, path)


def shown(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    headers = {name: value for name, value in answer.headers.items() if name not in PER_REQUEST}
    return answer.status_code, headers, answer.text.replace(answer.headers["x-request-id"], "…")


async def test_a_fault_is_told_by_the_requests_id_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours is a 500 with no word of what it was, by this way too."""

    async def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(type(service.book), "check", break_down)
    caller = await service.with_scope("record")
    answer = await caller.post("/v1/checks", json={"actor": "ada"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
