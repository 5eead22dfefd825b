"""A proxy in front of a server: passes requests on, unless it is told what to do with one instead."""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

PIECE = 65536
PROBLEM = b"application/problem+json"


@dataclass(frozen=True)
class Instead:
    """What happens to a request. `forwards`: the server gets it, and what it answers is thrown away."""

    forwards: bool = False
    says: bytes = b""
    waits: bool = False
    """Until the proxy is told to `let_go`, or closed."""


def answer(status: int, body: bytes = b"", kind: bytes = b"text/html", **headers: str) -> bytes:
    told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()).encode()
    head = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n" % (
        status,
        kind,
        len(body),
    )
    return head + told + b"\r\n" + body


def problem(status: int, code: str, *, retryable: bool = True, **headers: str) -> bytes:
    """A problem document as the server's own."""
    retry = "true" if retryable else "false"
    said = f'{{"type":"urn:meterbook:problem:{code}","detail":"said by the test","code":"{code}","retryable":{retry}}}'
    return answer(status, said.encode(), PROBLEM, **headers)


CUT_BEFORE = Instead()
CUT_AFTER = Instead(forwards=True)
SLOW = Instead(forwards=True, waits=True)
HALF = Instead(forwards=True, says=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")

Decide = Callable[["Asked"], Instead | None]


@dataclass(frozen=True)
class Asked:
    """A request as it came: `number` from 1, of all."""

    number: int
    line: str
    body: bytes


@dataclass
class Unruly:
    """Listens at `url` until its block ends. `decide` may be set while requests come."""

    port_behind: int
    decide: Decide = field(default=lambda _: None)
    asked: list[Asked] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _go: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    proxy.serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._go.set()
        self._server.shutdown()
        self._server.server_close()

    def does(self, instead: Instead) -> None:
        """To every request from now on."""
        self.decide = lambda _: instead

    def behaves(self) -> None:
        """Passes everything on from now on."""
        self.decide = lambda _: None

    def let_go(self) -> None:
        """What waits goes on."""
        self._go.set()

    def serve(self, client: socket.socket) -> None:
        """Requests of one connection, one after the other."""
        while (request := _read_message(client)) is not None:
            head, body = request
            with self._lock:
                asked = Asked(len(self.asked) + 1, head.split(b"\r\n")[0].decode(), body)
                self.asked.append(asked)
            instead = self.decide(asked)
            said = self._pass_on(head, body) if instead is None or instead.forwards else b""
            if instead is None:
                client.sendall(said)
                continue
            if instead.waits:
                self._go.wait(30)
            client.sendall(instead.says)
            return

    def _pass_on(self, head: bytes, body: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port_behind), timeout=30) as server:
            server.sendall(head + b"\r\n\r\n" + body)
            answered = _read_message(server)
        if answered is None:
            raise OSError("cut by the server")
        return answered[0] + b"\r\n\r\n" + answered[1]


def _read_message(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """Head and body, whose length is announced."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        piece = connection.recv(PIECE)
        if not piece:
            return None
        raw += piece
    head, _, body = raw.partition(b"\r\n\r\n")
    length = next((int(value) for name, value in _headers(head) if name == b"content-length"), 0)
    while len(body) < length:
        piece = connection.recv(PIECE)
        if not piece:
            return None
        body += piece
    return head, body


def _headers(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        yield name.strip().lower(), value.strip()


@contextmanager
def nobody() -> Iterator[str]:
    """The address of a port at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and never listens
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
