"""Whatever is due now: deltas folded, periods opened and closed by the clock, thresholds billed, alerts told. Two at once are safe.

What fails for one entity stops no other: it is said, and tried again at the next sweep.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.ledgers import Billed
from meterbook.core.plans import Catalog
from meterbook.errors import LedgerUnavailable, MeterbookError
from meterbook.operations.bill_threshold import bill_threshold, claim_alerts, lock_running_period
from meterbook.operations.close_period import Outcome, fence_due_period, fence_period, seal_period
from meterbook.postgres import billing

ENTITIES_PER_ROUND_MAX = 500
SETTLED_REASONS = (None, "below_threshold", "plan_without_overage")
"""After these an entity is looked at again only when its total has moved; after others at every sweep, until they are mended."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Periods closed, and those that wait for ids or an owner."""

    closed: int
    deferred: int


@dataclass
class Failures:
    """What could not be done, a sentence each."""

    said: list[str] = field(default_factory=list)

    @contextmanager
    def kept(self, what: str) -> Iterator[None]:
        """Keeps an error for the end, unless the database is gone."""
        try:
            yield
        except LedgerUnavailable:
            raise
        except MeterbookError as error:
            self.said.append(f"{what}: {error}")


async def pass_clocks(conn: AsyncConnection[Any], at: datetime | None, failures: Failures) -> int:
    """Opens what the clock has reached, and decides payers again; gives the number of entities and actors."""
    passed = 0
    before: tuple[list[int], list[int]] = ([], [])
    while (due := await billing.list_due_clocks(conn, at, ENTITIES_PER_ROUND_MAX)) not in (([], []), before):
        with failures.kept("the clocks could not be passed"):
            await billing.pass_clocks(conn, *due, at)
            passed += sum(map(len, due))
        before = due
    return passed


async def close_due(
    conn: AsyncConnection[Any],
    catalog: Catalog,
    at: datetime | None,
    failures: Failures | None = None,
    entity_id: int | None = None,
) -> Closed:
    """Closes every period whose end and grace have passed, oldest first; one that has to wait holds back the entity's later ones.

    Without `failures` an error is raised.
    """
    closed, deferred, held_back = 0, 0, set[int]()
    while True:
        due = await billing.list_due_closes(
            conn,
            catalog.settlement_grace,
            at,
            entity_id=entity_id,
            held_back=list(held_back),
            rows=ENTITIES_PER_ROUND_MAX,
        )
        if not due:
            return Closed(closed, deferred)
        for entity, period in due:
            if entity in held_back:
                continue
            outcome = await _close_kept(conn, entity, period, catalog, at, failures)
            closed += outcome == "closed"
            deferred += outcome == "deferred"
            if outcome in ("deferred", None):
                held_back.add(entity)


async def _close_kept(
    conn: AsyncConnection[Any],
    entity_id: int,
    period_id: int,
    catalog: Catalog,
    at: datetime | None,
    failures: Failures | None,
) -> Outcome | None:
    """None: it failed."""
    if failures is None:
        return await close_period(conn, entity_id, period_id, catalog, at)
    outcome: Outcome | None = None
    with failures.kept(f"period {period_id} could not be closed"):
        outcome = await close_period(conn, entity_id, period_id, catalog, at)
    return outcome  # noqa: RET504  None if it failed


async def close_period(
    conn: AsyncConnection[Any], entity_id: int, period_id: int, catalog: Catalog, at: datetime | None
) -> Outcome:
    """Two transactions: the fence is committed before the seal looks at what is there. `conn` is in autocommit."""
    fenced = await fence_due_period(conn, entity_id, period_id, catalog, at)
    if fenced == "undecided":
        async with conn.transaction():
            fenced = await fence_period(conn, entity_id, period_id, catalog, at)
    if fenced != "fenced":
        return fenced
    async with conn.transaction():
        return await seal_period(conn, entity_id, period_id, catalog, at)


async def look_at_moved(
    conn: AsyncConnection[Any], catalog: Catalog, at: datetime | None, failures: Failures
) -> tuple[int, int]:
    """Thresholds and alerts of the entities whose total moved; gives how many were billed and how many alerts were told."""
    billed = alerts = after = 0
    while moved := await billing.list_moved(conn, after, at, ENTITIES_PER_ROUND_MAX):
        for entity_id, moves in moved:
            with failures.kept(f"entity {entity_id} could not be looked at"):
                async with conn.transaction():
                    usage = await lock_running_period(conn, entity_id, catalog, at)
                    bill = await bill_threshold(conn, usage, catalog)
                    told = await claim_alerts(conn, usage)
                    settled = bill.reason in SETTLED_REASONS
                    await billing.forget_moved(conn, entity_id, moves if settled else moves[:-1])
                alerts += told
                billed += _is_something(bill)
        after = moved[-1][0]
    return billed, alerts


def _is_something(bill: Billed) -> bool:
    return bool(bill.charged_cents or bill.credits_cents)
