"""Spans, with the SDK's in-memory exporter; and over the wire, to a collector that reads OTLP."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import meterbook
from meterbook import Book
from meterbook.errors import Denied, KeyConflict
from meterbook.http.app import make_app
from meterbook.http.door import Door
from meterbook.http.edge import QUIET_ROUTES
from meterbook.integrations.opentelemetry import CALLS, TracedApp, instrument, uninstrument
from meterbook.settings import Settings
from meterbook.sync import Book as SyncBook
from tests.http.serving import serving

SECRETS = ("ada", "acme", "0.125", "key-of-the-customer", "gpt-4o")
"""What no span may hold: who, for whom, how much, under which key."""
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider()


@pytest.fixture
def exporter(provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    """Everything traced, in the order of the spans' ends."""
    made = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(made))
    instrument(provider)
    yield made
    uninstrument()


def named(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def facts(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("meterbook."): value for name, value in (span.attributes or {}).items()}


async def use(book: Book, **said: Any) -> None:
    entry = {"source": "workflow", "description": "gpt-4o", "amount": "0.125", "event_key": "key-of-the-customer"}
    await book.record("ada", **{**entry, **said})


async def test_each_call_is_a_span_with_counts_and_codes(book: Book, exporter: InMemorySpanExporter) -> None:
    """Record, check, hold, settle, close, fold, sweep and relay, by name, with what came of them."""
    await use(book)
    await book.record_many([{"actor": "ada", "source": "s", "description": "d", "amount": "1", "event_key": "k"}])
    assert [facts(span) for span in exporter.get_finished_spans()] == [{"entries": 1, "inserted": 1, "replayed": 0}] * 2
    await book.check("ada")
    async with book.hold("ada", amount="0.5") as held:
        await held.settle(amount="0.125", source="s", description="gpt-4o")
    await book.close("user:ada")
    await book.sweep()
    await book.compact()
    await book.relay()
    spans = named(exporter)
    assert facts(spans["meterbook.check"]) == {"allowed": True, "code": "allowed"}
    assert facts(spans["meterbook.settle"]) == {"state": "settled", "inserted": 1, "replayed": 0}
    assert facts(spans["meterbook.close"]) == {"closed": 0, "deferred": 0}
    assert facts(spans["meterbook.sweep"])["deltas"] == 3
    assert facts(spans["meterbook.fold"]) == {"deltas": 0, "entities": 0}
    assert facts(spans["meterbook.relay"]) == {"delivered": 0, "postponed": 0, "dead": 0}
    assert "meterbook.hold" in spans


async def test_an_error_is_named_by_its_code_and_a_denial_is_none(book: Book, exporter: InMemorySpanExporter) -> None:
    """The message of a conflict holds both versions: it stays out. A denied hold is an answer."""
    await use(book)
    with pytest.raises(KeyConflict):
        await use(book, amount="0.5")
    with pytest.raises(Denied):
        await book.place_hold("ada", amount="100")
    span = exporter.get_finished_spans()[1]
    assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())
    assert facts(span)["error.type"] == "key_conflict"
    hold = named(exporter)["meterbook.hold"]
    assert (hold.status.status_code, facts(hold)) == (StatusCode.UNSET, {"allowed": False, "code": "limit_reached"})


async def test_an_alert_that_is_delivered_is_a_span_of_its_own(book: Book, exporter: InMemorySpanExporter) -> None:
    """Beneath the relay's, with its kind and what became of it."""
    await book.record("ada", source="s", description="d", amount="4.99", event_key="k")
    await book.sweep()

    async def tell(_: object) -> None: ...

    assert (await book.relay(tell=tell)).delivered == 1
    spans = named(exporter)
    deliver, relay = spans["meterbook.deliver"], spans["meterbook.relay"]
    assert facts(deliver) == {"kind": "alert", "outcome": "delivered"}
    assert deliver.parent is not None
    assert relay.context is not None
    assert deliver.parent.span_id == relay.context.span_id


async def test_no_span_says_who_or_how_much(book: Book, exporter: InMemorySpanExporter) -> None:
    """Neither a name nor an attribute of any call holds an actor, a payer, an amount, a key or a model."""
    await book.put_organization("acme", owner="ada")
    await use(book)
    await use(book)
    await book.record_cumulative("ada", request="r", total="0.125", source="s", description="gpt-4o")
    entry = (await book.entries("user:ada")).entries[0]
    await book.correct(entry.id, amount="0.125", reason="ada", event_key="c")
    await book.place_hold("ada", amount="0.125", hold_id="key-of-the-customer")
    await book.settle("key-of-the-customer", amount="0.125", source="s", description="gpt-4o")
    await book.bill_threshold("user:ada")
    await book.record_each([{"actor": "ada", "source": "s", "description": "d", "amount": "0.125", "event_key": "e"}])
    spans = exporter.get_finished_spans()
    assert len(spans) == 8
    said = " ".join(f"{span.name} {dict(span.attributes or {})} {span.status.description}" for span in spans)
    assert [secret for secret in SECRETS if secret in said] == []


