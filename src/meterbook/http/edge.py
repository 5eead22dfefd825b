"""Around the application: ids, limits, time limits, headers, the log and the counters of every request."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from uuid import uuid4

import msgspec

from meterbook.errors import Overloaded
from meterbook.http.door import Door
from meterbook.http.problems import BodyTooLarge, TooSlow, headers_of, problem_of
from meterbook.problems import PROBLEM_JSON

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CSP = b"default-src 'none'; frame-ancestors 'none'"
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"content-security-policy": CSP,
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
}
"""Unless the answer says otherwise itself, as a page does."""
MADE_UP = (b"meterbook-data", b"demo")
"""On every answer from a ledger whose rows were made up."""
UNMATCHED = "(none)"
QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})


NEVER = float("inf")
LOOK_EVERY_S = 0.5
"""How late a slow client may be cut: one look at all requests costs less than a timer for each wait of each."""


class ClientTooSlow(Exception):
    """Who asked does not take the answer: the connection is cut."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and what has become of it. `until`: when it is cut, if it still waits for its client then."""

    door: Door
    scope: Scope
    inner_receive: Receive
    inner_send: Send
    id: str
    began: float = field(default_factory=perf_counter)
    received: int = 0
    status: int = 0
    until: float = NEVER
    waiting: asyncio.Task[Any] | None = None
    is_cut: bool = False
    is_gone: bool = False

    async def receive(self) -> Message:
        """A body may be large or slow up to a limit."""
        if self.status:  # waiting for the client to go, while it is being answered
            return await self.inner_receive()
        settings = self.door.settings
        self._wait(min(perf_counter() + settings.body_pause_s, self.began + settings.body_timeout_s))
        try:
            message = await self.inner_receive()
        except asyncio.CancelledError:
            self._raise_if_cut(TooSlow())
            raise
        finally:
            self.until = NEVER
        self.received += len(message.get("body", b""))
        if self.received > settings.body_bytes_max:
            raise BodyTooLarge(f"the body has more than {settings.body_bytes_max} bytes")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message["headers"]}
            more = [(name, value) for name, value in HEADERS.items() if name not in given]
            if self.door.book.is_demo:
                more.append(MADE_UP)
            message["headers"] = [*message["headers"], (REQUEST_ID, self.id.encode()), *more]
        self._wait(perf_counter() + self.door.settings.send_timeout_s)
        try:
            await self.inner_send(message)
        except asyncio.CancelledError:
            self._raise_if_cut(ClientTooSlow())
            raise
        finally:
            self.until = NEVER

    def cut(self) -> None:
        if self.waiting is not None:
            self.is_cut = True
            self.waiting.cancel()

    def _wait(self, until: float) -> None:
        self.waiting, self.until = asyncio.current_task(), until

    def _raise_if_cut(self, error: TooSlow | ClientTooSlow) -> None:
        """Whoever else cancels, such as a server that ends, means it."""
        if self.is_cut and self.waiting is not None:
            self.is_cut = False
            self.is_gone = isinstance(error, ClientTooSlow)
            self.waiting.uncancel()
            self.door.log.warning("client_too_slow", request_id=self.id, received=self.received, status=self.status)
            raise error from None

    async def refuse(self, error: Overloaded | BodyTooLarge) -> None:
        said = problem_of(error, self.id)
        headers = {"content-type": PROBLEM_JSON, "Connection": "close"}
        headers |= headers_of(said["status"], retryable=said["retryable"])
        body = msgspec.json.encode(said)
        listed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        listed.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": said["status"], "headers": listed})
        await self.send({"type": "http.response.body", "body": body})

    def refusal(self) -> Overloaded | BodyTooLarge | None:
        """What is known before anything is read."""
        if self.door.requests > self.door.settings.requests_max:
            return Overloaded("more requests are in work than this server takes; try again")
        length = dict(self.scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.door.settings.body_bytes_max:
            return BodyTooLarge(f"the body has more than {self.door.settings.body_bytes_max} bytes")
        return None


class Edge:
    """The outermost application."""

    def __init__(self, app: App, door: Door) -> None:
        self.app = app
        self.door = door
        self._open: set[Exchange] = set()
        self._look: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(self.door, scope, receive, send, _request_id(scope))
        scope.setdefault("state", {})["request_id"] = exchange.id
        self._begin(exchange)
        try:
            refusal = exchange.refusal()
            if refusal is None:
                await self.app(scope, exchange.receive, exchange.send)
            else:
                await exchange.refuse(refusal)
        except Exception:
            if exchange.is_gone:  # as something of the framework's, by now; the server cuts what has no end
                return
            raise
        finally:
            self._open.discard(exchange)
            self.door.requests -= 1
            self._tell(exchange)

    def _begin(self, exchange: Exchange) -> None:
        self._open.add(exchange)
        self.door.requests += 1
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._cut_the_slow)

    def _cut_the_slow(self) -> None:
        now = perf_counter()
        for exchange in self._open:
            if exchange.until < now:
                exchange.cut()
        self._look = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._cut_the_slow) if self._open else None

    def _tell(self, exchange: Exchange) -> None:
        scope, metrics = exchange.scope, self.door.metrics
        route = scope.get("path_template") or UNMATCHED
        seconds = perf_counter() - exchange.began
        method = scope["method"] if route != UNMATCHED else "*"  # anybody can make up a method
        metrics.requests.labels(method, route, str(exchange.status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        if self.door.settings.access_log and route not in QUIET_ROUTES:
            key = scope["state"].get("key")
            self.door.log.info(
                "request",
                method=scope["method"],
                route=route,
                status=exchange.status,
                ms=round(seconds * 1000, 1),
                bytes_in=exchange.received,
                key=None if key is None else key.prefix,
                request_id=exchange.id,
            )


def _request_id(scope: Scope) -> str:
    """The caller's, if it is one; a text of ours otherwise."""
    given: bytes | None = next((value for name, value in scope["headers"] if name == REQUEST_ID), None)
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return uuid4().hex
