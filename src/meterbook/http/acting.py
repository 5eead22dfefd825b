"""Routes that decide and change: checks and holds, limits, organizations, subscriptions, grants, blocks."""

from typing import Annotated, Any

from litestar import Request, delete, post, put
from litestar.params import QueryParameter

from meterbook.core.derivation import amount_text
from meterbook.errors import Denied
from meterbook.http.acts import noted
from meterbook.http.bodies import read_body
from meterbook.http.door import GivenDoor
from meterbook.http.wire import (
    AdmissionOut,
    BlockIn,
    CapIn,
    ChangedOut,
    DoneOut,
    GrantedOut,
    GrantIn,
    HoldIn,
    HoldOut,
    LimitIn,
    LimitOut,
    MemberIn,
    OrganizationIn,
    OwnerIn,
    PartyIn,
    ReleasedOut,
    ReleaseIn,
    SettledOut,
    SettleIn,
    SubscriptionIn,
    WorkspaceIn,
    arguments_of,
    out,
    settled_out,
)

Read = Request[Any, Any, Any]
Named = Annotated[str, QueryParameter(min_length=1, max_length=255)]
Entity = Annotated[str, QueryParameter(description="user:<id> or organization:<id>.", min_length=1, max_length=268)]


def _taking(body: type, scope: str = "admin") -> dict[str, Any]:
    return {"scope": scope, "body": body}


# -------------------------------------------------------------------------------------------------------------------- holding


@post("/checks", opt=_taking(PartyIn, "record"), status_code=200)
async def check(request: Read, door: GivenDoor) -> AdmissionOut:
    """May this work begin? Denies when it can't be known, and says whether to ask again. Reserves nothing."""
    said = await read_body(request, PartyIn)
    admission = await door.book.check(said.actor, workspace=said.workspace)
    door.metrics.checks.labels(admission.code).inc()
    return out(AdmissionOut, admission)


@post("/holds", opt=_taking(HoldIn, "record"), status_code=200)
async def hold(request: Read, door: GivenDoor) -> HoldOut:
    """Set money aside until it is settled, released or `ttl_s` have passed. The same hold_id again is the same hold."""
    said = await read_body(request, HoldIn)
    try:
        held = await door.book.place_hold(**arguments_of(said))
    except Denied as denied:
        door.metrics.checks.labels(denied.admission.code).inc()
        raise
    door.metrics.checks.labels("held").inc()
    return out(HoldOut, held)


@post("/holds/settle", opt=_taking(SettleIn, "record"), status_code=200)
async def settle(request: Read, door: GivenDoor) -> SettledOut:
    """Record the real cost and end the hold, together; a dead hold's usage is recorded too."""
    said = await read_body(request, SettleIn)
    settled = await door.book.settle(**arguments_of(said))
    door.metrics.count_recorded(settled.recorded.inserted, settled.recorded.replayed)
    return settled_out(settled)


@post("/holds/release", opt=_taking(ReleaseIn, "record"), status_code=200)
async def release(request: Read, door: GivenDoor) -> ReleasedOut:
    """End a hold without a cost."""
    said = await read_body(request, ReleaseIn)
    return ReleasedOut(await door.book.release(said.hold_id))


# --------------------------------------------------------------------------------------------------------------------- limits


@put("/limits", opt=_taking(LimitIn))
async def set_limit(request: Read, door: GivenDoor) -> LimitOut:
    """Store a limit, half up to cents."""
    said = await read_body(request, LimitIn)
    async with noted(request, "set_limit", said.entity, said):
        return LimitOut(said.entity, amount_text(await door.book.set_limit(said.entity, said.amount, by=said.by)))


@post("/grants", opt=_taking(GrantIn), status_code=200)
async def grant_credit(request: Read, door: GivenDoor) -> GrantedOut:
    """Grant credit in whole cents, once a grant_id."""
    said = await read_body(request, GrantIn)
    async with noted(request, "grant_credit", said.entity, said):
        return GrantedOut(await door.book.grant_credit(**arguments_of(said)))


@post("/blocks", opt=_taking(BlockIn), status_code=200)
async def block(request: Read, door: GivenDoor) -> ChangedOut:
    """Stop an entity: payment_failed, dispute or administrative; `reference` names the invoice or dispute."""
    said = await read_body(request, BlockIn)
    async with noted(request, "block", said.entity, said):
        return ChangedOut(await door.book.block(**arguments_of(said)))


