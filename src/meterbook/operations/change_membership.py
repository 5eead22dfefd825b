"""Organizations and their members (BEHAVIOUR §12): nothing that was recorded moves."""

from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.entries import check_entity, check_text
from meterbook.errors import InvalidUsage, Problem
from meterbook.postgres.customers import change_customers

MEMBER_ROLES = ("admin", "member")


async def put_organization(conn: AsyncConnection[Any], organization: str, owner: str, at: datetime | None) -> None:
    """Makes an organization known; its owner is its first member. Again: nothing changes."""
    check_text("organization", organization)
    check_text("owner", owner)
    await change_customers(conn, "put_organization", {"organization": organization, "owner": owner, "at": at})


async def add_member(conn: AsyncConnection[Any], organization: str, user: str, role: str, at: datetime | None) -> None:
    """Again: only the role changes. A second organization is refused (`MembershipRefused`)."""
    check_text("organization", organization)
    check_text("user", user)
    if check_text("role", role) not in MEMBER_ROLES:
        message = f"{role!r} is not one of {', '.join(MEMBER_ROLES)}; ownership is transferred"
        raise InvalidUsage([Problem(None, "role", "unknown_role", message)])
    arguments = {"organization": organization, "user": user, "role": role, "at": at}
    await change_customers(conn, "add_member", arguments)


async def remove_member(conn: AsyncConnection[Any], organization: str, user: str, at: datetime | None) -> None:
    """From now on the person's own subscription, or the person, pays. The owner can't be removed (`MembershipRefused`)."""
    check_text("organization", organization)
    check_text("user", user)
    await change_customers(conn, "remove_member", {"organization": organization, "user": user, "at": at})


async def transfer_ownership(conn: AsyncConnection[Any], organization: str, user: str) -> None:
    """Changes who is asked, not one amount. The new owner must be a member (`MembershipRefused`)."""
    check_text("organization", organization)
    check_text("user", user)
    await change_customers(conn, "transfer_ownership", {"organization": organization, "user": user})


async def put_workspace(conn: AsyncConnection[Any], workspace: str, payer: str | None, at: datetime | None) -> None:
    """Exactly `payer` pays for what happens in it, whoever acts; None leaves it to the actor."""
    check_text("workspace", workspace)
    if payer is not None:
        check_entity(payer)
    await change_customers(conn, "put_workspace", {"workspace": workspace, "payer": payer, "at": at})
