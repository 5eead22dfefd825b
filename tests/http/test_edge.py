"""What surrounds every answer: headers, request ids, limits, problems, the log, the counters."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from meterbook import errors
from meterbook.book import Book
from meterbook.core.admission import check_failed
from meterbook.errors import Denied, LedgerUnavailable, MeterbookError
from meterbook.http.problems import STATUSES, problem_of, status_of
from meterbook.problems import TITLES
from tests.http.conftest import Making, Service, entry
from tests.ledger import count

NDJSON = {"Content-Type": "application/x-ndjson"}


def every_error() -> list[type[MeterbookError]]:
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MeterbookError)]
    return sorted({*found, *STATUSES}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_a_title(kind: type[MeterbookError]) -> None:
    """4xx for what will fail again, 503 for what may succeed later: a client that looks at the status alone does right."""
    made = kind.__new__(kind)
    Exception.__init__(made, "said")
    if isinstance(made, Denied):
        made.admission = check_failed("unknown")
    for name in ("problems", "conflicts"):
        setattr(made, name, ()) if hasattr(kind, "__init__") else None
    status = status_of(made)
    assert status in TITLES
    assert (status in (408, 503)) == made.retryable or isinstance(made, errors.CardDeclined)
    told = problem_of(made, "r")
    assert (told["code"], told["status"], told["request_id"]) == (kind.code, status, "r")


def test_a_denial_that_could_not_be_known_is_retryable() -> None:
    """402 says that there is not enough; 503 that nobody knows."""
    assert status_of(Denied(check_failed("no database"))) == 503


async def test_every_answer_has_the_headers(service: Service, reader: httpx.AsyncClient) -> None:
    """Also a refusal, also where no route is: no sniffing, no cache, no frame, nothing loaded from anywhere."""
    for answer in (
        await reader.get("/v1/usage", params={"entity": "user:ada"}),
        await service.caller(None).get("/v1/usage"),
        await reader.get("/nowhere"),
        await reader.get("/healthz"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(("given", "is_taken"), [("run-7.a_B", True), ("a b", False), ("x" * 65, False), ("é", False)])
async def test_a_request_id_is_the_callers_or_ours(recorder: httpx.AsyncClient, given: str, *, is_taken: bool) -> None:
    """It comes back in the header and in the problem; what could break a log is not taken."""
    answer = await recorder.post("/v1/entries", json={}, headers={b"X-Request-Id": given.encode()})
    assert (answer.headers["x-request-id"] == given) == is_taken
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_has_a_size(serve: Making, database_url: str, *, announced: bool) -> None:
    """413 before it is read where its length is announced, and as soon as it is passed where it is not."""
    recorder = await serve(body_bytes_max=2048).with_scope("record")
    body = b" " * 3000

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    for path, kind in (("/v1/entries", "application/json"), ("/v1/entries/batch", NDJSON["Content-Type"])):
        refused = await recorder.post(path, content=body if announced else pieces(), headers={"Content-Type": kind})
        assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    assert count(database_url) == 0


async def test_a_line_has_a_size(serve: Making) -> None:
    """A line without an end does not fill the memory."""
    recorder = await serve(line_bytes_max=1024).with_scope("record")
    refused = await recorder.post("/v1/entries/batch", content=b"x" * 5000, headers=NDJSON)
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("settings", [{"body_pause_s": 1}, {"body_timeout_s": 1}])
async def test_a_body_that_does_not_come_is_cut(serve: Making, settings: dict[str, int], database_url: str) -> None:
    """408: after a pause that is too long, and after a drip that takes too long; nothing of the batch is recorded."""
    service = serve(**settings)
    recorder = await service.with_scope("record")
    drip_s = 0.2 if "body_timeout_s" in settings else 3

    async def pieces() -> AsyncIterator[bytes]:
        for n in range(100):
            yield f'{{"actor":"a","source":"s","description":"d","amount":"1","event_key":"{n}"}}\n'.encode()
            await asyncio.sleep(drip_s)

    async with asyncio.timeout(10):
        refused = await recorder.post("/v1/entries/batch", content=pieces(), headers=NDJSON)
    assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (408, "too_slow", True)
    assert count(database_url) == 0
    assert service.door.requests == 0


async def test_more_requests_than_a_server_takes_are_asked_to_come_again(serve: Making) -> None:
    """503 with Retry-After, at once; those in work go on."""
    service = serve(requests_max=1)
    recorder = await service.with_scope("record")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield b"[]"

    first = asyncio.create_task(
        recorder.post("/v1/entries/batch", content=slowly(), headers={"Content-Type": "application/json"})
    )
    await begun.wait()
    refused = await recorder.post("/v1/entries", json=entry())
    go_on.set()
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "overloaded", "1")
    assert (await first).status_code == 200
    assert (await recorder.post("/v1/entries", json=entry())).status_code == 200


async def test_a_fault_of_ours_tells_the_caller_nothing(
    service: Service, recorder: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 with the request's id; the traceback is in the log alone."""

    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret of the house")

    monkeypatch.setattr(Book, "record_many", broken)
    service.door.log = structlog.get_logger()
    with capture_logs() as logged:
        answer = await recorder.post("/v1/entries", json=entry())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    (fault,) = [each for each in logged if each["event"] == "fault"]
    assert fault["request_id"] == answer.json()["request_id"]
    assert "secret of the house" in fault["traceback"]