def test_the_synchronous_twin_is_traced_alike(sync_book: SyncBook, exporter: InMemorySpanExporter) -> None:
    """The same names and attributes."""
    sync_book.record("ada", source="s", description="d", amount="1", event_key="k")
    with sync_book.hold("ada", amount="0.5") as held:
        held.settle(amount="0.125", source="s", description="d")
    sync_book.compact()
    spans = named(exporter)
    assert facts(spans["meterbook.record"]) == {"entries": 1, "inserted": 1, "replayed": 0}
    assert facts(spans["meterbook.settle"])["state"] == "settled"
    assert {"meterbook.hold", "meterbook.fold", "meterbook.vacuum"} <= spans.keys()


async def test_a_record_in_the_callers_transaction_says_so(book: Book, exporter: InMemorySpanExporter) -> None:
    """It is committed by somebody else, later."""
    async with book._pool.connection() as conn, conn.transaction():
        await use(book, conn=conn)
    assert facts(named(exporter)["meterbook.record"])["in_callers_transaction"] is True


def test_uninstrumented_classes_are_as_they_were() -> None:
    """Nothing stays wrapped, and nothing is wrapped twice."""
    before = [getattr(kind, name) for kind in (Book, SyncBook) for name in CALLS]
    instrument()
    instrument()
    assert all(getattr(Book, name).__wrapped__ is not None for name in CALLS)
    uninstrument()
    assert [getattr(kind, name) for kind in (Book, SyncBook) for name in CALLS] == before


def test_nothing_optional_is_loaded_by_the_ledger() -> None:
    """Neither by importing both faces and the server, nor by opening, recording and relaying."""
    script = (
        "import sys, meterbook, meterbook.sync, meterbook.serving\n"
        "loaded = {'sqlalchemy', 'django', 'fastapi', 'litellm', 'opentelemetry'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_request_is_a_span_beneath_its_traceparent(
    book: Book, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """Named by its route, with status and request id; the ledger's call is its child; quiet routes make none."""
    app = TracedApp(make_app(Door(book, Settings(access_log=False))), QUIET_ROUTES, provider)
    key = (await book.make_key("a", scopes=["record"], by="the tests")).text
    headers = {"Authorization": f"Bearer {key}", "traceparent": PARENT, "x-request-id": "r-1"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://meterbook.test", headers=headers
    ) as client:
        assert (await client.post("/v1/checks", json={"actor": "ada"})).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/v1/no/such/ada")).status_code == 404
        assert (await client.request("MADEUP", "/v1/checks")).status_code == 405
    check, request, unknown, odd = exporter.get_finished_spans()
    assert (request.name, request.kind) == ("POST /v1/checks", SpanKind.SERVER)
    assert facts(request) == {
        "http.request.method": "POST",
        "http.route": "/v1/checks",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "request_id": "r-1",
    }
    assert request.parent is not None
    assert check.parent is not None
    assert request.context is not None
    assert f"{request.parent.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{request.parent.span_id:016x}" == PARENT.split("-")[2]
    assert check.parent.span_id == request.context.span_id
    assert "ada" not in unknown.name
    assert odd.name.startswith("_OTHER")


class Collector(HTTPServer):
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Take)
        self.taken: list[ExportTraceServiceRequest] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Take(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Collector)
        if self.path == "/v1/traces":
            self.server.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_server_sends_its_traces_where_opentelemetry_says(
    database_url: str, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`meterbook serve` with METERBOOK_TRACES: requests and calls arrive at a collector, named as meterbook's, by its end at the latest."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
    with serving(database_url, tmp_path, traces="true") as served:
        headers = {"Authorization": f"Bearer {served.keys['record']}"}
        httpx.post(f"{served.address}/v1/checks", json={"actor": "ada"}, headers=headers).raise_for_status()
        assert served.end() == 0
    groups = [group for request in collector.taken for group in request.resource_spans]
    names = {span.name for group in groups for scope in group.scope_spans for span in scope.spans}
    resource = {one.key: one.value.string_value for one in groups[0].resource.attributes}
    assert {"POST /v1/checks", "meterbook.check"} <= names
    assert resource["service.name"] == "meterbook"


def test_an_installation_without_opentelemetry_says_what_to_install(database_url: str) -> None:
    """Asked for traces, a server without the extra doesn't start; it is no reason to serve without."""
    script = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "from meterbook.cli import main\n"
        "sys.argv = ['meterbook', 'serve', '--port', '0']\n"
        "main()\n"
    )
    environment = {**os.environ, "METERBOOK_TRACES": "true", "METERBOOK_URL": database_url}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode != 0
    assert "meterbook[server,otel]" in done.stdout + done.stderr


def test_the_table_names_calls_that_exist() -> None:
    """A call that is renamed is found here, not by an operator who misses its spans."""
    assert [name for name in CALLS if not callable(getattr(meterbook.Book, name, None))] == []
