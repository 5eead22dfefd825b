"""The console's routes, its one guard, and errors as pages. A server puts them beside those of its other doors."""

import traceback
from typing import Any

import structlog
from litestar import Response, Router, get
from litestar.di import Provide
from litestar.exceptions import HTTPException, NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect

from meterbook.console import access, billing, customer, entity, entrance, overview, problems
from meterbook.console.customer import LinkOver
from meterbook.console.desk import PREFIX, Asked, Desk, ForeignForm, GivenDesk, NotSignedIn, desk_of, signed_in
from meterbook.console.rendering import page
from meterbook.errors import (
    InvalidCursor,
    InvalidRequest,
    MeterbookError,
    NotPermitted,
    UnknownDelivery,
    UnknownEntity,
    UnknownKey,
    UnknownPeriod,
)

STATUSES: dict[type[MeterbookError], int] = {
    UnknownEntity: 404,
    UnknownPeriod: 404,
    UnknownKey: 404,
    UnknownDelivery: 404,
    LinkOver: 410,
    ForeignForm: 403,
    InvalidCursor: 400,
    NotPermitted: 501,
    InvalidRequest: 400,
}
TITLES = {
    400: "That is not quite right",
    403: "Not from here",
    404: "Nothing here",
    410: "This link has ended",
    501: "Not permitted by the database",
    503: "Not now",
}


@get("/{path:path}", opt={"scope": "open"})
async def nothing(path: FromPath[str]) -> Response[str]:
    """Any other address below the console's."""
    raise NotFoundException(f"There is no page {path}.")


def console_routes(desk: Desk) -> Router:
    """Everything below /console. `opt`'s scope is open since keys of requests are another door's: here a session is asked for."""
    pages = [*overview.ROUTES, *entity.ROUTES, *billing.ROUTES, *problems.ROUTES, *access.ROUTES, *entrance.ROUTES]
    inside = Router("/", route_handlers=[*pages, nothing], guards=[signed_in])
    given: GivenDesk = desk
    return Router(
        PREFIX,
        route_handlers=[inside, *entrance.OPEN_ROUTES, *customer.ROUTES],
        dependencies={"desk": Provide(lambda: given, sync_to_thread=False)},
        exception_handlers={
            NotSignedIn: ask_to_sign_in,
            MeterbookError: show_refusal,
            HTTPException: show_http_error,
            Exception: show_fault,
        },
        include_in_schema=False,
        opt={"desk": desk},
    )


def ask_to_sign_in(request: Asked, _: NotSignedIn) -> Response[Any]:
    """To the login page, and back to the page asked for; htmx is told to load it as a whole."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    login = Redirect(f"{PREFIX}/login", query_params={"next": wanted} if request.method == "GET" else None)
    login.status_code = 303
    if request.headers.get("hx-request"):
        return Response("", status_code=200, headers={"HX-Redirect": f"{PREFIX}/login"})
    return login


def show_refusal(request: Asked, error: MeterbookError) -> Response[str]:
    status = 503 if error.retryable else next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)
    return _error_page(request, status, str(error))


def show_http_error(request: Asked, error: HTTPException) -> Response[str]:
    return _error_page(request, error.status_code, error.detail)


def show_fault(request: Asked, error: Exception) -> Response[str]:
    """A fault of ours: the log has its traceback, the page the request's id."""
    id_ = str(request.scope["state"].get("request_id", ""))
    lines = "".join(traceback.format_exception(error))
    structlog.get_logger("meterbook").error("fault", request_id=id_, error=type(error).__name__, traceback=lines)
    return _error_page(request, 500, f"A fault of the server. Its log has more under the request id {id_}.")


def _error_page(request: Asked, status: int, said: str) -> Response[str]:
    title = TITLES.get(status, "That did not work")
    return page(request, desk_of(request), "error.html", status=status, code=status, title=title, said=said)
