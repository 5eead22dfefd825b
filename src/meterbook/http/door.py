"""What every handler needs: the book, the limits, the keys that are believed, the counters."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic
from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler

from meterbook.book import Book
from meterbook.core.api_keys import ApiKey, Scope
from meterbook.errors import InvalidKey, ScopeMissing
from meterbook.http.metrics import Metrics
from meterbook.http.problems import BadQuery
from meterbook.settings import Settings

KEYS_REMEMBERED_MAX = 10_000
AUTHORIZATION = "authorization"
SCHEME = "bearer "
OPEN = "open"
"""The scope of a route that asks for no key; each route names one, and a route without it is refused."""

Connection = ASGIConnection[Any, Any, Any, Any]


@dataclass(slots=True)
class Door:
    """One server's. `log` takes an event and its facts."""

    book: Book
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    log: structlog.stdlib.BoundLogger = field(default_factory=lambda: structlog.get_logger("meterbook"))
    now: Callable[[], float] = monotonic
    is_closing: bool = False
    requests: int = 0
    _believed: dict[bytes, tuple[float, ApiKey]] = field(default_factory=dict)

    async def know(self, connection: Connection) -> ApiKey:
        """Whose key came with the request. Believed for some seconds, since asking costs a statement. Raises `InvalidKey`."""
        text = _key_of(connection)
        digest = sha256(text.encode()).digest()
        believed = self._believed.get(digest)
        if believed is not None and self.now() < believed[0]:
            return believed[1]
        self._believed.pop(digest, None)
        key = await self.book.know_key(text)
        if len(self._believed) >= KEYS_REMEMBERED_MAX:
            self._believed.clear()
        self._believed[digest] = (self.now() + self.settings.key_cache_s, key)
        return key

    def forget_keys(self) -> None:
        """After a key was ended here: at once, not within seconds."""
        self._believed.clear()


GivenDoor = NamedDependency[Door]
"""The parameter `door` of a handler."""


def door_of(connection: Connection) -> Door:
    door: Door = connection.app.state.door
    return door


def _key_of(connection: Connection) -> str:
    said = connection.headers.get(AUTHORIZATION, "")
    if said[: len(SCHEME)].lower() != SCHEME:
        raise InvalidKey("send your key as Authorization: Bearer mb_…")
    return said[len(SCHEME) :].strip()


async def admit(connection: Connection, handler: BaseRouteHandler) -> None:
    """The one guard of all routes: the scope that a route names, and no parameter that it does not know.

    A route that names no scope is a mistake of ours, and open to nobody.
    """
    door = door_of(connection)
    scope: Scope | str | None = handler.opt.get("scope")
    if scope != OPEN and not (scope == "metrics" and door.settings.metrics_open):
        key = await door.know(connection)
        connection.scope["state"]["key"] = key
        wanted: Scope = "read" if scope == "metrics" else scope or "admin"  # type: ignore[assignment]  # tests hold the names
        if not key.may(wanted):
            raise ScopeMissing(f"key {key.prefix} has the scopes {', '.join(key.scopes)}; this needs {wanted}")
    unknown = set(connection.query_params) - _parameters(handler)
    if unknown:
        raise BadQuery(f"unknown parameters: {', '.join(sorted(unknown))}")


def _parameters(handler: BaseRouteHandler) -> frozenset[str]:
    """By the names under which they are sent."""
    known: frozenset[str] | None = handler.opt.get("parameters")
    if known is None:
        known = frozenset(handler.opt.get("query", ())) | frozenset(handler.parsed_fn_signature.parameters)
        handler.opt["parameters"] = known
    return known


def quiet_libraries() -> None:
    """The pool tells each failed attempt, uvicorn each start: a server tells what matters, once, in its own log."""
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
