"""Over HTTP: single posts, batches as arrays and NDJSON, checks beside the posts, and the memory of a server that has nothing to do.

The server is `meterbook serve` with its worker, in a process of its own, settings as they come; the clients are in this one. Database,
server and clients share the machine. An answer counts when it says 200, which is after its commit.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import IO, Self, cast

import meterbook.sync
from benchmarks.measuring import Figure, quantile, take_turns
from benchmarks.options import Options
from benchmarks.server import BUILD, Server
from benchmarks.workload import Event, events, zipf

SECONDS = 5.0
SECONDS_QUICK = 0.5
POSTING = 64
SENDING = 4
"""Connections that send batches; each waits for its answer."""
ENTRIES_PER_BATCH = 1_000
IDLE_S = 3
SERVES = "meterbook serves "
Answer = Callable[["Connection"], Awaitable[int]]
"""One request; the number of events that it recorded."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server under measurement. `process`: the server's alone, not its PostgreSQL's."""

    host: str
    port: int
    key: str
    process: int


class Connection(asyncio.Protocol):
    """HTTP/1.1, one request at a time: no more than a client must do, so that little of the machine goes to the client."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[bytes] | None = None
        self._read = b""

    @classmethod
    @asynccontextmanager
    async def to(cls, served: Served) -> AsyncIterator[Self]:
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(partial(cls, served), served.host, served.port)
        try:
            yield connection
        finally:
            transport.close()

    async def post(self, path: str, body: bytes, kind: str = "application/json") -> bytes:
        """The answer's body. Raises unless it is 200."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            f"POST /v1/{path} HTTP/1.1\r\nHost: {self._served.host}\r\nAuthorization: Bearer {self._served.key}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found or self._answer is None:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        answer, self._answer, self._read = self._answer, None, b""
        if head.startswith(b"HTTP/1.1 200 "):
            answer.set_result(body)
        else:
            answer.set_exception(RuntimeError(f"{head.decode()}\n{body.decode()}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server has hung up"))


async def measure(server: Server, options: Options) -> list[Figure]:
    seconds = SECONDS_QUICK if options.quick else SECONDS
    with serving(server.database("serving")) as served:
        await asyncio.sleep(IDLE_S)
        idle = Figure("serving/idle memory of the server", "MB", (_resident_mb(served.process),))
        load = events("serving", zipf())
        await _rate(served, partial(_single, load), POSTING, seconds / 5)  # plans, statements and caches are made
        rates = await take_turns(
            options.rounds,
            [
                partial(_turn, f"serving/{POSTING} single posts", served, partial(_single, load), POSTING, seconds),
                partial(_turn, "serving/arrays of 1000", served, partial(_array, load), SENDING, seconds),
                partial(_turn, "serving/NDJSON of 1000", served, partial(_lines, load), SENDING, seconds),
            ],
            "events/s",
        )
        checks = await take_turns(options.rounds, [partial(_checks_beside, served, load, seconds)], "ms")
    return [idle, *rates, *checks]


async def _turn(name: str, served: Served, once: Answer, connections: int, seconds: float) -> Mapping[str, float]:
    return {name: await _rate(served, once, connections, seconds)}


async def _rate(served: Served, once: Answer, connections: int, seconds: float) -> float:
    began = perf_counter()

    async def go_on(connection: Connection) -> int:
        recorded = 0
        while perf_counter() < began + seconds:
            recorded += await once(connection)
        return recorded

    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Connection.to(served)) for _ in range(connections)]
        recorded = await asyncio.gather(*(go_on(each) for each in opened))
        return sum(recorded) / (perf_counter() - began)


async def _checks_beside(served: Served, load: Iterator[Event], seconds: float) -> Mapping[str, float]:
    """One caller checks, again and again, while 64 others post."""
    took: list[float] = []

    async def check(connection: Connection) -> int:
        began = perf_counter()
        await connection.post("checks", _line({"actor": f"user_{len(took) % 100}"}))
        took.append((perf_counter() - began) * 1000)
        return 0

    posting = asyncio.create_task(_rate(served, partial(_single, load), POSTING, seconds))
    await _rate(served, check, 1, seconds)
    await posting
    return {
        "serving/check beside posts/p50": quantile(took, 0.5),
        "serving/check beside posts/p99": quantile(took, 0.99),
    }


async def _single(load: Iterator[Event], connection: Connection) -> int:
    await connection.post("entries", _line(_entry(next(load))))
    return 1


async def _array(load: Iterator[Event], connection: Connection) -> int:
    batch = [_entry(event) for event in islice(load, ENTRIES_PER_BATCH)]
    await connection.post("entries/batch", _line(batch))
    return len(batch)


async def _lines(load: Iterator[Event], connection: Connection) -> int:
    batch = [_line(_entry(event)) for event in islice(load, ENTRIES_PER_BATCH)]
    await connection.post("entries/batch", b"\n".join(batch), "application/x-ndjson")
    return len(batch)


def _entry(event: Event) -> dict[str, str]:
    return {
        "actor": event.actor,
        "source": event.source,
        "description": event.model,
        "amount": f"{event.amount:f}",
        "event_key": event.key,
    }


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@contextmanager
def serving(url: str) -> Iterator[Served]:
    """`meterbook serve` on a free port; its log goes to the folder of the build."""
    with meterbook.sync.open(url) as book:
        key = book.make_key("benchmark", scopes=["record", "read"], by="benchmark").text
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METERBOOK_")}
    with (BUILD / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "meterbook.cli", "serve", "--port", "0"],
            cwd=BUILD, env=kept | {"METERBOOK_URL": url}, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        said = cast("IO[str]", process.stdout).readline().strip()
        if not said.startswith(SERVES):
            raise RuntimeError(f"the server did not start: {(BUILD / 'server.log').read_text()}")
        host, _, port = said.removeprefix(f"{SERVES}http://").rpartition(":")
        yield Served(host, int(port), key, process.pid)
    finally:
        process.terminate()
        process.wait(30)
        cast("IO[str]", process.stdout).close()


def _resident_mb(process: int) -> float:
    """Of Linux's own count."""
    status = Path(f"/proc/{process}/status").read_text()
    (resident,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(resident) * 1024 / 1e6
