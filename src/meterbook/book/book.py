"""The promised calls. Each is one transaction of its own, unless the caller passes a connection."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import PoolTimeout

from meterbook.book.access import Clock, LedgerPool, Opened, inside
from meterbook.book.billing import BillingCalls
from meterbook.book.cutover import CutoverCalls
from meterbook.book.group_commit_asyncio import GroupCommit
from meterbook.book.groups import (
    ENTRIES_PER_GROUP_MAX,
    GROUP_ATTRIBUTE_WAIT_MS,
    GROUP_KEY_WAIT_MS,
    KEY_POLL_S,
    KEY_POLLS_MAX,
    SOUND,
    all_in_progress,
)
from meterbook.book.keys import KeyCalls
from meterbook.book.overview import OverviewCalls
from meterbook.book.stripe import StripeCalls
from meterbook.catalogs import load_catalog
from meterbook.core.attribution import Attribution
from meterbook.core.derivation import Derivation
from meterbook.core.entries import Entry, Usage, check_each_entry, check_entries, check_party
from meterbook.core.entry_pages import EntryFilter, EntryPage
from meterbook.core.period_facts import Period
from meterbook.core.plans import Catalog
from meterbook.core.recorded import Answer, BulkRecorded, EachRecorded, Recorded
from meterbook.core.upkeep import Compacted, Difference, Finding
from meterbook.core.usage_report import UsageReport
from meterbook.errors import AttributionUnavailable, KeyConflict, LedgerUnavailable, MeterbookError
from meterbook.operations import change_membership
from meterbook.operations.attribute_usage import Attribute, Parties, attribute_usage, resolve_attribution
from meterbook.operations.compact_deltas import DELTAS_PER_FOLD_MAX, compact_deltas
from meterbook.operations.correct_entry import correct_entry
from meterbook.operations.doctor import examine_ledger
from meterbook.operations.explain_usage import explain_usage
from meterbook.operations.give_back import give_back
from meterbook.operations.list_entries import list_entries
from meterbook.operations.put_subscription import SubscriptionTerms, put_subscription
from meterbook.operations.read_usage import list_periods, read_usage
from meterbook.operations.record_bulk import COPY_FROM, BulkTally, copy_usage, plan_copy, record_rest, refused_each
from meterbook.operations.record_cumulative import record_cumulative, running_total
from meterbook.operations.record_usage import answer_usage, find_refusal, record_usage, recorded
from meterbook.operations.verify_ledger import count_unprovable, rebuild_rollups, verify_ledger
from meterbook.postgres import compaction, recording
from meterbook.postgres.borrowed import borrowed
from meterbook.postgres.bulk import KeyAlreadyThere, may_copy
from meterbook.postgres.embedded import Embedded
from meterbook.postgres.migrate import check_ledger, find_settled, list_pending, migrate
from meterbook.postgres.refusals import connecting_advice, refusals
from meterbook.postgres.sessions import read_committed
from meterbook.postgres.underlying_asyncio import CallersConnection
from meterbook.stripe.gateway import StripeAccount

CONNECTIONS_MAX = 10
CONNECT_TIMEOUT_S = 10
HOME = Path(".meterbook")


@asynccontextmanager
async def open(
    url: str | None = None,
    *,
    catalog: Catalog | Path | None = None,
    clock: Clock | None = None,
    home: Path = HOME,
    connections_max: int = CONNECTIONS_MAX,
    billing: bool = True,
    stripe: StripeAccount | None = None,
) -> AsyncIterator["Book"]:
    """A Book on the database at `url`, or on an embedded PostgreSQL under `home`, which is migrated and started as needed.

    `clock` gives the time of every call (aware), for tests and replays; without one it is the database's, and only the owner of the schema
    may be ahead of that. With `billing` off every check and hold is allowed. `stripe` is for who relays the outbox or takes webhooks.
    Raises `LedgerUnavailable` (not reachable, not migrated), `EngineUnavailable`, `InvalidCatalog`, `WrongLedger` (another currency).
    """
    plans = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    if url is not None:
        await _try_connecting(url)
        async with _open_at(url, plans, clock, connections_max, "by URL", billing=billing, stripe=stripe) as book:
            yield book
        return
    engine = Embedded(home)
    engine_url = engine.start()
    try:
        with refusals():
            conn = await _connect(engine_url)
        async with conn:
            await migrate(conn, currency=plans.currency, free_period=plans.free_period)
        place = f"embedded under {home}"
        async with _open_at(engine_url, plans, clock, connections_max, place, billing=billing, stripe=stripe) as book:
            yield book
    finally:
        engine.stop()


async def _connect(url: str) -> AsyncConnection[Any]:
    return await AsyncConnection.connect(url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)


async def _try_connecting(url: str) -> None:
    """A pool goes on trying and then can't say why it failed; one connection says at once what no waiting mends."""
    try:
        with refusals():
            async with await _connect(url):
                pass
    except LedgerUnavailable as error:
        advice = connecting_advice(str(error))
        if advice is not None:
            raise LedgerUnavailable(f"{error}\n{advice}") from error


