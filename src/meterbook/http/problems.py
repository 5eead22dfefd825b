"""The door's own refusals, and how it answers them and the library's."""

from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, NotAuthorizedException

from meterbook.errors import InvalidKey, InvalidRequest, MeterbookError, Unavailable
from meterbook.problems import PROBLEM_JSON, RETRY_AFTER_S, problem, problem_with, status_in
from meterbook.problems import STATUSES as OF_THE_LIBRARY

SERVER_ERROR = 500


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
    **OF_THE_LIBRARY,
    BadBody: 400,
    BadQuery: 400,
    TooSlow: 408,
    BodyTooLarge: 413,
    WrongMediaType: 415,
}
UNREAD = frozenset({STATUSES[TooSlow], STATUSES[BodyTooLarge]})
"""What is left of the body is not waited for."""


def status_of(error: MeterbookError) -> int:
    return status_in(STATUSES, error)


def problem_of(error: MeterbookError, request_id: str) -> dict[str, Any]:
    return problem_with(status_of(error), error, request_id)


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
