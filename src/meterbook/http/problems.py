"""Errors as RFC 9457 problem documents: one table from the library's errors to statuses, and the door's own refusals."""

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, NotAuthorizedException

from meterbook.errors import (
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
SERVER_ERROR = 500
TYPE = "urn:meterbook:problem:"


class BadBody(InvalidRequest):
    """The body is not what this route takes."""

    code = "bad_body"


class BodyTooLarge(InvalidRequest):
    """The body, or a line of it, is larger than this server takes; send it in parts."""

    code = "body_too_large"


class WrongMediaType(InvalidRequest):
    """The route does not take a body of such a content type."""

    code = "unsupported_media_type"


class BadQuery(InvalidRequest):
    """A query parameter is not what this route takes."""

    code = "bad_query"


class TooSlow(MeterbookError):
    """The request's body did not arrive in time; nothing was written that was not acknowledged."""

    code = "too_slow"
    retryable = True


class ShuttingDown(Unavailable):
    """The server is going away; another one, or its successor, takes the request."""

    code = "shutting_down"


STATUSES: dict[type[MeterbookError], int] = {
    BadBody: 400,
    BadQuery: 400,
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
    TooSlow: 408,
    KeyConflict: 409,
    CorrectionRefused: 409,
    MembershipRefused: 409,
    LimitRefused: 409,
    UnsettledMoney: 409,
    BodyTooLarge: 413,
    WrongMediaType: 415,
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


UNREAD = frozenset({STATUSES[TooSlow], STATUSES[BodyTooLarge]})
"""What is left of the body is not waited for."""


def status_of(error: MeterbookError) -> int:
    """Of the nearest class in the table; a denial that a retry may turn is none for good."""
    if isinstance(error, Denied) and error.retryable:
        return 503
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def problem(status: int, code: str, detail: str, request_id: str, **facts: Any) -> dict[str, Any]:
    title = TITLES.get(status, "Error")
    said = {"type": TYPE + code, "title": title, "status": status, "detail": detail, "code": code}
    return {**said, "retryable": False, **facts, "request_id": request_id}


def problem_of(error: MeterbookError, request_id: str) -> dict[str, Any]:
    facts = error_data(error)
    detail, code = str(facts.pop("message")), str(facts.pop("code"))
    return problem(status_of(error), code, detail, request_id, **facts)


def headers_of(status: int, *, retryable: bool) -> dict[str, str]:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if retryable else {}
    if status in UNREAD:
        headers["Connection"] = "close"
    if status == STATUSES[InvalidKey]:
        headers["WWW-Authenticate"] = 'Bearer realm="meterbook"'
    return headers


def request_id_of(request: Request[Any, Any, Any]) -> str:
    return str(request.scope["state"].get("request_id", ""))


def answer_refusal(request: Request[Any, Any, Any], error: MeterbookError) -> Response[bytes]:
    said = problem_of(error, request_id_of(request))
    return _response(said, headers_of(said["status"], retryable=bool(said["retryable"])))


def answer_litestar(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework refuses: no such route or method, a query parameter of the wrong kind."""
    status = error.status_code
    if isinstance(error, NotAuthorizedException):
        return answer_refusal(request, InvalidKey())
    code = {404: "not_found", 405: "method_not_allowed", 400: "bad_query", 413: "body_too_large"}.get(status, "error")
    extra = error.extra if isinstance(error.extra, list) else []
    problems = [
        {"index": None, "field": str(each.get("key", "")), "code": code, "message": str(each.get("message", ""))}
        for each in extra
        if isinstance(each, dict)
    ]
    facts: dict[str, Any] = {"problems": problems} if problems else {}
    said = problem(status, code, error.detail, request_id_of(request), **facts)
    return _response(said, {**(error.headers or {}), **headers_of(status, retryable=False)})


def _response(said: dict[str, Any], headers: dict[str, str]) -> Response[bytes]:
    return Response(msgspec.json.encode(said), status_code=said["status"], headers=headers, media_type=PROBLEM_JSON)
