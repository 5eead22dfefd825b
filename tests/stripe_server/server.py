"""Stripe on loopback: the HTTP around `exchange`, and what a test asks of it.

with StripeServer(now=datetime(2026, 6, 1, tzinfo=UTC)) as stripe_server:
    client = stripe_server.client()
"""

import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from stripe import RequestsClient, StripeClient

from tests.stripe_server import clocks, payments
from tests.stripe_server.cards import DECLINED, GOOD, Card
from tests.stripe_server.deliveries import Delivery, Post, delivery_of
from tests.stripe_server.exchange import LATE_MAX_S, Asked, Exchange, Logged, Outcome
from tests.stripe_server.faults import Fault, Kind, Script
from tests.stripe_server.version import API_VERSION
from tests.stripe_server.world import Thing, World

API_KEY = "sk_test_meterbook"
POLL_S = 0.01
STATUS_PHRASES = {402: "Request Failed", 429: "Too Many Requests"}


class StripeServer:
    """Its clock stands still until `advance`. Closing it raises what was a defect of the server itself."""

    def __init__(
        self, now: datetime, endpoint: Callable[[Delivery], None] | None = None, *, name: str | None = None
    ) -> None:
        self.world = World(int(now.timestamp()), name or os.urandom(4).hex())
        self.post = Post(endpoint)
        self._exchange = Exchange(self.world)
        self._http = _Http(self._exchange, self._deliver)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(POLL_S,), name="stripe")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.script.clear()
        self._http.close()
        self._thread.join()
        if self._exchange.crashes:
            raise self._exchange.crashes[0]

    @property
    def url(self) -> str:
        """What the SDK calls the API's base address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def client(self, *, timeout_s: float = 10, max_network_retries: int = 0) -> StripeClient:
        return StripeClient(
            API_KEY,
            stripe_version=API_VERSION,
            base_addresses={"api": self.url},
            max_network_retries=max_network_retries,
            http_client=RequestsClient(timeout=timeout_s),
        )

    # ------------------------------------------------------------------------------------------------------- what a test does

    @contextmanager
    def acting(self) -> Iterator[World]:
        """The world, alone; what was done to it is told when this ends."""
        with self._exchange.lock:
            yield self.world
        self._deliver()

    def advance(self, time: timedelta | datetime) -> None:
        """To a moment, or by a while: renewals, finalizations and further attempts to be paid happen at their times."""
        with self.acting() as world:
            to = int(time.timestamp()) if isinstance(time, datetime) else world.now + int(time.total_seconds())
            clocks.advance(world, None, to)

    def decline(self, customer: str, card: Card = DECLINED) -> None:
        """From now on the banks of this customer's cards refuse, until `accept`."""
        with self.acting() as world:
            for method in world.of("payment_method"):
                if method["customer"] == customer:
                    world.cards[method["id"]] = card

    def accept(self, customer: str) -> None:
        self.decline(customer, GOOD)

    def dispute(self, charge: str, status: str = "needs_response") -> Thing:
        with self.acting() as world:
            return payments.open_dispute(world, charge, status)

    def close_dispute(self, dispute: str, outcome: payments.DisputeOutcome) -> Thing:
        with self.acting() as world:
            return payments.close_dispute(world, dispute, outcome)

    def fails(self, kind: Kind, method: str = "*", path: str = "*", *, nth: int = 1, times: int | None = 1) -> Fault:
        """Scripts a fault: `fails("timeout_after", "POST", "/v1/invoices/*/pay")`."""
        with self._exchange.lock:
            return self.script.add(kind, method, path, nth=nth, times=times)

    # ------------------------------------------------------------------------------------------------------ what a test looks at

    @property
    def script(self) -> Script:
        return self._exchange.script

    @property
    def deliveries(self) -> list[Delivery]:
        """All events so far, in Stripe's order."""
        return self.post.sent

    @property
    def requests(self) -> list[Logged]:
        return self._exchange.log

    def things(self, kind: str) -> list[Thing]:
        """All objects of a kind, oldest first."""
        with self._exchange.lock:
            return list(self.world.of(kind))

    def wait_until_idle(self) -> None:
        """Until nothing is being answered any more, also to clients that have gone."""
        deadline = time.monotonic() + LATE_MAX_S
        while self._exchange.busy and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _deliver(self) -> None:
        with self._exchange.lock:
            events, self.world.unsent = self.world.unsent, []
            self.post.put([delivery_of(event, self.world.now) for event in events])
        self.post.hand_on()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, exchange: Exchange, deliver: Callable[[], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.exchange = exchange
        self.deliver = deliver
        self.closing = threading.Event()
        self.connections: set[socket.socket] = set()

    def handle_error(self, *_: object) -> None:
        """A client that goes away is its own affair; anything else is a defect here."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.exchange.crashes.append(error)

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Tests look at `requests`."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self._answer(path, query)

    def do_DELETE(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(self.path.partition("?")[0], body.decode())

    def _answer(self, path: str, form: str) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        outcome = self.server.exchange.answer(Asked(self.command, path, form, headers))
        self.server.deliver()
        if outcome.sent == "held":
            self._hold()
        elif outcome.sent == "reset":
            self._reset()
        else:
            self._send(outcome)

    def _send(self, outcome: Outcome) -> None:
        answer = outcome.answer
        assert answer is not None
        self.send_response(answer.status, STATUS_PHRASES.get(answer.status))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        try:
            self.wfile.write(answer.body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True  # the client has given up

    def _hold(self) -> None:
        """Until the client gives up: no answer."""
        self.close_connection = True
        while not self.server.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], POLL_S)
            if readable:
                return

    def _reset(self) -> None:
        """RST instead of FIN: "connection reset by peer"."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