async def test_the_log_has_a_line_a_request_and_no_secret(serve: Making) -> None:
    """Route, status, time, key's prefix, request id; neither the key, nor parameters, nor bodies."""
    service = serve(access_log=True)
    admin = await service.with_scope("admin")
    service.door.log = structlog.get_logger()
    with capture_logs() as logged:
        await admin.get("/v1/usage", params={"entity": "user:somebody@example.com"})
        await admin.post("/v1/entries", json=entry(metadata={"prompt": "private words"}))
        made = await admin.post("/v1/keys", json={"name": "n", "scopes": ["read"]})
        await service.caller("mb_wrong").get("/v1/usage")
        await admin.get("/healthz")
    lines = [each for each in logged if each["event"] == "request"]
    assert [(each["route"], each["status"]) for each in lines] == [
        ("/v1/usage", 200),
        ("/v1/entries", 200),
        ("/v1/keys", 200),
        ("/v1/usage", 401),
    ]
    told = str(logged)
    secret = service.keys["admin"].rpartition("_")[2]
    assert not [word for word in (secret, made.json()["text"], "somebody", "private", "mb_wrong") if word in told]
    assert lines[0]["key"] in service.keys["admin"]


async def test_counters_count(service: Service, admin: httpx.AsyncClient) -> None:
    """Requests by route and status, entries by outcome; a path that somebody made up is no label."""
    await admin.post("/v1/entries", json=entry())
    await admin.post("/v1/entries", json=entry())
    await admin.post("/v1/entries/batch?partial=true", json=[entry("new"), entry("bad", amount="x")])
    await admin.get("/made/up/17")
    told = (await admin.get("/metrics")).text.splitlines()
    assert 'meterbook_entries_total{outcome="inserted"} 2.0' in told
    assert 'meterbook_entries_total{outcome="replayed"} 1.0' in told
    assert 'meterbook_entries_total{outcome="refused"} 1.0' in told
    assert 'meterbook_http_requests_total{method="POST",route="/v1/entries",status="200"} 2.0' in told
    assert not [line for line in told if "made/up" in line]
    assert "meterbook_ledger_answers 1.0" in told
    assert "meterbook_ledger_deltas_waiting 2.0" in told
    assert "meterbook_ledger_oldest_delta_seconds 0.0" in told
    assert service.door.requests == 0


async def test_a_database_that_is_away_is_not_now(
    service: Service, recorder: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, retryable, with Retry-After: for recording, for readiness, and for a key that can't be looked up."""
    assert (await recorder.post("/v1/entries", json=entry())).status_code == 200

    async def away(*_: Any, **__: Any) -> None:
        raise LedgerUnavailable

    for name in ("record_many", "answers", "know_key"):
        monkeypatch.setattr(Book, name, away)
    service.seconds[0] += 1000
    known = await recorder.post("/v1/entries", json=entry())
    ready = await recorder.get("/readyz")
    for answer in (known, ready):
        assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
        assert answer.headers["retry-after"] == "1"
    check = await recorder.get("/healthz")
    assert check.status_code == 200


async def test_every_metric_of_the_dashboard_and_of_the_page_is_served(admin: httpx.AsyncClient, root: Path) -> None:
    """A panel over a metric that is not there stays empty without a word."""
    for said in (entry(), [entry("b")]):
        await admin.post(f"/v1/entries{'/batch' if isinstance(said, list) else ''}", json=said)
    served = (await admin.get("/metrics")).text
    dashboard = (root / "deploy" / "grafana.json").read_text()
    page = (root / "docs" / "operating" / "serving.md").read_text()
    named = set(re.findall(r"\bmeterbook_[a-z_]+", dashboard + page)) - {
        "meterbook_writer",
        "meterbook_reader",
        "meterbook_keeper",
    }
    assert len(named) > 10
    assert [name for name in named if f"# TYPE {name.removesuffix('_bucket')} " not in served] == []
