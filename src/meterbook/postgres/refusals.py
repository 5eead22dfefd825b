"""What PostgreSQL refuses, in our words: one table from constraints and SQLSTATEs to errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from meterbook.errors import (
    AheadOfClock,
    BaselineRefused,
    InProgress,
    InvalidRequest,
    InvalidUsage,
    LedgerUnavailable,
    MembershipRefused,
    MeterbookError,
    NotPermitted,
    Problem,
    TransactionConflict,
    UnknownEntity,
)

BY_CONSTRAINT: dict[str, tuple[str, str, str]] = {
    "usage_log_amount_is_money": (
        "amount",
        "invalid_amount",
        "is not a finite amount of at most 12 places below 10^12",
    ),
    "usage_log_occurred_at_is_finite": ("occurred_at", "invalid_time", "is before 1970 or infinite"),
    "subscription_times_are_finite": ("starts_at", "invalid_time", "is infinite"),
    "billing_entity_external_id_is_no_surrogate": (
        "id",
        "invalid_text",
        "is how one that was erased is shown (#1), no name",
    ),
    "actor_external_id_is_no_surrogate": ("id", "invalid_text", "is how one that was erased is shown (#1), no name"),
    "subscription_plan_is_not_free": (
        "plan",
        "free_plan",
        "free is what an entity has without an entitled subscription: report the one that ended as canceled",
    ),
    "entry_metadata_is_an_object": ("metadata", "invalid_metadata", "is not an object"),
    "entry_metadata_has_a_size": ("metadata", "too_large", "has more than 4096 bytes"),
    "entry_metadata_has_a_depth": ("metadata", "too_deep", "has more than 4 levels"),
    "usage_log_usage_is_positive": ("amount", "invalid_amount", "is not above 0"),
    "usage_log_category_is_known": ("category", "unknown_category", "is not one of model, fixed, tool"),
    "usage_log_source_has_a_length": ("source", "too_long", "is empty or has more than 128 characters"),
    "usage_log_description_has_a_length": ("description", "too_long", "is empty or has more than 512 characters"),
    "subscription_status_is_known": ("status", "unknown_status", "is not a status of a subscription"),
    "subscription_starts_before_it_ends": ("ends_at", "invalid_time", "is not after starts_at"),
    "entity_block_reason_is_known": (
        "reason",
        "unknown_reason",
        "is not one of payment_failed, dispute, administrative",
    ),
    "member_role_is_known": ("role", "unknown_role", "is not one of owner, admin, member"),
}
BY_SQLSTATE: dict[str, Callable[[str], MeterbookError]] = {
    "40001": TransactionConflict,
    "40P01": TransactionConflict,
    "55P03": InProgress,
    "42501": NotPermitted,
    "MB020": UnknownEntity,
    "MB021": MembershipRefused,
    "MB022": MembershipRefused,
    "MB023": MembershipRefused,
    "MB040": BaselineRefused,
    "MB060": AheadOfClock,
}
_UNREACHABLE = (psycopg.OperationalError, psycopg.InterfaceError)
_NOT_MIGRATED = ("3F000", "42P01", "42883")


CONNECTING: dict[str, str] = {
    "connection refused": "Nobody listens there: is the host and port of the URL right, and does the server run?",
    "no such file or directory": "Nobody listens at that socket: is the URL right, and does the server run?",
    "resolve": "Is the host of the URL right?",
    "name or service not known": "Is the host of the URL right?",
    "authentication failed": "Is the user and the password of the URL right?",
    "no password supplied": "The server asks for a password: put it into the URL, PGPASSWORD or ~/.pgpass.",
    "no pg_hba.conf entry": "The server doesn't let this user in from here: its pg_hba.conf says who may.",
    'role "': "Is the user of the URL right?",
    'database "': "Is the database of the URL right? Make it with: createdb",
}
"""What a failed connection says → what to do. Of anything else (starting up, too many clients) a wait may mend it."""


def connecting_advice(said: str) -> str | None:
    """None: trying again may help."""
    lowered = said.lower()
    return next((advice for part, advice in CONNECTING.items() if part in lowered), None)


@contextmanager
def refusals() -> Iterator[None]:
    """Around every statement: nothing of psycopg leaves this room but as the cause of one of our errors."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error) from error


def translated(error: psycopg.Error) -> MeterbookError:
    said = ". ".join(part for part in (error.diag.message_primary, error.diag.message_hint) if part) or str(error)
    constraint = BY_CONSTRAINT.get(error.diag.constraint_name or "")
    if constraint is not None:
        return InvalidUsage([Problem(None, *constraint)])
    if error.sqlstate in BY_SQLSTATE:
        return BY_SQLSTATE[error.sqlstate](said)
    if error.sqlstate in _NOT_MIGRATED:
        return LedgerUnavailable(f"{said}. Is the ledger there? Run: meterbook migrate")
    if isinstance(error, _UNREACHABLE):
        return LedgerUnavailable(said)
    return InvalidRequest(f"PostgreSQL refused: {said}")
