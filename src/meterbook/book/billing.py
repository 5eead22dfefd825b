"""The promised calls of the billing engine: limits, holds, credits, charges, closes."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from meterbook.book.holding import HoldingCalls
from meterbook.book.sweep import Closed, Failures, close_due, look_at_moved, pass_clocks
from meterbook.core.admission import Admission, admission_derivation, billing_off, check_failed
from meterbook.core.derivation import Derivation
from meterbook.core.entries import check_party
from meterbook.core.ledgers import Billed, Charge, CreditAccount, MemberCap, OutboxRow, Swept
from meterbook.errors import Unavailable
from meterbook.operations import delete_customer
from meterbook.operations.attribute_usage import Parties
from meterbook.operations.bill_threshold import bill_threshold, lock_running_period
from meterbook.operations.check_admission import check_admission, read_admission
from meterbook.operations.compact_deltas import DELTAS_PER_FOLD_MAX, compact_deltas
from meterbook.operations.grant_credit import PRIORITY, CreditTerms, grant_credit, read_credits
from meterbook.operations.read_usage import read_usage
from meterbook.operations.set_limit import check_block, set_baseline, set_limit, set_member_cap
from meterbook.postgres import billing

CHECK_TIMEOUT_S = 5
"""How long a check waits for a connection before it denies."""


class BillingCalls(HoldingCalls):
    """The calls of a Book that decide about money."""

    # ------------------------------------------------------------------------------------------------------------ admission

    async def check(self, actor: str, *, workspace: str | None = None) -> Admission:
        """May this work begin? Never raises for what could not be determined: then it denies, and says that a retry may help.

        It reserves nothing: two at once may both be allowed, and `overshoot` says that nothing bounds what they cost together (None). Work
        that was held can't overshoot (0).
        """
        if not self._billing:
            return billing_off()
        check_party(actor, workspace)
        try:
            async with self._pool.connection(CHECK_TIMEOUT_S) as conn:
                return await check_admission(
                    conn, actor, workspace, self._catalog, self._attribute_on(conn), self._at()
                )
        except Unavailable as error:
            return check_failed(str(error))

    async def explain_check(self, actor: str, *, workspace: str | None = None) -> Derivation:
        """Why a check of this actor answers what it answers now. Raises what would make it fail."""
        check_party(actor, workspace)
        async with self._pool.connection() as conn:
            attribute = self._attribute_on(conn)
            facts = await read_admission(conn, actor, workspace, self._catalog, attribute, self._at())
        return admission_derivation(facts)

    # --------------------------------------------------------------------------------------------------------------- limits

    async def set_limit(self, entity: str, amount: str | Decimal | int, *, by: str | None = None) -> Decimal:
        """Stores a limit, half up to cents, and gives it. `by`: the user who edits, an operator if None. Raises `LimitRefused`."""
        async with self._pool.connection() as conn:
            usage = await read_usage(conn, entity, "current", self._catalog, self._attribute_on(conn), self._at())
            return await set_limit(conn, usage, amount, by, self._catalog, self._at())

    async def set_member_cap(self, organization: str, user: str, cap: str | Decimal | int | None) -> None:
        """What a member may use of the organization's period, before any refresh; None: no cap, 0: nothing."""
        async with self._pool.connection() as conn:
            await set_member_cap(conn, organization, user, cap)

    async def member_caps(self, organization: str) -> list[MemberCap]:
        """Every member, by name. Raises `UnknownEntity`."""
        async with self._pool.connection() as conn:
            return await billing.list_member_caps(conn, await self._entity_id(conn, f"organization:{organization}"))

    async def block(self, entity: str, *, reason: str, reference: str = "") -> bool:
        """`payment_failed`, `dispute` or `administrative`; `reference` names the invoice or dispute. True if something changed."""
        check_block(reason, reference)
        async with self._pool.connection() as conn:
            entity_id = await self._entity_id(conn, entity)
            return await billing.set_block(conn, entity_id, reason, reference, blocked=True, at=self._at())

    async def unblock(self, entity: str, *, reason: str, reference: str = "") -> bool:
        """Ends that block alone; touches nothing that was billed."""
        check_block(reason, reference)
        async with self._pool.connection() as conn:
            entity_id = await self._entity_id(conn, entity)
            return await billing.set_block(conn, entity_id, reason, reference, blocked=False, at=self._at())

    async def set_baseline(
        self, entity: str, amount: str | Decimal | int, *, audit: Sequence[tuple[datetime, str | Decimal | int]] = ()
    ) -> None:
        """What a legacy counter held of the running period; `audit` rows give it days. Raises `BaselineRefused`."""
        async with self._pool.connection() as conn:
            usage = await read_usage(conn, entity, "current", self._catalog, self._attribute_on(conn), self._at())
            async with conn.transaction():
                await set_baseline(conn, usage, amount, audit)

    # -------------------------------------------------------------------------------------------------------------- credits

    async def grant_credit(
        self,
        entity: str,
        *,
        amount: str | Decimal | int,
        grant_id: str,
        source: str = "promotion",
        priority: int = PRIORITY,
        expires_at: datetime | None = None,
    ) -> bool:
        """Whole cents above 0, once a `grant_id` (False: it was there). Raises `KeyConflict`, `InvalidUsage`."""
        terms = CreditTerms(amount, grant_id, source, priority, expires_at)
        async with self._pool.connection() as conn:
            return await grant_credit(conn, await self._entity_id(conn, entity), terms, self._at())

    async def credits(self, entity: str) -> CreditAccount:
        """Grants, what is left of each, and what can be spent now."""
        async with self._pool.connection() as conn:
            return await read_credits(conn, await self._entity_id(conn, entity), self._now())

    # --------------------------------------------------------------------------------------------------------------- charges

    async def bill_threshold(self, entity: str) -> Billed:
        """Bills the running period if its unbilled overage has reached the threshold; says why it did not."""
        async with self._pool.connection() as conn:
            entity_id = await self._entity_id(conn, entity)
            await self._attribute_on(conn)(Parties(entities=(entity,)))
            async with conn.transaction():
                usage = await lock_running_period(conn, entity_id, self._catalog, self._at())
                return await bill_threshold(conn, usage, self._catalog)

    async def charges(self, entity: str, period: str | int | None = None) -> list[Charge]:
        """Oldest first; of "current", "last", a period's id, or of all."""
        async with self._pool.connection() as conn:
            entity_id = await self._entity_id(conn, entity)
            period_id = None
            if period is not None:
                usage = await read_usage(conn, entity, period, self._catalog, self._attribute_on(conn), self._at())
                period_id = usage.period.id
            return await billing.list_charges(conn, entity_id, period_id)

    async def close(self, entity: str) -> Closed:
        """Closes what is due of one entity, oldest first."""
        async with self._pool.connection() as conn:
            entity_id = await self._entity_id(conn, entity)
            await self._attribute_on(conn)(Parties(entities=(entity,)))
            return await close_due(conn, self._catalog, self._at(), entity_id=entity_id)

    async def sweep(self) -> Swept:
        """Everything that is due now: folds, opens, closes, thresholds, alerts. Idempotent; two at once are safe."""
        at, failures = self._at(), Failures()
        async with self._pool.connection() as conn:
            deltas = 0
            while True:
                fold = await compact_deltas(conn, at)
                deltas += fold.deltas
                if fold.deltas < DELTAS_PER_FOLD_MAX:
                    break
            opened = await pass_clocks(conn, at, failures)
            closed = await close_due(conn, self._catalog, at, failures)
            billed, alerts = await look_at_moved(conn, self._catalog, at, failures)
        return Swept(deltas, opened, closed.closed, closed.deferred, billed, alerts, tuple(failures.said))

    async def outbox(self, entity: str | None = None) -> list[OutboxRow]:
        """What has to be told to others, oldest first."""
        async with self._pool.connection() as conn:
            entity_id = None if entity is None else await self._entity_id(conn, entity)
            return await billing.list_outbox(conn, entity_id)

    # -------------------------------------------------------------------------------------------------------------- deleting

    async def delete_user(self, user: str) -> None:
        """Ends their subscription, leaves their organization, erases their id, and no row. Raises `MembershipRefused`, `UnsettledMoney`."""
        async with self._pool.connection() as conn:
            await delete_customer.delete_user(conn, user, self._catalog, self._at())

    async def delete_organization(self, organization: str) -> None:
        """Ends its subscription; members fall back as on leaving. Raises `UnknownEntity`, `UnsettledMoney`."""
        async with self._pool.connection() as conn:
            await delete_customer.delete_organization(conn, organization, self._catalog, self._at())
