"""What every page needs: the book, the time, who is signed in, and that a form came from a page of ours."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Self

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler

from meterbook.book import Book
from meterbook.console.signing import read_signed, sign
from meterbook.core.api_keys import ApiKey
from meterbook.errors import InvalidKey, MeterbookError, ScopeMissing
from meterbook.settings import Settings

COOKIE = "meterbook_session"
CSRF_FIELD = "csrf"
PREFIX = "/console"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WITHOUT_ORIGIN = "none"
Connection = ASGIConnection[Any, Any, Any, Any]
Asked = Request[Any, Any, Any]


class NotSignedIn(MeterbookError):
    """Nobody is signed in, or the session is over."""

    code = "not_signed_in"


class ForeignForm(MeterbookError):
    """The form was not made by a page of this session; reload the page and try again."""

    code = "foreign_form"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is signed in: by which key, and what their forms carry."""

    key: ApiKey
    csrf: str

    @property
    def by(self) -> str:
        return f"key {self.key.prefix} ({self.key.name}), console"[:255]


@dataclass(slots=True)
class Desk:
    """One server's. Without a secret of the settings, sessions and links end with the process. `now` is for sessions and links alone."""

    book: Book
    settings: Settings
    now: Callable[[], datetime] = _now
    secret: bytes = field(init=False)

    def __post_init__(self) -> None:
        told = self.settings.console_secret.get_secret_value()
        self.secret = sha256(told.encode()).digest() if told else secrets.token_bytes(32)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The framework copies routes with what they carry; a server has one desk."""
        return self

    @property
    def keeps_links(self) -> bool:
        """Whether links survive a restart."""
        return bool(self.settings.console_secret.get_secret_value())

    async def sign_in(self, text: str) -> str:
        """The session of who shows a living admin key. Raises `InvalidKey`, `ScopeMissing`."""
        key = await self.book.know_key(text)
        _check_scope(key)
        until = self.now() + timedelta(seconds=self.settings.session_s)
        return sign(self.secret, "session", [key.prefix, secrets.token_hex(16)], until)

    async def visitor(self, connection: Connection) -> Visitor:
        """Looks at the key each time: who revokes it ends its sessions. Raises `NotSignedIn`."""
        said = read_signed(self.secret, "session", connection.cookies.get(COOKIE, ""), self.now())
        if said is None:
            raise NotSignedIn
        prefix, nonce = said
        try:
            key = await self.book.living_key(prefix)
            _check_scope(key)
        except (InvalidKey, ScopeMissing):
            raise NotSignedIn from None
        return Visitor(key, sha256(self.secret + f"form {prefix} {nonce}".encode()).hexdigest())

    def link(self, entity: str, until: datetime) -> str:
        return sign(self.secret, "customer", [entity], until)

    def read_link(self, text: str) -> str | None:
        """The one payer that a link shows; None: not ours, or past its time."""
        said = read_signed(self.secret, "customer", text, self.now())
        return None if said is None else said[0]


def _check_scope(key: ApiKey) -> None:
    if not key.may("admin"):
        raise ScopeMissing(f"key {key.prefix} has the scopes {', '.join(key.scopes)}; the console needs admin")


GivenDesk = NamedDependency[Desk]
"""The parameter `desk` of a handler."""


def desk_of(connection: Connection) -> Desk:
    desk: Desk = connection.route_handler.opt["desk"]
    return desk


async def signed_in(connection: Connection, _: BaseRouteHandler) -> None:
    """The guard of every page but the login, the customer's and the files."""
    visitor = await desk_of(connection).visitor(connection)
    state = connection.scope["state"]
    state["visitor"], state["key"] = visitor, visitor.key


def visitor_of(request: Asked) -> Visitor:
    visitor: Visitor = request.scope["state"]["visitor"]
    return visitor


async def read_form(request: Asked) -> dict[str, str]:
    """The fields of a form of this session. Raises `ForeignForm`."""
    form = await request.form()
    said = {name: value for name, value in form.items() if isinstance(value, str)}
    if not compare_digest(said.pop(CSRF_FIELD, "").encode(), visitor_of(request).csrf.encode()):
        raise ForeignForm
    return said


def check_own_page(request: Asked) -> None:
    """For the form before a session: browsers say where a request comes from. Raises `ForeignForm`."""
    if request.headers.get("sec-fetch-site", WITHOUT_ORIGIN) not in {"same-origin", WITHOUT_ORIGIN}:
        raise ForeignForm


def goes_in_the_clear(request: Asked) -> bool:
    """Only on this machine itself a session may go over plain HTTP."""
    return (request.url.hostname or "") in LOOPBACK
