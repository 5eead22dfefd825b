"""The calls of a Book for people who look at all payers: what was spent, what waits, what needs somebody."""

from datetime import UTC, datetime

from meterbook.book.access import LedgerAccess
from meterbook.core.arguments import check_limit, check_moment, check_whole
from meterbook.core.entries import check_entity, check_text
from meterbook.core.ledgers import StripeEventState
from meterbook.core.overviews import ListedCharge, ListedPeriod, Overview, Troubles
from meterbook.errors import InvalidUsage, Problem
from meterbook.operations.doctor import examine_ledger
from meterbook.operations.read_usage import read_usage
from meterbook.postgres import overview, reading, stripe_events

DAYS = 30
LARGEST = 10
ROWS_MAX = 50
DAYS_MAX = 366
LIMIT_MAX = 1000
ID_MAX = 2**63 - 1


class OverviewCalls(LedgerAccess):
    """All payers at once. Nothing here decides anything."""

    async def overview(self, *, days: int = DAYS, largest: int = LARGEST) -> Overview:
        """Sums over the running periods, spend by day, what waits, and the reports of those that used most."""
        check_whole("days", days, 1, DAYS_MAX)
        check_whole("largest", largest, 1, LIMIT_MAX)
        at = self._at()
        without_overage = [plan.code for plan in self._catalog.plans if not plan.has_overage]
        async with self._pool.connection() as conn:
            sums = await overview.sum_running(conn, largest, without_overage, at)
            attribute = self._attribute_on(conn)
            reports = [await read_usage(conn, name, "current", self._catalog, attribute, at) for name in sums.largest]
            return Overview(
                await overview.list_days(conn, days, at), sums, await overview.read_waiting(conn, at), reports
            )

    async def troubles(self) -> Troubles:
        """What needs somebody: findings that are not well, what Stripe did not take, closes that wait, blocks, conflicts."""
        async with self._pool.connection() as conn:
            findings = await examine_ledger(conn, self._engine, datetime.now(UTC), self._at())
            events: list[StripeEventState] = await stripe_events.list_events(conn, "failed", ROWS_MAX)
            return Troubles(
                [each for each in findings if not each.ok],
                await overview.list_stuck(conn, ROWS_MAX, self._at()),
                events,
                await overview.list_deferred(conn, ROWS_MAX),
                await overview.list_blocked(conn, ROWS_MAX),
                await overview.list_conflicts(conn, ROWS_MAX),
            )

    async def find_entities(self, text: str, *, limit: int = ROWS_MAX) -> list[str]:
        """Payers whose id begins with `text`, the shortest first. Raises `InvalidUsage`."""
        check_text("text", text)
        check_limit(limit, LIMIT_MAX)
        async with self._pool.connection() as conn:
            return await overview.find_names(conn, text, limit)

    async def knows(self, entity: str) -> bool:
        """Whether anything was ever said of this payer; asking does not make them known, as other calls do."""
        async with self._pool.connection() as conn:
            return await reading.entity_exists(conn, check_entity(entity))

    async def all_periods(
        self, *, state: str | None = None, before: tuple[datetime, int] | None = None, limit: int = ROWS_MAX
    ) -> list[ListedPeriod]:
        """Dated periods of all payers, the latest end first; `before`: the (end, id) of the last one of the page before."""
        check_limit(limit, LIMIT_MAX)
        if state is not None:
            check_text("state", state)
        if before is not None:
            _check_place(before)
        async with self._pool.connection() as conn:
            return await overview.list_all_periods(conn, limit, state, before, self._at())

    async def all_charges(self, *, before: int | None = None, limit: int = ROWS_MAX) -> list[ListedCharge]:
        """Charges of all payers, newest first; `before`: a charge's id, for the next page. Raises `InvalidUsage`."""
        check_limit(limit, LIMIT_MAX)
        if before is not None:
            check_whole("before", before, 0, ID_MAX)
        async with self._pool.connection() as conn:
            return await overview.list_all_charges(conn, limit, before)


def _check_place(before: object) -> None:
    if not isinstance(before, tuple) or len(before) != 2:  # noqa: PLR2004  an end and an id
        raise InvalidUsage([Problem(None, "before", "invalid_cursor", "pass the end and the id of a period, or None")])
    check_moment("before", before[0])
    check_whole("before", before[1], 0, ID_MAX)