@delete("/blocks", opt={"scope": "admin"}, status_code=200)
async def unblock(
    request: Read,
    door: GivenDoor,
    entity: Entity,
    reason: Named,
    reference: Annotated[str, QueryParameter(max_length=255)] = "",
) -> ChangedOut:
    """End that block alone."""
    async with noted(request, "unblock", entity, {"reason": reason, "reference": reference}):
        return ChangedOut(await door.book.unblock(entity, reason=reason, reference=reference))


# ------------------------------------------------------------------------------------------------------------------ customers


@put("/subscriptions", opt=_taking(SubscriptionIn))
async def put_subscription(request: Read, door: GivenDoor) -> DoneOut:
    """What a subscription says now; opens, cuts or amends the periods that follow."""
    said = await read_body(request, SubscriptionIn)
    async with noted(request, "put_subscription", said.owner, said):
        await door.book.put_subscription(**arguments_of(said))
    return DoneOut()


@put("/organizations", opt=_taking(OrganizationIn))
async def put_organization(request: Read, door: GivenDoor) -> DoneOut:
    """Make an organization known; its owner is its first member."""
    said = await read_body(request, OrganizationIn)
    async with noted(request, "put_organization", f"organization:{said.organization}", said):
        await door.book.put_organization(said.organization, owner=said.owner)
    return DoneOut()


@put("/organizations/owner", opt=_taking(OwnerIn))
async def transfer_ownership(request: Read, door: GivenDoor) -> DoneOut:
    """Change who is asked, not one amount; the new owner must be a member."""
    said = await read_body(request, OwnerIn)
    async with noted(request, "transfer_ownership", f"organization:{said.organization}", said):
        await door.book.transfer_ownership(said.organization, said.user)
    return DoneOut()


@delete("/organizations", opt={"scope": "admin"}, status_code=200)
async def delete_organization(request: Read, door: GivenDoor, organization: Named) -> DoneOut:
    """End its subscription; its members fall back as on leaving."""
    async with noted(request, "delete_organization", f"organization:{organization}", {}):
        await door.book.delete_organization(organization)
    return DoneOut()


@put("/members", opt=_taking(MemberIn))
async def add_member(request: Read, door: GivenDoor) -> DoneOut:
    """One organization a user: a second is refused."""
    said = await read_body(request, MemberIn)
    async with noted(request, "add_member", f"organization:{said.organization}", said):
        await door.book.add_member(said.organization, said.user, said.role)
    return DoneOut()


@delete("/members", opt={"scope": "admin"}, status_code=200)
async def remove_member(request: Read, door: GivenDoor, organization: Named, user: Named) -> DoneOut:
    """From now on the person's own subscription, or the person, pays; what was recorded stays."""
    async with noted(request, "remove_member", f"organization:{organization}", {"user": user}):
        await door.book.remove_member(organization, user)
    return DoneOut()


@put("/members/cap", opt=_taking(CapIn))
async def set_member_cap(request: Read, door: GivenDoor) -> DoneOut:
    """What a member may use of the organization's period; null: no cap, "0": nothing."""
    said = await read_body(request, CapIn)
    async with noted(request, "set_member_cap", f"organization:{said.organization}", said):
        await door.book.set_member_cap(said.organization, said.user, said.cap)
    return DoneOut()


@put("/workspaces", opt=_taking(WorkspaceIn))
async def put_workspace(request: Read, door: GivenDoor) -> DoneOut:
    """Exactly `payer` pays for what happens in it, whoever acts; null leaves it to the actor."""
    said = await read_body(request, WorkspaceIn)
    async with noted(request, "put_workspace", f"workspace:{said.workspace}", said):
        await door.book.put_workspace(said.workspace, payer=said.payer)
    return DoneOut()


@delete("/users", opt={"scope": "admin"}, status_code=200)
async def delete_user(request: Read, door: GivenDoor, user: Named) -> DoneOut:
    """End their subscription, leave their organization, erase their id, and no row."""
    async with noted(request, "delete_user", f"user:{user}", {}):  # which erases the name here, too
        await door.book.delete_user(user)
    return DoneOut()


ROUTES = (
    check, hold, settle, release, set_limit, grant_credit, block, unblock, put_subscription, put_organization,
    transfer_ownership, delete_organization, add_member, remove_member, set_member_cap, put_workspace, delete_user,
)  # fmt: skip
