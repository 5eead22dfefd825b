"""Over HTTP: single posts, batches as arrays and NDJSON, checks beside the posts, and the memory of a server that has nothing to do.

The server is `meterbook serve` with its worker, in a process of its own, settings as they come; the clients are in this one. Database,
server and clients share the machine. An answer counts when it says 200, which is after its commit. Bodies are written before the clock
runs: what a client spends on its JSON is not the server's. Everybody was met before, and each kind of request was made for a second: the
rates are those of every later event, with a service's plans, statements and caches in place.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import IO, Self, cast

import meterbook
import meterbook.sync
from benchmarks.bulk import meet_everybody
from benchmarks.measuring import Figure, quantile, take_turns
from benchmarks.options import Options
from benchmarks.server import BUILD, Server
from benchmarks.workload import Event, events, zipf

POSTING = 64
SENDING = 4
"""Connections that send batches; each waits for its answer."""
ENTRIES_PER_BATCH = 1_000
POSTS = 15_000
BATCHES = 120
"""Requests of a turn: some five seconds."""
WARMING = 5
"""The first posts of each kind are so many times fewer, and not counted."""
QUICK = 20
"""A smoke run has so many times fewer."""
IDLE_S = 3
SERVES = "meterbook serves "


@dataclass(frozen=True, slots=True)
class Served:
    """A server under measurement. `process`: the server's alone, not its PostgreSQL's."""

    host: str
    port: int
    key: str
    process: int


@dataclass(frozen=True, slots=True)
class Post:
    path: str
    body: bytes
    events: int
    kind: str = "application/json"


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

    async def post(self, post: Post) -> bytes:
        """The answer's body. Raises unless it is 200."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            f"POST /v1/{post.path} HTTP/1.1\r\nHost: {self._served.host}\r\nAuthorization: Bearer {self._served.key}\r\n"
            f"Content-Type: {post.kind}\r\nContent-Length: {len(post.body)}\r\n\r\n".encode()
            + post.body
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
    url = server.database("serving")
    async with meterbook.open(url) as book:
        await meet_everybody(book)
    posts, batches = (POSTS // QUICK, BATCHES // QUICK) if options.quick else (POSTS, BATCHES)
    load = events("serving", zipf())
    with serving(url) as served:
        await asyncio.sleep(IDLE_S)
        idle = Figure("serving/idle memory of the server", "MB", (_resident_mb(served.process),))
        kinds: Sequence[tuple[str, Callable[[Iterator[Event]], Post], int, int]] = (
            (f"serving/{POSTING} single posts", _single, posts, POSTING),
            ("serving/arrays of 1000", _array, batches, SENDING),
            ("serving/NDJSON of 1000", _lines, batches, SENDING),
        )
        for _, write, count, connections in kinds:
            await _rate(served, [write(load) for _ in range(count // WARMING)], connections)
        turns = [partial(_turn, name, served, partial(write, load), *numbers) for name, write, *numbers in kinds]
        rates = await take_turns(options.rounds, turns, "events/s")
        checks = await take_turns(options.rounds, [partial(_checks_beside, served, load, posts)], "ms")
    return [idle, *rates, *checks]


async def _turn(
    name: str, served: Served, write: Callable[[], Post], posts: int, connections: int
) -> Mapping[str, float]:
    return {name: await _rate(served, [write() for _ in range(posts)], connections)}


async def _rate(served: Served, posts: Sequence[Post], connections: int) -> float:
    """Events a second: each connection takes the next of the posts as soon as it has its answer."""
    left = iter(posts)

    async def go_on(connection: Connection) -> None:
        for post in left:
            await connection.post(post)

    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Connection.to(served)) for _ in range(connections)]
        began = perf_counter()
        await asyncio.gather(*(go_on(each) for each in opened))
        return sum(post.events for post in posts) / (perf_counter() - began)


async def _checks_beside(served: Served, load: Iterator[Event], posts: int) -> Mapping[str, float]:
    """One caller checks, again and again, while 64 others post."""
    took: list[float] = []
    async with Connection.to(served) as connection, asyncio.TaskGroup() as beside:
        posting = beside.create_task(_rate(served, [_single(load) for _ in range(posts)], POSTING))
        while not posting.done():
            check = Post("checks", _line({"actor": f"user_{len(took) % 100}"}), 0)
            began = perf_counter()
            await connection.post(check)
            took.append((perf_counter() - began) * 1000)
    return {
        "serving/check beside posts/p50": quantile(took, 0.5),
        "serving/check beside posts/p99": quantile(took, 0.99),
    }


def _single(load: Iterator[Event]) -> Post:
    return Post("entries", _line(_entry(next(load))), 1)


def _array(load: Iterator[Event]) -> Post:
    batch = [_entry(event) for event in islice(load, ENTRIES_PER_BATCH)]
    return Post("entries/batch", _line(batch), len(batch))


def _lines(load: Iterator[Event]) -> Post:
    batch = [_line(_entry(event)) for event in islice(load, ENTRIES_PER_BATCH)]
    return Post("entries/batch", b"\n".join(batch), len(batch), "application/x-ndjson")


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
