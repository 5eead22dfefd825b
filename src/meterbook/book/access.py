"""What every call of a Book needs: connections, the catalog, the time, and who pays."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool

from meterbook.core.entries import check_entity
from meterbook.core.plans import Catalog
from meterbook.errors import ForkedBook, UnknownEntity
from meterbook.operations.attribute_usage import Attribute, Parties, attribute_usage
from meterbook.postgres import billing
from meterbook.postgres.migrate import begin_demo
from meterbook.postgres.refusals import refusals
from meterbook.stripe.gateway import StripeAccount, StripeGateway

Clock = Callable[[], datetime]


class LedgerPool(AsyncConnectionPool[AsyncConnection[Any]]):
    """No connection within the time, or one that breaks between two statements, is a `LedgerUnavailable` too."""

    def __init__(self, conninfo: str, **options: Any) -> None:
        self._process = os.getpid()
        super().__init__(conninfo, **options)

    @asynccontextmanager
    async def connection(self, timeout: float | None = None) -> AsyncIterator[AsyncConnection[Any]]:
        """Raises `ForkedBook` in a child process: two that read one socket take each other's answers."""
        if os.getpid() != self._process:
            raise ForkedBook
        with refusals():
            async with super().connection(timeout) as conn:
                yield conn


@asynccontextmanager
async def inside(conn: AsyncConnection[Any]) -> AsyncIterator[None]:
    """In the caller's transaction, begun if it is not yet: what fails is undone alone, what succeeds is committed by the caller.

    psycopg's own `transaction()` would commit where the caller's hasn't begun.
    """
    if not conn.autocommit and conn.info.transaction_status == TransactionStatus.IDLE:
        await billing.begin(conn)
    async with conn.transaction():
        yield


@dataclass(frozen=True, slots=True)
class Opened:
    """What `meterbook.open` gives a Book to work with. `engine`: how the server was reached."""

    pool: LedgerPool
    catalog: Catalog
    clock: Clock | None
    engine: str
    billing: bool
    stripe: StripeAccount | None
    is_demo: bool


class LedgerAccess:
    """Connections are autocommit; a call of several statements opens its own transaction."""

    def __init__(self, opened: Opened) -> None:
        self._pool = opened.pool
        self._catalog = opened.catalog
        self._clock = opened.clock
        self._engine = opened.engine
        self._billing = opened.billing
        self._stripe = opened.stripe
        self._is_demo = opened.is_demo
        self._gateway = StripeGateway(opened.stripe) if opened.stripe is not None and opened.stripe.api_key else None

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    @property
    def engine(self) -> str:
        """How the server was reached."""
        return self._engine

    @property
    def is_demo(self) -> bool:
        """Whether what is in it was made up, as it was when it was opened."""
        return self._is_demo

    async def begin_demo(self) -> None:
        """Marks the ledger for good: what comes is made up. Raises `NotADemo` where somebody is known already, `NotPermitted`."""
        async with self._pool.connection() as conn:
            await begin_demo(conn)
        self._is_demo = True

    def _at(self) -> datetime | None:
        return None if self._clock is None else self._clock()

    def _now(self) -> datetime:
        """For what is only shown; what is decided uses the database's clock."""
        return self._at() or datetime.now(UTC)

    def _attribute_on(self, conn: AsyncConnection[Any]) -> Attribute:
        """On a connection of our own, in autocommit or a short transaction: who waits for a second one may wait for all who do."""
        return partial(attribute_usage, conn, at=self._at())

    async def _attribute(self, parties: Parties) -> None:
        async with self._pool.connection() as conn:
            await attribute_usage(conn, parties, self._at())

    async def _entity_id(self, conn: AsyncConnection[Any], entity: str) -> int:
        """A user is made known by asking; an organization has to be (`UnknownEntity`)."""
        found = await billing.find_entity(conn, check_entity(entity))
        if found is None:
            await self._attribute_on(conn)(Parties(entities=(entity,)))
            found = await billing.find_entity(conn, entity)
        if found is None:
            raise UnknownEntity(f"{entity} is not known: call put_organization first")
        return found
