"""The console beside the HTTP door on a book of its own, and people who use it."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import httpx
import pytest

from meterbook import Book
from meterbook.console.app import console_routes
from meterbook.console.desk import Desk
from meterbook.http.app import make_app
from meterbook.http.door import Door
from meterbook.settings import Settings

BASE = "http://localhost"
_CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')


@dataclass
class Console:
    """The application and its people. `now` is the time of sessions and links."""

    book: Book
    desk: Desk
    app: Any
    seconds: list[float]
    people: list[httpx.AsyncClient] = field(default_factory=list)

    def person(self, base: str = BASE) -> httpx.AsyncClient:
        """Somebody who is not signed in."""
        made = httpx.AsyncClient(transport=httpx.ASGITransport(self.app, raise_app_exceptions=False), base_url=base)
        self.people.append(made)
        return made

    async def operator(self) -> httpx.AsyncClient:
        """Somebody who has signed in."""
        made = await self.book.make_key("ops", scopes=["admin"], by="the tests")
        person = self.person()
        answer = await person.post("/console/login", data={"key": made.text, "next": "/console"})
        assert answer.status_code == 303, answer.text
        return person


@pytest.fixture
async def console(book: Book) -> AsyncIterator[Console]:
    seconds = [0.0]
    settings = Settings(access_log=False, console_secret="s" * 32, embed_origins="https://app.example.com")  # type: ignore[arg-type]
    desk = Desk(book, settings, now=lambda: datetime(2026, 6, 20, 12, tzinfo=UTC) + timedelta(seconds=seconds[0]))
    made = Console(book, desk, make_app(Door(book, settings), console_routes(desk)), seconds)
    yield made
    for person in made.people:
        await person.aclose()


@pytest.fixture
async def operator(console: Console) -> httpx.AsyncClient:
    return await console.operator()


async def form_of(person: httpx.AsyncClient, path: str = "/console/keys") -> str:
    """What the forms of this person's session carry."""
    found = _CSRF.search((await person.get(path)).text)
    assert found is not None
    return found[1]


def amounts_of(page: str) -> list[str]:
    """Every amount on a page, with all its digits."""
    found = re.findall(r'<span class="amount">([^<]*)<span class="tail">([^<]*)</span>', page)
    return [unescape(head + tail.strip("\u2007")).replace(",", "").replace("−", "-") for head, tail in found]


def links_of(page: str, beginning: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'href="([^"]+)"', page) if each.startswith(beginning)]
