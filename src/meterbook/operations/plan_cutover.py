"""What a cutover would do (BEHAVIOUR §13, plan): whose counters are whose, what the baselines would be, what does not add up."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.baselines import oldest_first
from meterbook.core.cutover import CutoverFinding, PlannedEntity
from meterbook.core.cutover_plan import (
    ENDED,
    LegacySubscription,
    Person,
    amount_code,
    amount_problem,
    best_of,
    payer_of,
    person_findings,
    places_of,
    window_of,
)
from meterbook.core.money import EXACT, ZERO, total_of
from meterbook.core.plans import Catalog
from meterbook.operations.begin_counters import audit_days, departed_days, subscriptions_of
from meterbook.postgres import cutover
from meterbook.postgres.cutover import LegacyTables

PEOPLE_PER_PAGE = 500
MONTH = timedelta(days=31)
SCAN_COST_MAX = 2_000
"""In PostgreSQL's units: some ten thousand rows."""


@dataclass(frozen=True, slots=True)
class LegacyOrganization:
    id: str
    usage_limit: Decimal | None
    credits: Decimal
    departed: Decimal
    owner: str | None


@dataclass(slots=True)
class _Pool:
    """What the members of one organization add up to, page by page."""

    counters: int = 0
    baseline: Decimal = ZERO
    dated: Decimal = ZERO
    audit: Decimal = ZERO
    billed: Decimal = ZERO
    blocked: str | None = None
    refused: bool = False
    subscription: LegacySubscription | None = None


