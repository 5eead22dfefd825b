"""Makes the product's organizations, members and subscriptions known here, and what changes of them, while its counters still count (§13).

Each change is a short transaction of its own. Before it, its owner is marked as billed elsewhere, so that nothing of it is charged or told.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.cutover_plan import ENDED, LegacySubscription, subscription_finding
from meterbook.core.plans import Catalog
from meterbook.errors import CutoverRefused, MeterbookError
from meterbook.operations.attribute_usage import Attribute, Parties
from meterbook.operations.change_membership import (
    MEMBER_ROLES,
    add_member,
    put_organization,
    remove_member,
    transfer_ownership,
)
from meterbook.operations.put_subscription import SubscriptionTerms, put_subscription
from meterbook.postgres import cutover

ROWS_PER_PAGE = 500


@dataclass(frozen=True, slots=True)
class ChangedSubscription(LegacySubscription):
    digest: str


@dataclass(frozen=True, slots=True)
class ChangedOrganization:
    id: str
    owner: str | None
    digest: str
    is_known: bool


@dataclass(frozen=True, slots=True)
class ChangedMember:
    """`id`: the user's. `organization_id` None: the user has left."""

    id: str
    organization_id: str | None
    role: str | None
    digest: str | None
    digest_now: str | None


class Mirror:
    """One round of it. What can't be told is noted with its reason, and tried again at the next round."""

    def __init__(self, conn: AsyncConnection[Any], catalog: Catalog, attribute: Attribute, at: datetime | None) -> None:
        self._conn, self._catalog, self._attribute, self._at = conn, catalog, attribute, at
        self.told = 0

    async def run(self) -> None:
        async for organization in self._changed(ChangedOrganization, "list_changed_organizations"):
            await self._kept(f"organization:{organization.id}", self._organization, organization)
        async for member in self._changed(ChangedMember, "list_changed_members"):
            await self._kept(f"user:{member.id}", self._member, member)
        async for subscription in self._changed(ChangedSubscription, "list_changed_subscriptions"):
            await self._kept(subscription.owner or f"subscription:{subscription.id}", self._subscription, subscription)

    async def _changed(self, kind: type[Any], statement: str) -> AsyncIterator[Any]:
        after = ""
        while True:
            arguments = {"after": after, "rows": ROWS_PER_PAGE, "ended": list(ENDED)}
            page = await cutover.rows_of(self._conn, kind, statement, arguments)
            for one in page:
                yield one
            if len(page) < ROWS_PER_PAGE:
                return
            after = page[-1].id

    async def _kept(self, subject: str, tell: Any, said: Any) -> None:
        try:
            async with self._conn.transaction():
                await tell(said)
        except MeterbookError as error:
            if error.retryable:
                raise
            await cutover.change(self._conn, "note_refusal", {"subject": subject, "reason": str(error), "at": self._at})
        else:
            self.told += 1

    async def _organization(self, said: ChangedOrganization) -> None:
        if said.owner is None:
            raise CutoverRefused(f"organization {said.id} has no member whose role is owner")
        await self._shadow(f"user:{said.owner}")
        await put_organization(self._conn, said.id, said.owner, self._at)
        await self._shadow(f"organization:{said.id}")
        if said.is_known:
            await self._join(said.id, said.owner, "admin")
            await transfer_ownership(self._conn, said.id, said.owner)
        await self._note("organization", said.id, said.digest)

    async def _member(self, said: ChangedMember) -> None:
        await self._shadow(f"user:{said.id}")
        where = await cutover.value_of(self._conn, "organization_of", {"user": said.id})
        if where is not None and where != said.organization_id:
            await remove_member(self._conn, where, said.id, self._at)
        if said.organization_id is None:
            await cutover.change(self._conn, "forget_mirrored", {"kind": "member", "id": said.id})
            return
        if said.role != "owner" or where != said.organization_id:
            await self._join(said.organization_id, said.id, said.role)
        await self._note("member", said.id, said.digest_now)

    async def _join(self, organization: str, user: str, role: str | None) -> None:
        known = role if role in MEMBER_ROLES else "member"
        await add_member(self._conn, organization, user, str(known), self._at)

    async def _subscription(self, said: ChangedSubscription) -> None:
        problem = subscription_finding(said, self._catalog, self._at)
        if problem is not None or said.owner is None or said.status is None:
            raise CutoverRefused("is nobody's" if problem is None else problem.message)
        await self._shadow(said.owner)
        if said.starts_at is not None and said.ends_at is not None:
            terms = SubscriptionTerms(
                said.id,
                said.owner,
                said.plan,
                said.status,
                said.starts_at,
                said.ends_at,
                seats=said.seats,
                interval=said.interval or "month",
                cancel_at_period_end=said.cancel_at_period_end,
                stripe_customer=said.stripe_customer,
                stripe_subscription=said.stripe_subscription,
            )
            await put_subscription(self._conn, terms, self._catalog, self._at)
        await self._note("subscription", said.id, said.digest)

    async def _note(self, kind: str, name: str, digest: str | None) -> None:
        await cutover.change(self._conn, "note_mirrored", {"kind": kind, "id": name, "digest": digest})

    async def _shadow(self, entity: str) -> None:
        if entity.startswith("user:"):
            await self._attribute(Parties(entities=(entity,)))
        await cutover.change(self._conn, "shadow_owner", {"entity": entity, "at": self._at})
