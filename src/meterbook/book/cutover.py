"""From counters to the ledger (BEHAVIOUR §13), step by step. Each is idempotent and goes on where it was stopped; one runs at a time."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.book.access import LedgerAccess
from meterbook.core.cutover import (
    Absorbed,
    Compared,
    CutoverFinding,
    ImportedHistory,
    PlannedEntity,
    RolledBack,
    ShadowRound,
    SwitchedEntity,
)
from meterbook.core.cutover_plan import ENDED
from meterbook.core.legacy_mapping import LegacyMapping
from meterbook.core.money import EXACT, ZERO, total_of
from meterbook.errors import CutoverRefused, InProgress, InvalidMapping, KeyConflict, TransactionConflict
from meterbook.operations.absorb_bills import AbsorbedBills, absorb_bills, list_rebilled
from meterbook.operations.absorb_increments import AbsorbedHere, absorb_increments, begin_newcomers
from meterbook.operations.attribute_usage import Parties, attribute_usage
from meterbook.operations.begin_counters import Begun, begin_bare, begin_organizations, begin_people, set_baseline_of
from meterbook.operations.cutover_step import CutoverStep, Feed
from meterbook.operations.feed_ledger import OVERLAP_S, Fed, feed_entities
from meterbook.operations.import_history import (
    ImportedPage,
    Past,
    PastRow,
    import_page,
    list_past_places,
    pasts_of,
    seal_history,
)
from meterbook.operations.mirror_customers import Mirror
from meterbook.operations.plan_cutover import CutoverPlanner
from meterbook.operations.roll_back_cutover import roll_back_entity
from meterbook.operations.switch_entity import switch_entity
from meterbook.postgres import cutover
from meterbook.postgres.cutover import LegacyTables

ENTITIES_PER_TRANSACTION = 50
ENTITIES_PER_PAGE = 500
ATTEMPTS_MAX = 20
PAUSE_S = 0.1
QUIET_S = 900


@dataclass(frozen=True, slots=True)
class Listed:
    """An entity that a step is about."""

    entity_id: int
    state: str
    period_id: int
    entity: str
    period_state: str
    agreed_since: datetime | None
    note: str


@dataclass(frozen=True, slots=True)
class Lateness:
    """When a switched entity's counter last moved; `moving`: how many did lately. Old instances have stopped when none does."""

    last_moved_at: datetime | None
    moving: int
    moved: Decimal
    absorbed: Decimal


@dataclass(frozen=True, slots=True)
class States:
    """How many entities are how far."""

    shadow: int
    switched: int
    retired: int
    rolled_back: int


@dataclass(frozen=True, slots=True)
class Refused:
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unsound:
    """Something that a cutover promises and that does not hold."""

    claim: str
    entity: str
    found: Decimal | None
    expected: Decimal | None