@asynccontextmanager
async def _open_at(
    url: str,
    plans: Catalog,
    clock: Clock | None,
    connections_max: int,
    engine: str,
    *,
    billing: bool,
    stripe: StripeAccount | None,
) -> AsyncIterator["Book"]:
    pool = LedgerPool(
        url,
        min_size=1,
        max_size=connections_max,
        open=False,
        configure=read_committed,
        kwargs={"autocommit": True, "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "meterbook"},
    )
    try:
        await pool.open(wait=True, timeout=CONNECT_TIMEOUT_S)
    except PoolTimeout as error:
        await pool.close()
        raise LedgerUnavailable(f"no PostgreSQL answers at this URL within {CONNECT_TIMEOUT_S} s") from error
    try:
        async with pool.connection() as conn:
            pending = await list_pending(conn)
            if pending:
                raise LedgerUnavailable(
                    f"the ledger is not migrated ({', '.join(pending)} missing). Run: meterbook migrate"
                )
            settled = await find_settled(conn)
            check_ledger(settled and settled[:2], plans.currency, plans.free_period)
            await compaction.ensure_partitions(conn, None if clock is None else clock())
        book = Book(
            Opened(pool, plans, clock, engine, billing, stripe, is_demo=settled is not None and settled.is_demo)
        )
        yield book
        await book.drain()
    finally:
        await pool.close()


class Book(BillingCalls, StripeCalls, KeyCalls, OverviewCalls, CutoverCalls):
    """One ledger. Made by `meterbook.open`; safe for concurrent use.

    An entity is `"user:<id>"` or `"organization:<id>"`, an amount str, Decimal or int, a time aware; every error is a `MeterbookError`
    with a stable `code`, and says by `retryable` whether the same call may succeed later.
    """

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened)
        self._group_commit = GroupCommit(self._write_group)
        self._copies: bool | None = None
        self._repeats_seen = False

    # ------------------------------------------------------------------------------------------------------------ recording

    async def record(
        self,
        actor: str,
        *,
        source: str,
        description: str,
        amount: str | Decimal | int,
        event_key: str | None = None,
        category: str = "model",
        line: str | None = None,
        entity: str | None = None,
        period: int | None = None,
        workspace: str | None = None,
        workflow: str | None = None,
        execution: str | None = None,
        source_reference: str | None = None,
        occurred_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        attribution: Attribution | str | None = None,
        conn: CallersConnection | None = None,
    ) -> Recorded:
        """Records one entry, exactly once: the same key again is replayed, or refused if it says something else.

        With `conn` in the caller's own transaction: work and charge commit or vanish together. Raises `KeyConflict`, `InvalidUsage`,
        `AttributionUnavailable`, `InProgress`, `TransactionConflict`, `Overloaded`, `LedgerUnavailable`; then nothing was written.
        """
        usage = Usage(
            actor, source, description, amount, category, event_key, line, entity, period, workspace, workflow,
            execution, source_reference, occurred_at, metadata, attribution,
        )  # fmt: skip
        return await self.record_many([usage], conn=conn)

    async def record_many(
        self, entries: Sequence[Usage | Mapping[str, Any]], *, conn: CallersConnection | None = None
    ) -> Recorded:
        """The same for several entries (`Usage`, or dicts of its fields), all or nothing; the error names every bad one."""
        sound = check_entries(entries, self._catalog.currency)
        if conn is not None:
            return await self._record_in(await borrowed(conn), sound)
        answers = await self._write_together(sound) if sound else []
        refusal = await self._find_refusal(sound, answers)
        if refusal is not None:
            raise refusal
        return recorded(answers)

    async def record_bulk(self, entries: Sequence[Usage | Mapping[str, Any]]) -> BulkRecorded:
        """Thousands at once, for imports: what is sound lands, what is not is named in `problems`; the same rules otherwise.

        New keys go by COPY where this user may (owner, importer). Raises only what is retryable; then part may have landed, and the same
        call again finishes it.
        """
        sound, problems = check_each_entry(entries, self._catalog.currency)
        tally = BulkTally(problems=list(problems), repeats_seen=self._repeats_seen)
        async with self._pool.connection() as conn:
            rest = sound
            if len(sound) >= COPY_FROM and await self._may_copy(conn):
                plan = await plan_copy(conn, sound, self._attribute_on(conn), self._at(), tally)
                try:
                    async with conn.transaction():
                        await copy_usage(conn, plan, tally)
                    rest = plan.rest
                except KeyAlreadyThere:
                    tally.repeats_seen = True
            await record_rest(conn, rest, self._attribute_on(conn), self._at(), tally)
        self._repeats_seen = tally.repeats_seen
        return tally.result()

    async def record_each(self, entries: Sequence[Usage | Mapping[str, Any]]) -> list[EachRecorded]:
        """Takes what is sound, and says of each entry what became of it, in the call's order; the same rules otherwise.

        Raises what is retryable; then part may have landed, and the same call again finishes it.
        """
        sound, problems = check_each_entry(entries, self._catalog.currency)
        became = {each.index: EachRecorded("refused", problem=each) for each in problems}
        for start in range(0, len(sound), ENTRIES_PER_GROUP_MAX):
            became |= await self._record_sound(sound[start : start + ENTRIES_PER_GROUP_MAX])
        return [became.get(index) or EachRecorded("nothing") for index in range(len(entries))]

    async def record_cumulative(
        self,
        actor: str,
        *,
        request: str,
        total: str | Decimal | int,
        source: str,
        description: str,
        category: str | None = None,
        entity: str | None = None,
        workspace: str | None = None,
        workflow: str | None = None,
        execution: str | None = None,
        source_reference: str | None = None,
        occurred_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        attribution: Attribution | str | None = None,
        conn: CallersConnection | None = None,
    ) -> Recorded:
        """Keeps the maximum of a request's running total: records the rise, if there is one (`amount` of the reply).

        Raises `KeyConflict` when a flush names another actor, workspace, entity, category, source or description than the request's first.
        """
        usage = Usage(
            actor, source, description, running_total(total), category or "model", None, None, entity, None, workspace, workflow,
            execution, source_reference, occurred_at, metadata, attribution,
        )  # fmt: skip
        named = category is not None
        if conn is not None:
            return await record_cumulative(
                await borrowed(conn),
                request,
                usage,
                self._catalog.currency,
                self._attribute,
                self._at(),
                names_category=named,
            )
        async with self._pool.connection() as own:
            return await record_cumulative(
                own, request, usage, self._catalog.currency, self._attribute_on(own), self._at(), names_category=named
            )

    async def correct(
        self,
        entry: str,
        *,
        amount: str | Decimal | int,
        reason: str,
        event_key: str,
        conn: CallersConnection | None = None,
    ) -> Recorded:
        """Adds `amount` (negative takes back) to an entry by a new one that points at it; together never below zero.

        Raises `UnknownEntry`, `CorrectionRefused`, `KeyConflict`, `InvalidUsage`, `InProgress`.
        """
        if conn is not None:
            return await self._correct_in(await borrowed(conn), self._attribute, entry, amount, reason, event_key)
        async with self._pool.connection() as own:
            return await self._correct_in(own, self._attribute_on(own), entry, amount, reason, event_key)

    async def resolve(self, actor: str, workspace: str | None = None) -> Attribution:
        """Who pays now: resolved before work begins, given when it is recorded, carried as `attribution.token`. It doesn't expire."""
        check_party(actor, workspace)
        async with self._pool.connection() as conn:
            return await resolve_attribution(conn, self._attribute_on(conn), actor, workspace, self._at())

    # -------------------------------------------------------------------------------------------------------------- reading

    async def usage(self, entity: str, period: str | int = "current") -> UsageReport:
        """`period`: "current", "last" (the latest that has ended) or an id. Exact while writers run, and flat in the number of entries.

        Raises `UnknownEntity`, `UnknownPeriod`, `AttributionUnavailable`.
        """
        async with self._pool.connection() as conn:
            return await read_usage(conn, entity, period, self._catalog, self._attribute_on(conn), self._at())

    async def entries(
        self,
        entity: str,
        *,
        actor: str | None = None,
        workspace: str | None = None,
        source: str | None = None,
        category: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        period: int | None = None,
        limit: int = 50,
        cursor: str | None = None,
        summary: bool = True,
    ) -> EntryPage:
        """Newest first; `[start, end)` is of occurred at. The summary covers the whole filter. Raises `InvalidCursor`, `InvalidUsage`."""
        wanted = EntryFilter(actor, workspace, source, category, start, end, period)
        async with self._pool.connection() as conn:
            return await list_entries(conn, entity, wanted, limit, cursor, summary=summary)

    async def periods(self, entity: str) -> list[Period]:
        """Every period of an entity, newest first. Raises `UnknownEntity`, `AttributionUnavailable`."""
        async with self._pool.connection() as conn:
            return await list_periods(conn, entity, self._attribute_on(conn), self._at())

    async def explain(self, entity: str, period: str | int = "current") -> Derivation:
        """Why the figures of a period are what they are, down to rows. `meterbook.render` prints it, `meterbook.as_data` is for JSON."""
        usage = await self.usage(entity, period)
        async with self._pool.connection() as conn:
            return await explain_usage(conn, usage)

    # ------------------------------------------------------------------------------------------------------------ customers

    async def put_subscription(
        self,
        *,
        id: str,  # noqa: A002  the promised name
        owner: str,
        plan: str,
        status: str,
        starts_at: datetime,
        ends_at: datetime,
        seats: int | None = None,
        interval: str = "month",
        anchor: datetime | None = None,
        cancel_at_period_end: bool = False,
        effective_at: datetime | None = None,
        currency: str | None = None,
        stripe_customer: str | None = None,
        stripe_subscription: str | None = None,
        cancel_at: datetime | None = None,
    ) -> None:
        """What a subscription says now; opens, cuts or amends the periods that follow. `[starts_at, ends_at)` is its current period.

        Raises `UnknownPlan`, `UnknownInterval`, `UnknownEntity` (the organization that owns it), `InvalidUsage`.
        """
        terms = SubscriptionTerms(
            id, owner, plan, status, starts_at, ends_at, seats, interval, anchor, cancel_at_period_end, effective_at,
            currency, stripe_customer, stripe_subscription, cancel_at,
        )  # fmt: skip
        async with self._pool.connection() as conn:
            await put_subscription(conn, terms, self._catalog, self._at())

    async def put_organization(self, organization: str, *, owner: str) -> None:
        """Makes an organization known; its owner is its first member. Raises `MembershipRefused`."""
        async with self._pool.connection() as conn:
            await change_membership.put_organization(conn, organization, owner, self._at())

    async def add_member(self, organization: str, user: str, role: str = "member") -> None:
        """One organization a user: a second is refused (`MembershipRefused`). Raises `UnknownEntity`."""
        async with self._pool.connection() as conn:
            await change_membership.add_member(conn, organization, user, role, self._at())

    async def remove_member(self, organization: str, user: str) -> None:
        """From now on the person's own subscription, or the person, pays; what was recorded stays. Raises `MembershipRefused`."""
        async with self._pool.connection() as conn:
            await change_membership.remove_member(conn, organization, user, self._at())

    async def transfer_ownership(self, organization: str, user: str) -> None:
        """Changes who is asked, not one amount; the new owner must be a member (`MembershipRefused`)."""
        async with self._pool.connection() as conn:
            await change_membership.transfer_ownership(conn, organization, user)

    async def put_workspace(self, workspace: str, *, payer: str | None = None) -> None:
        """Exactly `payer` pays for what happens in it, whoever acts; None leaves it to the actor. Raises `UnknownEntity`."""
        async with self._pool.connection() as conn:
            await change_membership.put_workspace(conn, workspace, payer, self._at())

    # ---------------------------------------------------------------------------------------------------------------- proof

    async def verify(self, entity: str | None = None) -> list[Difference]:
        """[] or every derived figure that the entries don't bear out; exact while writers run."""
        async with self._pool.connection() as conn:
            return await verify_ledger(conn, entity)

    async def unprovable(self, entity: str | None = None) -> int:
        """How many entries `verify` took at their word about who acted: that person was erased, and the fingerprint with them."""
        async with self._pool.connection() as conn:
            return await count_unprovable(conn, entity)

    async def rebuild(self, entity: str) -> int:
        """Derives an entity's rollups anew from its entries; gives their number."""
        async with self._pool.connection() as conn:
            return await rebuild_rollups(conn, entity)

    async def doctor(self) -> list[Finding]:
        """The engine, the settings that matter, partitions ahead, compaction lag; each with what to do if it isn't well."""
        async with self._pool.connection() as conn:
            return await examine_ledger(conn, self._engine, datetime.now(UTC), self._at())

    # --------------------------------------------------------------------------------------------------------------- upkeep

    async def compact(self) -> Compacted:
        """Folds what waits, in bounded transactions, makes the partitions ahead and vacuums. A worker does it by itself."""
        folded = await self.fold()
        await self.ensure_partitions()
        if folded.deltas:
            await self.vacuum()
        return folded

    async def fold(self) -> Compacted:
        """Ends with the first fold that was not full: beside writers, some deltas always wait."""
        deltas, entities = 0, frozenset[int]()
        async with self._pool.connection() as conn:
            while True:
                fold = await compact_deltas(conn, self._at())
                deltas, entities = deltas + fold.deltas, entities | fold.entities
                if fold.deltas < DELTAS_PER_FOLD_MAX:
                    return Compacted(deltas, entities)

    async def ensure_partitions(self) -> int:
        """Makes those of the months ahead; gives how many."""
        async with self._pool.connection() as conn:
            return await compaction.ensure_partitions(conn, self._at())

    async def vacuum(self) -> bool:
        """Gives the disk back what folds have consumed. False if this user may not; autovacuum does it, later."""
        async with self._pool.connection() as conn:
            return await compaction.vacuum_deltas(conn)

    async def drain(self) -> None:
        """Returns when everything that was handed in has been committed or refused."""
        await self._group_commit.drain()
        await self._drain_holds()

    # -------------------------------------------------------------------------------------------------------------- private

    async def _find_refusal(self, entries: Sequence[Entry], answers: Sequence[Answer]) -> MeterbookError | None:
        if {answer.outcome for answer in answers} <= SOUND:
            return None
        async with self._pool.connection() as own:
            return await find_refusal(own, entries, answers)

    async def _record_sound(self, entries: Sequence[Entry]) -> dict[int | None, EachRecorded]:
        """Without those that are refused for good, as often as it takes; by their places in the call."""
        became: dict[int | None, EachRecorded] = {}
        left = entries
        while left:
            answers = await self._write_together(left)
            refusal = await self._find_refusal(left, answers)
            if refusal is None:
                written = zip(left, recorded(answers).entries, strict=True)
                return became | {one.position: EachRecorded(its.outcome, its) for one, its in written}
            became |= refused_each(refusal)
            left = [entry for entry in left if entry.position not in became]
        return became

    async def _write_together(self, entries: Sequence[Entry]) -> list[Answer]:
        """In a commit shared with other callers, whom no wait of these entries holds up: neither for a key nor for who pays."""
        answers = await self._group_commit.submit(entries)
        for _ in range(KEY_POLLS_MAX):
            if not all_in_progress(answers):
                break
            await asyncio.sleep(KEY_POLL_S)
            answers = await self._group_commit.submit(entries, alone=True)
        if "unattributed" in {answer.outcome for answer in answers}:
            async with self._pool.connection() as conn:
                return await answer_usage(conn, entries, self._attribute_on(conn), self._at(), note_conflicts=True)
        return answers

    async def _write_group(self, entries: Sequence[Entry]) -> list[Answer]:
        async with self._pool.connection() as conn:
            answers = await self._record_group(conn, entries)
            unattributed = [answer for answer in answers if answer.outcome == "unattributed"]
            if not unattributed:
                return answers
            parties = Parties.of([entries[answer.n - 1] for answer in unattributed], unattributed)
            try:
                await attribute_usage(conn, parties, self._at(), GROUP_ATTRIBUTE_WAIT_MS)
            except AttributionUnavailable:
                return answers  # theirs to wait for, not their neighbours'
            return await self._record_group(conn, entries)

    async def _record_group(self, conn: AsyncConnection[Any], entries: Sequence[Entry]) -> list[Answer]:
        return await recording.record_usage(
            conn, entries, self._at(), note_conflicts=True, key_wait_ms=GROUP_KEY_WAIT_MS
        )

    async def _may_copy(self, conn: AsyncConnection[Any]) -> bool:
        if self._copies is None:
            self._copies = await may_copy(conn)
        return self._copies

    async def _correct_in(
        self,
        conn: AsyncConnection[Any],
        attribute: Attribute,
        entry: str,
        amount: str | Decimal | int,
        reason: str,
        event_key: str,
    ) -> Recorded:
        """The correction, and what it gives back of a closed period's bill, together. A conflict was noted, and stays."""
        async with inside(conn):
            said = await self._corrected(conn, attribute, entry, amount, reason, event_key)
        if isinstance(said, KeyConflict):
            raise said
        return said

    async def _corrected(
        self,
        conn: AsyncConnection[Any],
        attribute: Attribute,
        entry: str,
        amount: str | Decimal | int,
        reason: str,
        event_key: str,
    ) -> Recorded | KeyConflict:
        try:
            corrected = await correct_entry(conn, entry, amount, reason, event_key, attribute, self._at())
        except KeyConflict as conflict:
            return conflict
        for one in corrected.entries:
            if one.outcome == "inserted":
                await give_back(conn, one.entity, one.id, one.amount, self._catalog, self._at())
        return corrected

    async def _record_in(self, conn: AsyncConnection[Any], entries: Sequence[Entry]) -> Recorded:
        """In the caller's transaction. A conflict is noted apart from it, since the caller is going to roll back."""
        try:
            return await record_usage(conn, entries, self._attribute, self._at(), note_conflicts=False)
        except KeyConflict:
            async with self._pool.connection() as own:
                await recording.note_conflicts(own, entries, self._at())
            raise
