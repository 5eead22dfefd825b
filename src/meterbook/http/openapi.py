"""The OpenAPI 3.1 document: routes and answers as the framework sees them, bodies and problems as the door takes and gives them."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, License, SecurityScheme
from litestar.types import ControllerRouterHandler

from meterbook.http.bodies import JSON, NDJSON
from meterbook.http.cloud_events import BATCHED, EVENT_TYPE, STRUCTURED, VERSION
from meterbook.http.door import OPEN
from meterbook.http.wire import ConflictOut, EntryIn, ProblemOut
from meterbook.problems import PROBLEM_JSON, TITLES

DOCUMENT_PATH = "/v1/openapi.json"
REFERENCE = "#/components/schemas/{name}"
EVERYWHERE = (400, 401, 403, 408, 413, 422, 500, 501, 503)
BY_SCOPE = {OPEN: (400, 408, 413, 422, 500, 503)}
NAMED = (404, 409)
DESCRIPTION = """Exactly-once usage metering and billing.

Amounts are strings, times have a zone, every error is a problem document (RFC 9457). Send your key as `Authorization: Bearer mb_…`.
A route says by `x-scope` which scope a key needs: record, read or admin, which may everything."""


class ProblemDocument(msgspec.Struct):
    """RFC 9457. `code` is stable; `retryable` says whether the same request may succeed later."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    request_id: str
    problems: list[ProblemOut] | None = None
    conflicts: list[ConflictOut] | None = None
    admission: dict[str, Any] | None = None


class CloudEvent(msgspec.Struct, omit_defaults=True):
    """CloudEvents 1.0 in JSON; further attributes are let be."""

    specversion: str
    id: str
    source: str
    type: str
    data: dict[str, Any]
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None


def document_of(state: State) -> bytes:
    """Of the routes that the state names as described; made once an application."""
    made: bytes | None = state.get("openapi_document")
    if made is None:
        made = msgspec.json.encode(make_document(state["described"]), order="sorted")
        state["openapi_document"] = made
    return made


def make_document(routes: Sequence[ControllerRouterHandler]) -> dict[str, Any]:
    """By an application that serves nobody."""
    bearer = SecurityScheme(type="http", scheme="bearer", description="An API key: mb_…")
    config = OpenAPIConfig(
        title="meterbook",
        version=version("meterbook"),
        description=DESCRIPTION,
        components=Components(security_schemes={"key": bearer}),
        use_handler_docstrings=True,
        operation_id_creator=lambda handler, _method, _path: handler.handler_name,
        license=License(name="Apache-2.0", identifier="Apache-2.0"),
    )
    app = Litestar(routes, dependencies={"door": Provide(_nobody, sync_to_thread=False)}, openapi_config=config)
    document: dict[str, Any] = msgspec.to_builtins(app.openapi_schema.to_schema())
    bodies = [handler.opt["body"] for handler in _handlers(app) if "body" in handler.opt]
    _, schemas = msgspec.json.schema_components([*bodies, EntryIn, ProblemDocument, CloudEvent], ref_template=REFERENCE)
    document["components"]["schemas"] |= schemas
    by_id = {handler.handler_name: handler for handler in _handlers(app)}
    for operations in document["paths"].values():
        for operation in operations.values():
            _complete(operation, by_id[operation["operationId"]])
    return document


def _nobody() -> None:
    """In place of the door, which no description needs."""


def _handlers(app: Litestar) -> list[HTTPRouteHandler]:
    found = {id(handler): handler for route in app.routes for handler in getattr(route, "route_handlers", ())}
    return [handler for handler in found.values() if handler.opt.get("scope") is not None]


def _complete(operation: dict[str, Any], handler: HTTPRouteHandler) -> None:
    scope = handler.opt["scope"]
    operation["x-scope"] = scope
    operation["security"] = [] if scope == OPEN else [{"key": []}]
    content = _body_of(handler)
    if content is not None:
        operation["requestBody"] = {"required": True, "content": content}
    for parameter in operation.get("parameters", ()):
        _simplify(parameter)
    answers = operation["responses"]
    answers.pop("400", None)
    more = {402: handler.handler_name == "hold", 415: content is not None}
    for status in sorted(
        {*BY_SCOPE.get(scope, EVERYWHERE), *NAMED, *(status for status, is_so in more.items() if is_so)}
    ):
        answers[str(status)] = _problem(status)


def _simplify(parameter: dict[str, Any]) -> None:
    """One that may be left out is not one that may be null; and its description is said once."""
    schema = parameter["schema"]
    schema.pop("description", None)
    kinds = [each for each in schema.pop("oneOf", ()) if each.get("type") != "null"]
    for kind in kinds:
        schema |= kind


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(name="ProblemDocument")}
    return {"description": TITLES[status], "content": {PROBLEM_JSON: {"schema": schema}}}


def _body_of(handler: HTTPRouteHandler) -> dict[str, Any] | None:
    opt = handler.opt
    entry = {"$ref": REFERENCE.format(name="EntryIn")}
    event = {"$ref": REFERENCE.format(name="CloudEvent")}
    if "body" in opt:
        return {JSON: {"schema": {"$ref": REFERENCE.format(name=opt["body"].__name__)}}}
    if opt.get("batch"):
        lines = {"type": "string", "description": "One entry a line, as JSON."}
        return {JSON: {"schema": {"type": "array", "items": entry}}, NDJSON[0]: {"schema": lines}}
    if opt.get("events"):
        data = {
            **entry,
            "description": f"Binary mode: the data, beside ce-specversion: {VERSION}, ce-type: {EVENT_TYPE}, ce-id, ce-source.",
        }
        return {
            STRUCTURED: {"schema": event},
            BATCHED: {"schema": {"type": "array", "items": event}},
            JSON: {"schema": data},
        }
    if opt.get("raw"):
        return {JSON: {"schema": {"type": "object", "description": "An event as Stripe sends it."}}}
    return None