class Cutover:
    """The steps over one mapping, on a connection of their own: their tables are views of its session. Made by `Book.cutover`."""

    def __init__(self, book: LedgerAccess, conn: AsyncConnection[Any], tables: LegacyTables, feed: Feed) -> None:
        self._book, self._conn, self._tables, self._feed = book, conn, tables, feed
        self._catalog = book.catalog
        self.findings: Sequence[CutoverFinding] = ()

    # ------------------------------------------------------------------------------------------------------------------ plan

    async def plan(self) -> AsyncIterator[PlannedEntity]:
        """Reads only. What does not add up is in `findings` when it has ended."""
        await self._check_owners()
        planner = CutoverPlanner(self._conn, self._tables, self._catalog, await self._now())
        async for planned in planner.entities():
            yield planned
        self.findings = planner.findings

    # ---------------------------------------------------------------------------------------------------------------- shadow

    async def shadow(self, *, dry_run: bool = False) -> ShadowRound:
        """One round: customers that changed, counters that begin, rows that were written since; then what differs.

        Until an entity is switched, nothing of it is billed, closed or told here. Raises `CutoverRefused` for another mapping than before.
        """
        async with self._step():
            await self._check_owners()
            await self._begin(dry_run=dry_run)
            at = await self._now()
            mirror = Mirror(self._conn, self._catalog, self._attribute, self._book_clock())
            if dry_run:
                return await self._dry_round(mirror, at)
            await cutover.change(self._conn, "clear_refusals", {})
            await mirror.run()
            begun = await self._begin_counters(at)
            await cutover.change(self._conn, "end_round", {})
            rows, refused = await self._feed_all("shadow")
            return await self._told(mirror.told, begun, rows, refused)

    async def _dry_round(self, mirror: Mirror, at: datetime) -> ShadowRound:
        """The same, undone; connections of others see nothing of it."""

        async def everything() -> ShadowRound:
            await mirror.run()
            return await self._told(mirror.told, await self._begin_counters(at), 0, 0)

        told: ShadowRound = await self._in_transaction(everything, dry_run=True)
        return told

    async def _check_owners(self) -> None:
        """An owner that names no entity would make its users free ones: that is a mistake of the mapping."""
        owner = await cutover.value_of(self._conn, "find_odd_owner", {"ended": list(ENDED)})
        if owner is not None:
            raise InvalidMapping(
                [
                    f"subscription.owner: gives {owner!r}, not user:<id> or organization:<id>: write owner = \"'user:' || …\""
                ]
            )

    async def _begin(self, *, dry_run: bool) -> None:
        mapping = self._tables.mapping.digest
        (known,) = await cutover.records_of(self._conn, "read_cutover", {"at": self._book_clock()})
        if known["mapping"] not in (None, mapping) and await cutover.value_of(self._conn, "has_begun"):
            raise CutoverRefused(
                "the mapping is another one than the steps before had: go on with that one, or roll back first"
            )
        if not dry_run:
            arguments = {"mapping": mapping, "feed": self._feed, "at": self._book_clock()}
            await cutover.change(self._conn, "begin_cutover", arguments)

    async def _begin_counters(self, at: datetime) -> int:
        since = at - timedelta(seconds=OVERLAP_S)
        begun, entities, after = 0, set[int](), ""
        while True:
            page = await self._in_transaction(self._begin_people, after, since, at)
            begun, entities = begun + page.counters, entities | page.entities
            if page.last is None:
                break
            after = page.last
        after = ""
        while True:
            page = await self._in_transaction(self._begin_organizations, after, since, at)
            begun, entities = begun + page.counters, entities | page.entities
            if page.last is None:
                break
            after = page.last
        for bare in await cutover.records_of(self._conn, "list_bare", {"rows": 100_000}):
            await begin_bare(self._conn, bare["entity_id"], bare["period_id"], at)
        for listed in await self._listed(("shadow",)):
            if listed.entity_id in entities:
                await self._in_transaction(self._set_baseline, listed.entity_id, listed.period_id, at)
        counters: int = begun
        return counters

    async def _begin_people(self, after: str, since: datetime, at: datetime) -> Begun:
        return await begin_people(self._conn, await self._context(at), self._attribute, after, since)

    async def _begin_organizations(self, after: str, since: datetime, at: datetime) -> Begun:
        return await begin_organizations(self._conn, self._tables, after, since, at)

    async def _set_baseline(self, entity_id: int, period_id: int, at: datetime) -> None:
        await set_baseline_of(self._conn, self._tables, entity_id, period_id, at)

    async def _feed_all(self, state: str) -> tuple[int, int]:
        names = {one.entity_id: one.entity for one in await self._listed((state,))}
        rows = refused = 0
        for batch in _batches(await self._moving(state)):
            some = {entity: names[entity] for entity in batch if entity in names}
            while True:
                fed = await self._in_transaction(self._feed_batch, some)
                rows, refused = rows + fed.rows, refused + fed.refused
                if not fed.has_more:
                    break
        await self._agree(names)
        return rows, refused

    async def _feed_batch(self, some: Mapping[int, str]) -> Fed:
        return await feed_entities(self._conn, await self._context(), some)

    async def _agree(self, names: Mapping[int, str]) -> None:
        """Entities whose counters rest agree without being looked at."""
        await cutover.change(self._conn, "note_rest", {"entities": list(names), "at": await self._now()})

    async def _moving(self, state: str) -> list[int]:
        arguments = {"state": state, "at": await self._now(), "overlap_s": OVERLAP_S}
        return [one["entity_id"] for one in await cutover.records_of(self._conn, "list_moving", arguments)]

    async def _told(self, mirrored: int, begun: int, rows: int, rows_refused: int) -> ShadowRound:
        (said,) = await cutover.records_of(self._conn, "sum_agreement")
        refused = len(await self.refusals())
        return ShadowRound(
            said["entities"],
            begun,
            mirrored,
            rows,
            rows_refused,
            said["differing"],
            refused,
            said["waiting"],
            said["since"],
        )

    async def refusals(self) -> list[Refused]:
        """What could not be taken over, and why."""
        return await cutover.rows_of(self._conn, Refused, "list_refusals", {"rows": 1000})

    async def compare(
        self, entity: str | None = None, states: Sequence[str] = ("shadow", "switched")
    ) -> AsyncIterator[Compared]:
        """Counters against the ledger, entity by entity: in shadow as of the last round, which read both in one snapshot."""
        after = 0
        while True:
            arguments = {
                "after": after,
                "states": list(states),
                "entity": entity,
                "rows": ENTITIES_PER_PAGE,
                "at": await self._now(),
            }
            page = await cutover.records_of(self._conn, "list_compared", arguments)
            for one in page:
                yield _compared(one)
            if len(page) < ENTITIES_PER_PAGE:
                return
            after = page[-1]["entity_id"]

    # ---------------------------------------------------------------------------------------------------------------- switch

    async def switch(
        self, entity: str | None = None, *, despite_differences: bool = False, dry_run: bool = False
    ) -> AsyncIterator[SwitchedEntity]:
        """One entity, or all; each is a short transaction of its own. Those that were switched before stay as they are."""
        async with self._step():
            await self._must_have_begun()
            if not await cutover.value_of(self._conn, "is_whole"):
                raise CutoverRefused("the last round of `shadow` did not come to its end: run it again first")
            for listed in await self._listed(("shadow", "switched", "retired", "rolled_back"), entity):
                yield await self._switch(listed, despite_differences=despite_differences, dry_run=dry_run)

    async def _switch(self, listed: Listed, *, despite_differences: bool, dry_run: bool) -> SwitchedEntity:
        async def switch() -> SwitchedEntity:
            step = await self._context()
            return await switch_entity(
                self._conn, step, listed.entity_id, listed.entity, despite_differences=despite_differences
            )

        try:
            done: SwitchedEntity = await self._in_transaction(switch, dry_run=dry_run)
            return done
        except CutoverRefused as error:
            return SwitchedEntity(listed.entity, "refused", reason=str(error))

    # ---------------------------------------------------------------------------------------------------------------- absorb

    async def absorb(self, *, dry_run: bool = False) -> Absorbed:
        """One look at the counters of switched entities: what old instances added since is recorded as late usage, once."""
        async with self._step():
            await self._must_have_begun()
            after: str | None = ""
            while after is not None and not dry_run:
                after = await self._in_transaction(self._begin_newcomers, after)
            found: list[AbsorbedHere] = [
                await self._in_transaction(self._absorb, batch, dry_run=dry_run)
                for batch in _batches([*await self._moving("switched"), *await self._moving("retired")])
            ]
            bills: list[AbsorbedBills] = [
                await self._in_transaction(self._absorb_bills, one["entity_id"], dry_run=dry_run)
                for one in await list_rebilled(self._conn)
            ]
            late = await self.lateness()
        return Absorbed(
            sum(one.counters for one in found),
            total_of(one.recorded for one in found),
            total_of(one.taken_back for one in found),
            total_of(one.waiting for one in found),
            late.last_moved_at,
            (*(note for one in found for note in one.notes), *(note for one in bills for note in one.notes)),
            sum(one.billed_cents for one in bills),
            sum(one.granted_cents for one in bills),
        )

    async def _absorb_bills(self, entity_id: int) -> AbsorbedBills:
        return await absorb_bills(self._conn, await list_rebilled(self._conn, [entity_id]), await self._now())

    async def _begin_newcomers(self, after: str) -> str | None:
        return await begin_newcomers(self._conn, await self._context(), self._attribute, after)

    async def _absorb(self, batch: Sequence[int]) -> AbsorbedHere:
        return await absorb_increments(self._conn, await self._context(), batch)

    async def put_trigger(self, *, stands: bool = True, dry_run: bool = False) -> bool:
        """Has a trigger on the counters' table note when one falls, or takes it away: then nothing that an old instance counts between two
        looks is lost, whatever the product resets meanwhile, also without a last period's value. Gives whether it changed anything.

        Raises `CutoverRefused` if the mapping names no table with bare columns, `InProgress` if that table is never free for 50 ms.
        """
        async with self._step():
            changed: bool = await self._in_transaction(self._put_trigger, stands, dry_run=dry_run)
        return changed

    async def _put_trigger(self, stands: bool) -> bool:  # noqa: FBT001  an argument of the transaction
        return await cutover.put_trigger(self._conn, self._tables, stands=stands)

    async def has_trigger(self) -> bool:
        return await cutover.has_trigger(self._conn, self._tables)

    async def lateness(self, quiet_s: int = QUIET_S) -> Lateness:
        """Whether old instances have stopped: nobody moved a counter for so long."""
        arguments = {"at": await self._now(), "quiet_s": quiet_s}
        (found,) = await cutover.rows_of(self._conn, Lateness, "read_lateness", arguments)
        return found

    # ------------------------------------------------------------------------------------------------------ verify and retire

    async def verify(self) -> list[Unsound]:
        """[] or what does not hold: baselines, days, late usage and rows against the ledger."""
        return await cutover.rows_of(self._conn, Unsound, "list_unsound", {"rows": 1000})

    async def retire(self, *, dry_run: bool = False) -> int:
        """Those whose first period was closed here: their counters decide nothing any more. Gives how many."""
        async with self._step():
            await self._must_have_begun()
            retired: int = await self._in_transaction(self._retire, dry_run=dry_run)
        return retired

    async def _retire(self) -> int:
        return len(await cutover.records_of(self._conn, "retire_entities"))

    async def states(self) -> States:
        (found,) = await cutover.rows_of(self._conn, States, "count_states")
        return found

    # -------------------------------------------------------------------------------------------------------------- rollback

    async def roll_back(self, entity: str | None = None, *, dry_run: bool = False) -> AsyncIterator[RolledBack]:
        """One entity, or all, back to its counters: what was used, billed and spent here since is added to the product's own rows."""
        async with self._step():
            await self._must_have_begun()
            for listed in await self._listed(("shadow", "switched", "retired", "rolled_back"), entity):
                yield await self._roll_back(listed, dry_run=dry_run)

    async def _roll_back(self, listed: Listed, *, dry_run: bool) -> RolledBack:
        async def roll_back() -> RolledBack:
            if listed.state == "switched":
                await self._absorb([listed.entity_id])
                await self._absorb_bills(listed.entity_id)
            return await roll_back_entity(self._conn, listed.entity_id, listed.entity, await self._now())

        try:
            done: RolledBack = await self._in_transaction(roll_back, dry_run=dry_run)
            return done
        except CutoverRefused as error:
            return RolledBack(listed.entity, "refused", reason=str(error))

    # --------------------------------------------------------------------------------------------------------------- history

    async def import_history(self, *, dry_run: bool = False) -> ImportedHistory:
        """Audit rows of past periods, of everybody who is compared or switched: sealed at once, readable, never billed."""
        async with self._step():
            await self._must_have_begun()
            rows, refused, amount, after = 0, 0, ZERO, ""
            while places := await list_past_places(self._conn, after, ENTITIES_PER_PAGE):
                for past in [past for place in places for past in pasts_of(place)]:
                    async for page in self._pages(past, dry_run=dry_run):
                        rows, refused = rows + page.rows, refused + page.refused
                        amount = EXACT.add(amount, page.amount)
                after = places[-1].user_id
            periods = 0
            while not dry_run and (sealed := await self._in_transaction(self._seal)):
                periods += sealed
        return ImportedHistory(periods, rows, amount, refused)

    async def _pages(self, past: Past, *, dry_run: bool) -> AsyncIterator[ImportedPage]:
        last: PastRow | None = None

        async def one() -> ImportedPage:
            return await import_page(self._conn, self._tables, past, last, self._catalog.currency, await self._now())

        while True:
            page = await self._in_transaction(one, dry_run=dry_run)
            yield page
            if page.last is None:
                return
            last = page.last

    async def _seal(self) -> int:
        return await seal_history(self._conn, ENTITIES_PER_TRANSACTION)

    # ---------------------------------------------------------------------------------------------------------------- common

    async def _must_have_begun(self) -> None:
        (known,) = await cutover.records_of(self._conn, "read_cutover", {"at": self._book_clock()})
        if known["mapping"] is None:
            raise CutoverRefused("nothing was compared yet: run `shadow` first")
        if known["mapping"] != self._tables.mapping.digest:
            raise CutoverRefused("the mapping is another one than `shadow` had")
        self._feed = known["feed"]

    async def _listed(self, states: Sequence[str], entity: str | None = None) -> list[Listed]:
        found: list[Listed] = []
        while True:
            arguments = {
                "states": list(states),
                "entity": entity,
                "after": found[-1].entity_id if found else 0,
                "rows": ENTITIES_PER_PAGE,
            }
            page = await cutover.rows_of(self._conn, Listed, "list_entities", arguments)
            found += page
            if len(page) < ENTITIES_PER_PAGE:
                break
        if entity is not None and not found:
            raise CutoverRefused(f"{entity} is not compared: `shadow` has not begun it")
        return found

    async def _in_transaction(self, work: Any, *arguments: Any, dry_run: bool = False) -> Any:
        """Repeated when PostgreSQL asks for that, or somebody else was quicker with a row or a key; undone in a dry run."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with self._conn.transaction(force_rollback=dry_run):
                    return await work(*arguments)
            except (TransactionConflict, InProgress, KeyConflict):
                if attempt == ATTEMPTS_MAX:
                    raise
            await asyncio.sleep(PAUSE_S)
        raise TransactionConflict

    @asynccontextmanager
    async def _step(self) -> AsyncIterator[None]:
        await cutover.lock_cutover(self._conn)
        try:
            yield
        finally:
            if not self._conn.closed:
                await cutover.unlock_cutover(self._conn)

    async def _attribute(self, parties: Parties) -> None:
        await attribute_usage(self._conn, parties, self._book_clock())

    def _book_clock(self) -> datetime | None:
        return self._book._at()  # noqa: SLF001  the Book's clock is everybody's

    async def _context(self, at: datetime | None = None) -> CutoverStep:
        everywhere = self._book._attribute  # noqa: SLF001  the Book's own calls need the same
        return CutoverStep(
            self._tables, self._catalog, everywhere, self._feed, at or await self._now(), self._book_clock()
        )

    async def _now(self) -> datetime:
        (said,) = await cutover.records_of(self._conn, "read_cutover", {"at": self._book_clock()})
        now: datetime = said["at"]
        return now


def _batches(entities: Sequence[int]) -> list[Sequence[int]]:
    return [
        entities[start : start + ENTITIES_PER_TRANSACTION]
        for start in range(0, len(entities), ENTITIES_PER_TRANSACTION)
    ]


def _compared(said: Mapping[str, Any]) -> Compared:
    accounted = said["accounted"]
    return Compared(
        said["entity"],
        said["state"],
        said["period"],
        said["counters"],
        said["ledger"],
        said["baseline"],
        said["unfed"],
        EXACT.subtract(said["ledger"], accounted),
        said["refused"],
        said["agreed_since"],
        said["note"],
    )


class CutoverCalls(LedgerAccess):
    """The call of a Book that leads from counters to the ledger."""

    @asynccontextmanager
    async def cutover(self, mapping: LegacyMapping, *, feed: Feed = "audit") -> AsyncIterator[Cutover]:
        """The steps over a product's tables in this database. Needs the owner of the ledger's schema, and a direct connection (no pooler).

        Raises `InvalidMapping` if the mapping doesn't fit the live tables, naming each field and what to write.
        """
        async with self._pool.connection() as conn:
            await cutover.detach(conn)
            tables = await cutover.attach(conn, mapping)
            try:
                yield Cutover(self, conn, tables, feed)
            finally:
                if not conn.closed:
                    await cutover.detach(conn)
