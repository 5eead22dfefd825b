"""A server, put together: the HTTP door and the worker in one process, on one ledger, until SIGTERM or Ctrl-C.

Below the commands and above the doors, so that no door knows another.
"""

import asyncio
import errno
import gc
import logging
import signal
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import structlog
import uvicorn

import meterbook
from meterbook.book import Book
from meterbook.console.app import console_routes
from meterbook.console.desk import PREFIX, Desk
from meterbook.errors import InvalidSettings
from meterbook.http.app import make_app
from meterbook.http.door import Door, quiet_libraries
from meterbook.http.edge import QUIET_ROUTES, App, Edge
from meterbook.http.protocol import TimedProtocol
from meterbook.settings import Settings
from meterbook.stripe.gateway import StripeAccount
from meterbook.worker import RHYTHM, keep_working

BACKLOG = 2048
ANY_PORT = 0
OBJECTS_PER_COLLECTION = 20_000
Opening = Callable[[], AbstractAsyncContextManager[Book]]


@dataclass(frozen=True, slots=True)
class Serving:
    """What has begun to serve, for who tells people of it."""

    address: str
    desk: Desk

    def customer_link(self, entity: str, days: int) -> str:
        """A page for one payer, and nobody else."""
        return f"{self.address}{PREFIX}/customer/{self.desk.link(entity, self.desk.now() + timedelta(days=days))}"


def opening_of(settings: Settings) -> AbstractAsyncContextManager[Book]:
    """The ledger that the settings name."""
    account = StripeAccount(
        settings.stripe_api_key.get_secret_value(), settings.webhook_secrets, settings.stripe_api_base
    )
    return meterbook.open(
        None if settings.url is None else settings.url.get_secret_value(),
        catalog=settings.catalog,
        home=settings.home,
        connections_max=settings.connections_max,
        stripe=account if account.api_key or account.webhook_secrets else None,
    )


async def serve(
    settings: Settings, opening: Opening, tell: Callable[[Serving], None], *, is_trial: bool = False
) -> None:
    """Listens first, so that a taken port is told before a ledger is opened. What was acknowledged is committed when this returns.

    `is_trial`: on somebody's own screen; where the port is taken, a free one will do, and the log has warnings alone.
    Raises what no waiting mends: a ledger that can't be opened, settings that are wrong.
    """
    quiet_libraries()
    log = make_log(settings.log_format, "WARNING" if is_trial else "INFO")
    any_port = is_trial and "port" not in settings.model_fields_set
    with _listening(settings, any_port=any_port) as listener, _tracing(settings):
        async with opening() as book:
            door, desk = Door(book, settings, log=log), Desk(book, settings)
            server = _Server(_configured(door, desk), door)
            stop = asyncio.Event()
            _stop_on_signals(server, stop)
            working = [asyncio.create_task(server.serve(sockets=[listener]), name="server")]
            if settings.worker:
                work = keep_working(lambda: _same(book), RHYTHM, stop, log.info)
                working.append(asyncio.create_task(work, name="worker"))
            address = _address(listener)
            _spare_the_collector()
            log.info("serving", address=address, engine=book.engine, worker=settings.worker)
            tell(Serving(address, desk))
            await _until_one_ends(working, server, stop)
            log.info("stopping")
        log.info("stopped")


def _spare_the_collector() -> None:
    """What starting has made stays, and is not looked through again; a batch of entries, without a cycle in it, begins no collection.

    Python's own threshold, 700 objects, was reached nine times a batch: a third of what it cost.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_PER_COLLECTION)


async def _until_one_ends(working: list[asyncio.Task[None]], server: "_Server", stop: asyncio.Event) -> None:
    """A worker that can't go on takes the server with it: half a server is worse than one that is started again."""
    await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
    server.leave()
    stop.set()
    await asyncio.wait(working, timeout=server.config.timeout_graceful_shutdown)
    for task in working:
        task.cancel()
    ended = await asyncio.gather(*working, return_exceptions=True)
    for each in ended:
        if isinstance(each, Exception):
            raise each


class _Server(uvicorn.Server):
    """Signals are ours: uvicorn raises them again at its end, before the ledger is closed."""

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def leave(self) -> None:
        self._door.is_closing = True
        self.should_exit = True


def _configured(door: Door, desk: Desk) -> uvicorn.Config:
    settings = door.settings
    return uvicorn.Config(
        _traced(make_app(door, *([console_routes(desk)] if settings.console else [])), settings),
        http=TimedProtocol.within(settings.header_timeout_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing here asks where a request came from
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.shutdown_s,
    )


@contextmanager
def _tracing(settings: Settings) -> Iterator[None]:
    """OpenTelemetry is an extra, and loaded by who asks for traces alone."""
    if not settings.traces:
        yield
        return
    try:
        from meterbook.integrations.otlp import exporting
    except ImportError as error:
        missing = "traces: OpenTelemetry is not installed; install meterbook with its extra: meterbook[server,otel]"
        raise InvalidSettings([missing]) from error
    with exporting():
        yield


def _traced(app: Edge, settings: Settings) -> App:
    if not settings.traces:
        return app
    from meterbook.integrations.opentelemetry import TracedApp

    return TracedApp(app, QUIET_ROUTES)


def _stop_on_signals(server: _Server, stop: asyncio.Event) -> None:
    def leave() -> None:
        server.leave()
        stop.set()

    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, leave)


@contextmanager
def _listening(settings: Settings, *, any_port: bool) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        if not (any_port and error.errno == errno.EADDRINUSE):
            said = f"can't listen at {settings.host} port {settings.port}: {error.strerror}"
            raise InvalidSettings([said]) from error
        listener = socket.create_server((settings.host, ANY_PORT), family=family, backlog=BACKLOG)
    with listener:
        yield listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def _same(book: Book) -> AsyncIterator[Book]:
    yield book


def make_log(style: str, level: str = "INFO") -> structlog.stdlib.BoundLogger:
    """One line an event on standard error; no value of it is a secret or a body."""
    shown = structlog.processors.JSONRenderer(_json) if style == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            shown,
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    log: structlog.stdlib.BoundLogger = structlog.get_logger().bind()  # made once, not at each line
    below = logging.getLogger("uvicorn.error")
    below.handlers, below.propagate = [_Forwarding(log)], False
    below.setLevel(logging.WARNING)
    return log


def _json(event: object, default: Callable[[Any], Any]) -> str:
    return msgspec.json.encode(event, enc_hook=default).decode()


class _Forwarding(logging.Handler):
    """What uvicorn has to say, as a line like all others."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, str] = {"reason": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            facts["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        self._log.log(record.levelno, "uvicorn", **facts)
