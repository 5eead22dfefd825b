"""Spans of OpenTelemetry for the calls of a Book and the requests of a server; nothing is traced, and nothing costs, before `instrument`.

The calls are wrapped from outside, on the classes: the ledger knows nothing of it (decision 0040). No name and no attribute holds an id
of a person or payer, an event key, or money; an error is named by its code, because its message may hold them. What there is, is listed
in docs/operating/tracing.md.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping, Sized
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, TracerProvider

import meterbook
import meterbook.sync
from meterbook.book.relay import Relay
from meterbook.book.sweep import Closed
from meterbook.core.admission import Admission
from meterbook.core.ledgers import Relayed, Swept
from meterbook.core.recorded import BulkRecorded, Recorded
from meterbook.core.upkeep import Compacted
from meterbook.errors import Denied, MeterbookError
from meterbook.operations.settle_hold import Settled
from meterbook.sync.book.relay import Relay as SyncRelay
from meterbook.sync.book.sweep import Closed as SyncClosed
from meterbook.sync.operations.settle_hold import Settled as SyncSettled

SCOPE = "meterbook"
PREFIX = "meterbook."
METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})
SERVER_ERROR = 500
CALLS = {
    "record_many": "record",
    "record_bulk": "record_bulk",
    "record_each": "record_each",
    "record_cumulative": "record_cumulative",
    "correct": "correct",
    "check": "check",
    "_ask": "hold",
    "settle": "settle",
    "release": "release",
    "bill_threshold": "bill_threshold",
    "close": "close",
    "sweep": "sweep",
    "fold": "fold",
    "vacuum": "vacuum",
    "relay": "relay",
}
"""Of a Book, by what their spans are called after the prefix: `record` is one entry of `record_many`, `hold` and `place_hold` ask alike."""
DELIVERIES = {"_deliver": "deliver"}

Attributes = dict[str, bool | int | str]
App = Callable[[Any, Any, Any], Awaitable[None]]
_wrapped: list[tuple[type, str, Any]] = []


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """From now on every Book of this process makes spans, with the application's own provider unless another is given. Once is enough."""
    if _wrapped:
        return
    tracer = _tracer(tracer_provider)
    for kind, calls in (
        (meterbook.Book, CALLS),
        (meterbook.sync.Book, CALLS),
        (Relay, DELIVERIES),
        (SyncRelay, DELIVERIES),
    ):
        for name, said in calls.items():
            _wrapped.append((kind, name, vars(kind).get(name)))
            setattr(kind, name, _traced(tracer, PREFIX + said, getattr(kind, name)))


def uninstrument() -> None:
    """As before `instrument`."""
    while _wrapped:
        kind, name, own = _wrapped.pop()
        if own is None:
            delattr(kind, name)
        else:
            setattr(kind, name, own)


def _tracer(provider: TracerProvider | None) -> Tracer:
    return trace.get_tracer(SCOPE, version("meterbook"), provider)


def _traced(tracer: Tracer, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def traced_awaited(*said: Any, **named: Any) -> Any:
            with _span(tracer, name, said, named) as span:
                answer = await call(*said, **named)
                _note(span, facts_of(answer))
                return answer

        return traced_awaited

    @functools.wraps(call)
    def traced(*said: Any, **named: Any) -> Any:
        with _span(tracer, name, said, named) as span:
            answer = call(*said, **named)
            _note(span, facts_of(answer))
            return answer

    return traced


@contextmanager
def _span(tracer: Tracer, name: str, said: tuple[Any, ...], named: Mapping[str, Any]) -> Iterator[Span]:
    with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
        if span.is_recording():
            _note(span, _asked(said, named))
        try:
            yield span
        except Exception as error:
            _note_error(span, error)
            raise


def _asked(said: tuple[Any, ...], named: Mapping[str, Any]) -> Attributes:
    """What a call was given, without what it is about."""
    asked: Attributes = {}
    if named.get("conn") is not None:
        asked["in_callers_transaction"] = True
    first = said[1] if len(said) > 1 else named.get("entries")
    if isinstance(first, Sized) and not isinstance(first, str):
        asked["entries"] = len(first)
    kind = getattr(first, "kind", None)
    if isinstance(kind, str):
        asked["kind"] = kind
    return asked


def facts_of(answer: object) -> Attributes:
    """Counts and codes of a result; nothing of whom it is about."""
    match answer:
        case Recorded() | BulkRecorded():
            found: Attributes = {"inserted": answer.inserted, "replayed": answer.replayed}
        case Settled() | SyncSettled():
            found = {"state": answer.state, **facts_of(answer.recorded)}
        case Admission():
            found = {"allowed": answer.allowed, "code": answer.code}
        case Compacted():
            found = {"deltas": answer.deltas, "entities": len(answer.entities)}
        case Swept():
            counts = {name: value for name, value in asdict(answer).items() if isinstance(value, int)}
            found = {**counts, "failed": len(answer.failed)}
        case Relayed() | Closed() | SyncClosed():
            found = asdict(answer)
        case str():
            found = {"outcome": answer}
        case _:
            found = {}
    return found


def _note(span: Span, facts: Attributes) -> None:
    for name, value in facts.items():
        span.set_attribute(PREFIX + name, value)


def _note_error(span: Span, error: Exception) -> None:
    """A denial is an answer; anything else is an error, by its code."""
    if isinstance(error, Denied):
        _note(span, facts_of(error.admission))
        return
    span.set_attribute("error.type", error.code if isinstance(error, MeterbookError) else type(error).__qualname__)
    span.set_status(StatusCode.ERROR)


class TracedApp:
    """Around an ASGI application: a span a request, the child of what its `traceparent` names. Paths in `quiet` make none."""

    def __init__(self, app: App, quiet: Collection[str] = (), tracer_provider: TracerProvider | None = None) -> None:
        self._app = app
        self._quiet = quiet
        self._tracer = _tracer(tracer_provider)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in self._quiet:
            await self._app(scope, receive, send)
            return
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        with self._tracer.start_as_current_span(
            method,
            context=extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "url.scheme": scope.get("scheme", "http")},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            await self._answer(span, method, scope, receive, send)

    async def _answer(self, span: Span, method: str, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                _note_status(span, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            _note_error(span, error)
            raise
        finally:
            route = scope.get("path_template")
            if route:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
            request_id = scope.get("state", {}).get("request_id")
            if request_id:
                span.set_attribute(PREFIX + "request_id", request_id)


def _note_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= SERVER_ERROR:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)