@dataclass(slots=True)
class CutoverPlanner:
    """Goes through their users in pages, then through their organizations, of each of which a few sums are kept meanwhile. Reads only."""

    conn: AsyncConnection[Any]
    tables: LegacyTables
    catalog: Catalog
    at: datetime
    findings: list[CutoverFinding] = field(default_factory=list)
    pools: dict[str, _Pool] = field(default_factory=dict)
    people: int = 0

    async def entities(self) -> AsyncIterator[PlannedEntity]:
        after = ""
        while page := await self._page(after):
            for planned in await self._plan_page(page):
                yield planned
            after = page[-1].user_id
        async for planned in self._organizations():
            yield planned
        await self._look_for_orphans()
        await self._look_for_nobodys()

    async def _page(self, after: str) -> list[Person]:
        arguments = {"after": after, "rows": PEOPLE_PER_PAGE, "users": None}
        return await cutover.rows_of(self.conn, Person, "list_people", arguments)

    async def _plan_page(self, page: Sequence[Person]) -> list[PlannedEntity]:
        subscriptions = await subscriptions_of(self.conn, page)
        sound = [person for person in page if self._note(person, subscriptions)]
        days = await self._days(sound, subscriptions)
        self.people += len(page)
        return [self._entity(person, subscriptions, days) for person in sound]

    def _note(self, person: Person, subscriptions: Mapping[str, Sequence[LegacySubscription]]) -> bool:
        found = person_findings(person, subscriptions, self.catalog, self.at)
        self.findings += found
        refused = any(one.refused for one in found)
        if refused and person.organization_id is not None:
            self.pools.setdefault(person.organization_id, _Pool()).refused = True
        return not refused

    async def _days(
        self, people: Sequence[Person], subscriptions: Mapping[str, Sequence[LegacySubscription]]
    ) -> dict[str, dict[int, Decimal]]:
        places = []
        for person in people:
            payer, paying = payer_of(person, subscriptions, self.catalog)
            own = best_of(subscriptions.get(person.entity, ()), self.catalog)
            places += places_of(
                person,
                None if paying is None else (payer, *window_of(paying, self.at)),
                None if own is None or payer == person.entity else (person.entity, *window_of(own, self.at)),
                self.at,
            )
        return await audit_days(self.conn, self.tables, places) if self.tables.mapping.has("audit") else {}

    def _entity(
        self,
        person: Person,
        subscriptions: Mapping[str, Sequence[LegacySubscription]],
        days: Mapping[str, Mapping[int, Decimal]],
    ) -> PlannedEntity:
        payer, paying = payer_of(person, subscriptions, self.catalog)
        rows = days.get(person.entity, {})
        own = best_of(subscriptions.get(person.entity, ()), self.catalog)
        if payer == person.entity:
            self._compare(person.entity, person.running, total_of(rows.values()), dated=paying is not None)
            return self._planned(person, paying, [(person.running, rows)], person.billed, person.blocked)
        self._pool(person, paying, rows)
        is_owner = person.role == "owner"
        kept = [(person.kept, days.get(f"kept:{person.user_id}", {}))] if own is not None else []
        return self._planned(person, own, kept, ZERO if is_owner else person.billed, None)

    def _pool(self, person: Person, paying: LegacySubscription | None, rows: Mapping[int, Decimal]) -> None:
        pool = self.pools.setdefault(str(person.organization_id), _Pool())
        pool.subscription = paying
        pool.counters += 1
        pool.baseline = EXACT.add(pool.baseline, person.running)
        pool.dated = EXACT.add(pool.dated, total_of(oldest_first(person.running, rows).values()))
        pool.audit = EXACT.add(pool.audit, total_of(rows.values()))
        if person.role == "owner":
            pool.billed, pool.blocked = person.billed, person.blocked

    def _planned(
        self,
        person: Person,
        paying: LegacySubscription | None,
        counters: Sequence[tuple[Decimal, Mapping[int, Decimal]]],
        billed: Decimal,
        blocked: str | None,
    ) -> PlannedEntity:
        starts, ends = (None, None) if paying is None else window_of(paying, self.at)
        return PlannedEntity(
            person.entity,
            "free" if paying is None else paying.plan,
            starts,
            ends,
            len(counters),
            total_of(amount for amount, _ in counters),
            total_of(part for amount, rows in counters for part in oldest_first(amount, rows).values()),
            total_of(part for _, rows in counters for part in rows.values()),
            billed,
            person.credits,
            person.usage_limit,
            blocked,
            refused=False,
        )

    async def _organizations(self) -> AsyncIterator[PlannedEntity]:
        after = ""
        while True:
            arguments = {"after": after, "rows": PEOPLE_PER_PAGE}
            page = await cutover.rows_of(self.conn, LegacyOrganization, "list_organizations", arguments)
            for organization in page:
                yield await self._organization(organization)
            if not page:
                return
            after = page[-1].id

    async def _organization(self, said: LegacyOrganization) -> PlannedEntity:
        pool, entity = self.pools.pop(said.id, _Pool()), f"organization:{said.id}"
        if said.owner is None:
            message = "has no member whose role is owner"
            self.findings.append(
                CutoverFinding("no_owner", entity, message, "left out until it is mended", refused=True)
            )
            pool.refused = True
        for name, amount in (
            ("usage_limit", said.usage_limit or ZERO),
            ("credits", said.credits),
            ("departed", said.departed),
        ):
            problem = amount_problem(name, amount)
            if problem is not None:
                self.findings.append(
                    CutoverFinding(amount_code(amount), entity, problem, "left out until it is mended", refused=True)
                )
                pool.refused, said = True, replace(said, departed=ZERO)
        if said.departed > ZERO:
            pool.dated = EXACT.add(pool.dated, await self._departed(entity, said, pool.subscription))
        if not pool.refused:
            self._compare(entity, pool.baseline, pool.audit, dated=pool.subscription is not None)
        paying = pool.subscription
        starts, ends = (None, None) if paying is None else window_of(paying, self.at)
        return PlannedEntity(
            entity, "free" if paying is None else paying.plan, starts, ends, pool.counters, EXACT.add(pool.baseline, said.departed),
            pool.dated, pool.audit, pool.billed, said.credits, said.usage_limit, pool.blocked, pool.refused,
        )  # fmt: skip

    async def _departed(self, entity: str, said: LegacyOrganization, paying: LegacySubscription | None) -> Decimal:
        """How much of what departed members used has a day."""
        dated = ZERO
        if paying is not None:
            days = await departed_days(self.conn, self.tables, entity, *window_of(paying, self.at), self.at)
            dated = total_of(oldest_first(said.departed, days).values())
        rest = EXACT.subtract(said.departed, dated)
        if rest:
            text = f"departed members used {said.departed:f}; whose rows {rest:f} of it were, the log does not say"
            self.findings.append(
                CutoverFinding("departed_without_days", entity, text, "baseline without days: not refreshed")
            )
        return dated

    def _compare(self, entity: str, counter: Decimal, audit: Decimal, *, dated: bool) -> None:
        """The counter is what is owed; the log only dates it."""
        if not dated or counter == audit:
            return
        if counter > audit:
            text = f"the counters say {counter:f}, the audit log {audit:f}"
            treatment = "the counters are owed; what has no row has no day, and is not refreshed"
            self.findings.append(CutoverFinding("counter_above_audit", entity, text, treatment))
        else:
            text = f"the counters say {counter:f}, the audit log {audit:f}"
            treatment = "the counters are owed; the oldest rows date them"
            self.findings.append(CutoverFinding("counter_below_audit", entity, text, treatment))

    async def _look_for_nobodys(self) -> None:
        """Counters and subscriptions that name nobody."""
        (found,) = await cutover.records_of(self.conn, "count_nameless")
        if found["counters"]:
            text = f"{found['counters']} rows of {found['amount']:f} name no user"
            self.findings.append(
                CutoverFinding("counter_without_user", "counter", text, "left out until it is mended", refused=True)
            )
        for one in await cutover.records_of(self.conn, "list_ownerless", {"ended": list(ENDED)}):
            self.findings.append(
                CutoverFinding(
                    "no_owner", f"subscription:{one['id']}", "is nobody's", "left out until it is mended", refused=True
                )
            )

    async def _look_for_index(self) -> None:
        """Each look asks for rows of single users: without an index it reads the whole log, again and again."""
        plan = await cutover.value_of(self.conn, "explain_audit", {"since": self.tables.earliest(self.at)})
        if any(
            each["Node Type"] == "Seq Scan" and each["Total Cost"] > SCAN_COST_MAX for each in _nodes(plan[0]["Plan"])
        ):
            text = "PostgreSQL reads the whole log to find one user's rows"
            treatment = "make an index on (user, time) first, concurrently, with the expressions of the mapping"
            self.findings.append(CutoverFinding("audit_without_index", "audit", text, treatment))

    async def _look_for_orphans(self) -> None:
        if not self.tables.mapping.has("audit"):
            return
        await self._look_for_index()
        (found,) = await cutover.records_of(
            self.conn, "count_orphans", {"since": self.tables.earliest(self.at - MONTH)}
        )
        if found["entries"]:
            text = f"{found['entries']} rows of {found['amount']:f} are by {found['users']} users without a counter"
            self.findings.append(
                CutoverFinding("rows_without_counter", "audit", text, "nobody counted them: not billed")
            )


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Of PostgreSQL's plan, each with those below it."""
    return [plan, *(below for each in plan.get("Plans", ()) for below in _nodes(each))]
