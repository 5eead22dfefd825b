"""A door over a book of its own, and callers with keys of every kind."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from meterbook import Book
from meterbook.http.app import make_app
from meterbook.http.door import Door
from meterbook.http.edge import Edge
from meterbook.settings import Settings

BASE = "http://meterbook.test"


@dataclass
class Service:
    """The application and its callers. `now` is the monotonic time by which keys are believed."""

    book: Book
    door: Door
    app: Edge
    seconds: list[float]
    keys: dict[str, str] = field(default_factory=dict)
    callers: list[httpx.AsyncClient] = field(default_factory=list)

    def caller(self, key: str | None) -> httpx.AsyncClient:
        """Somebody with this key, or with none."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        made = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False), base_url=BASE, headers=headers
        )
        self.callers.append(made)
        return made

    async def with_scope(self, *scopes: str) -> httpx.AsyncClient:
        name = "+".join(scopes)
        if name not in self.keys:
            self.keys[name] = (await self.book.make_key(name, scopes=scopes, by="the tests")).text
        return self.caller(self.keys[name])


Making = Callable[..., Service]


@pytest.fixture
async def serve(book: Book) -> AsyncIterator[Making]:
    """Makes a service with these settings."""
    made: list[Service] = []

    def make(**settings: Any) -> Service:
        seconds = [0.0]
        told = Settings(**{"access_log": False, **settings})
        door = Door(book, told, now=lambda: seconds[0])
        made.append(Service(book, door, make_app(door), seconds))
        return made[-1]

    yield make
    for service in made:
        for caller in service.callers:
            await caller.aclose()


@pytest.fixture
def service(serve: Making) -> Service:
    return serve()


@pytest.fixture
async def recorder(service: Service) -> httpx.AsyncClient:
    return await service.with_scope("record")


@pytest.fixture
async def reader(service: Service) -> httpx.AsyncClient:
    return await service.with_scope("read")


@pytest.fixture
async def admin(service: Service) -> httpx.AsyncClient:
    return await service.with_scope("admin")


def entry(key: str | None = "k", amount: str = "1.50", **said: Any) -> dict[str, Any]:
    """An entry as JSON has it."""
    made = {"actor": "ada", "source": "workflow", "description": "gpt-4o", "amount": amount, "event_key": key, **said}
    return {name: value for name, value in made.items() if value is not None}
