"""Errors as RFC 9457 problem documents: one table from the library's errors to statuses, for whatever answers HTTP."""

from collections.abc import Mapping
from typing import Any

from meterbook.errors import (
    PROBLEM_TYPE,
    AttributionUnavailable,
    BadEvent,
    BadSignature,
    CorrectionRefused,
    Denied,
    InvalidCursor,
    InvalidKey,
    InvalidRequest,
    KeyConflict,
    LimitRefused,
    MembershipRefused,
    MeterbookError,
    NotPermitted,
    Overloaded,
    ScopeMissing,
    Unavailable,
    UnknownDelivery,
    UnknownEntity,
    UnknownEntry,
    UnknownEvent,
    UnknownHold,
    UnknownKey,
    UnknownPeriod,
    UnsettledMoney,
)
from meterbook.plain import error_data

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_S = 1

STATUSES: dict[type[MeterbookError], int] = {
    BadSignature: 400,
    BadEvent: 400,
    InvalidCursor: 400,
    InvalidKey: 401,
    Denied: 402,
    ScopeMissing: 403,
    UnknownEntity: 404,
    UnknownPeriod: 404,
    UnknownEntry: 404,
    UnknownHold: 404,
    UnknownKey: 404,
    UnknownEvent: 404,
    UnknownDelivery: 404,
    KeyConflict: 409,
    CorrectionRefused: 409,
    MembershipRefused: 409,
    LimitRefused: 409,
    UnsettledMoney: 409,
    InvalidRequest: 422,
    NotPermitted: 501,
    Overloaded: 503,
    AttributionUnavailable: 503,
    Unavailable: 503,
    MeterbookError: 500,
}
TITLES = {
    400: "Bad request",
    401: "No valid key",
    402: "Denied",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Refused",
    500: "Internal error",
    501: "Not permitted by the database",
    503: "Not now",
}


def status_in(statuses: Mapping[type[MeterbookError], int], error: MeterbookError) -> int:
    """Of the nearest class in the table; a denial that a retry may turn is none for good."""
    if isinstance(error, Denied) and error.retryable:
        return 503
    return next(statuses[kind] for kind in type(error).__mro__ if kind in statuses)


def status_of(error: MeterbookError) -> int:
    return status_in(STATUSES, error)


def problem(status: int, code: str, detail: str, request_id: str, **facts: Any) -> dict[str, Any]:
    title = TITLES.get(status, "Error")
    said = {"type": PROBLEM_TYPE + code, "title": title, "status": status, "detail": detail, "code": code}
    return {**said, "retryable": False, **facts, "request_id": request_id}


def problem_with(status: int, error: MeterbookError, request_id: str) -> dict[str, Any]:
    facts = error_data(error)
    detail, code = str(facts.pop("message")), str(facts.pop("code"))
    return problem(status, code, detail, request_id, **facts)
