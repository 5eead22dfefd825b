"""A short way to the routes that are asked thousands of times a second: those that take a body and no parameter.

The framework binds parameters, injects, and shapes answers; such a route uses none of it. The guard, the handlers, the errors and their
answers are the same, and every other request goes the framework's way. Measured: decision 0043.
"""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from litestar import Litestar, Request, Response
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from meterbook.errors import MeterbookError
from meterbook.http.door import Door, admit
from meterbook.http.edge import Receive, Scope, Send
from meterbook.http.problems import answer_refusal

TAKEN = {"request", "door"}
JSON = b"application/json"
AnswerFault = Callable[[Request[Any, Any, Any], Exception], Response[Any]]


class Lane:
    """The application, with that way before it. `answer_fault` answers for what nobody foresaw."""

    def __init__(self, app: Litestar, door: Door, answer_fault: AnswerFault) -> None:
        self.framework = app
        self._door = door
        self._answer_fault = answer_fault
        self.handlers = dict(_short_ways(app))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = None if scope.get("query_string") else self.handlers.get((scope.get("method", ""), scope["path"]))
        if handler is None:
            await self.framework(scope, receive, send)  # type: ignore[arg-type]
            return
        scope["litestar_app"], scope["route_handler"] = self.framework, handler
        scope["path_template"], scope["path_params"] = scope["path"], {}
        request: Request[Any, Any, Any] = Request(scope, receive, send)  # type: ignore[arg-type]
        try:
            await admit(request, handler)
            answer = msgspec.json.encode(await handler.fn(request, self._door))
        except MeterbookError as error:
            await _send(answer_refusal(request, error), request)
        except Exception as error:  # noqa: BLE001  told, as the framework's last handler does
            await _send(self._answer_fault(request, error), request)
        else:
            headers = [(b"content-type", JSON), (b"content-length", str(len(answer)).encode())]
            await send({"type": "http.response.start", "status": handler.status_code, "headers": headers})
            await send({"type": "http.response.body", "body": answer})


async def _send(refusal: Response[Any], request: Request[Any, Any, Any]) -> None:
    answer = refusal.to_asgi_response(app=None, request=request)
    await answer(request.scope, request.receive, request.send)


def _short_ways(app: Litestar) -> Iterable[tuple[tuple[str, str], HTTPRouteHandler]]:
    """By method and path."""
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            yield from (
                ((method, route.path), each) for method, (each, _) in route.route_handler_map.items() if _fits(each)
            )


def _fits(handler: HTTPRouteHandler) -> bool:
    signature = handler.parsed_fn_signature
    answers_a_document = signature.return_type.is_subclass_of(msgspec.Struct)
    return "body" in handler.opt and set(signature.parameters) == TAKEN and answers_a_document
