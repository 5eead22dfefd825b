"""The application: every route, the one guard, errors as problems, and the edge around it all."""

import traceback
from collections.abc import Sequence
from typing import Any

from litestar import Litestar, MediaType, Request, Response, get
from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler

from meterbook.errors import MeterbookError
from meterbook.http.door import OPEN, Door, admit
from meterbook.http.edge import Edge
from meterbook.http.lane import Lane
from meterbook.http.openapi import DOCUMENT_PATH, document_of
from meterbook.http.problems import SERVER_ERROR, answer_litestar, answer_refusal, request_id_of
from meterbook.http.routes import DESCRIBED
from meterbook.problems import PROBLEM_JSON, problem


def make_app(door: Door, *others: ControllerRouterHandler) -> Edge:
    """Ready for a server. `others`: the routes of another door, such as the console; each names its scope (`opt`) too."""
    return Edge(Lane(make_inner_app(door, others), door, answer_fault), door)


def make_inner_app(door: Door, others: Sequence[ControllerRouterHandler] = ()) -> Litestar:
    return Litestar(
        [*DESCRIBED, openapi_document, *others],
        dependencies={"door": Provide(_door, sync_to_thread=False)},
        exception_handlers={
            MeterbookError: answer_refusal,
            HTTPException: answer_litestar,
            Exception: answer_fault,
        },
        guards=[admit],
        logging_config=None,
        openapi_config=None,  # its pages load scripts from other hosts; the document is a route of ours
        request_max_body_size=None,  # the edge counts, also what is not announced
        state=State({"door": door, "described": DESCRIBED}),
        on_app_init=[_without_debugging],
    )


@get(DOCUMENT_PATH, opt={"scope": OPEN}, include_in_schema=False, sync_to_thread=False)
def openapi_document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The OpenAPI document of this API."""
    return Response(document_of(request.app.state), media_type=MediaType.JSON)


def _door(state: State) -> Door:
    door: Door = state.door
    return door


def _without_debugging(config: AppConfig) -> AppConfig:
    config.debug = False  # whatever LITESTAR_DEBUG says: a traceback is for the log
    return config


def answer_fault(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """A fault of ours: told in the log with its traceback, and to the caller by the request's id alone."""
    id_ = request_id_of(request)
    lines = "".join(traceback.format_exception(error))
    request.app.state.door.log.error("fault", request_id=id_, error=type(error).__name__, traceback=lines)
    said = problem(SERVER_ERROR, "internal_error", "a fault of the server; its log has more under this request_id", id_)
    return Response(said, status_code=SERVER_ERROR, media_type=PROBLEM_JSON)
