"""A server for all tests of a module, whose tests each have actors of their own; and a proxy in front of it."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import count

import pytest

from tests.client.unruly import Unruly
from tests.databases import Databases
from tests.http.serving import Served, serving
from tests.ledger import query

ON_ONE_SERVER = pytest.mark.parametrize("server", ["embedded18"], indirect=True)
AMOUNTS = (
    "select l.amount from meterbook.usage_log l join meterbook.actor a on a.id = l.actor_id"
    " where a.external_id = %s order by l.recorded_at, l.amount"
)
STORED = "select t.key from unnest(%s::text[]) t(key) join meterbook.event_key k on k.key = meterbook.event_key(t.key)"
_numbers = count(1)


@dataclass(frozen=True)
class House:
    """A server, its ledger and its keys."""

    served: Served
    database_url: str

    @property
    def url(self) -> str:
        return self.served.address

    @property
    def key(self) -> str:
        return self.served.keys["record"]

    def amounts(self, actor: str) -> list[Decimal]:
        """Of an actor's rows, in the order they were recorded in."""
        return [amount for (amount,) in query(self.database_url, AMOUNTS, actor)]

    def stored(self, keys: list[str]) -> set[str]:
        return {key for (key,) in query(self.database_url, STORED, keys)}


async def until(happened: Callable[[], bool]) -> None:
    """Of something that another process or thread does. The test's own limit of time bounds it."""
    while not happened():  # noqa: ASYNC110  nobody there sets an event
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def house(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with databases.fresh() as url, serving(url, tmp_path_factory.mktemp("house"), access_log="false") as served:
        yield House(served, url)


@pytest.fixture
def unruly(house: House) -> Iterator[Unruly]:
    with Unruly(house.served.port) as proxy:
        yield proxy


@pytest.fixture
def actor() -> str:
    """Somebody nobody else is."""
    return f"actor_{next(_numbers)}"
