"""CloudEvents 1.0 over HTTP, in its three modes. The event's source and id are its identity, so a redelivered event is charged once.

`type` is meterbook.usage, `data` an entry without event_key; the actor may stand in `subject`, the time in `time`.
"""

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec
from litestar import Request

from meterbook.core.entries import KEY_LENGTH_MAX, Usage
from meterbook.errors import Problem
from meterbook.http.bodies import JSON, media_type_of, problem_of
from meterbook.http.problems import BadBody, WrongMediaType
from meterbook.http.wire import EntryIn

EVENT_TYPE = "meterbook.usage"
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
VERSION = "1.0"
HEADER = "ce-"
REQUIRED = ("id", "source", "specversion", "type")
KEY = "cloudevent:"

Read = Request[Any, Any, Any]


async def read_events(request: Read) -> list[Usage | Problem]:
    """Raises `BadBody`, `WrongMediaType`; what is wrong with one event is its problem."""
    kind = media_type_of(request)
    if kind == STRUCTURED:
        return [usage_of(0, _document(await request.body(), dict))]
    if kind == BATCHED:
        return [usage_of(index, each) for index, each in enumerate(_document(await request.body(), list))]
    if f"{HEADER}specversion" in request.headers:
        return [usage_of(0, _binary(request, await request.body()))]
    raise WrongMediaType(f"send {STRUCTURED}, {BATCHED}, or {JSON} with ce-… headers")


def _document(body: bytes, kind: type[Any]) -> Any:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise BadBody(f"the body is no JSON: {wrong}") from None
    if not isinstance(said, kind):
        raise BadBody(f"the body is no {'event' if kind is dict else 'array of events'}")
    return said


def _binary(request: Read, body: bytes) -> dict[str, Any]:
    """Attributes are headers, percent-encoded; the body is the data."""
    event: dict[str, Any] = {
        name.removeprefix(HEADER): unquote(value) for name, value in request.headers.items() if name.startswith(HEADER)
    }
    if request.headers.get("content-type"):
        event["datacontenttype"] = request.headers["content-type"]
    if body:
        event["data"] = _document(body, object)
    return event


def usage_of(index: int, event: object) -> Usage | Problem:
    try:
        return msgspec.convert(_said(index, event), EntryIn).usage()
    except _Refused as refused:
        return refused.problem
    except msgspec.ValidationError as wrong:
        return problem_of(index, wrong)


class _Refused(Exception):
    def __init__(self, index: int, field: str, code: str, message: str) -> None:
        self.problem = Problem(index, field, code, message)


def _said(index: int, event: object) -> dict[str, Any]:
    """The entry that an event is, as EntryIn has it."""
    if not isinstance(event, Mapping):
        message = "is no event: an object with id, source, specversion and type"
        raise _Refused(index, "event", "invalid_event", message)
    _check_attributes(index, event)
    data = _data(index, event)
    if "event_key" in data:
        raise _Refused(index, "data.event_key", "invalid_event", "the event's source and id are its key")
    key = KEY + json.dumps([event["source"], event["id"]], separators=(",", ":"), ensure_ascii=False)
    if len(key) > KEY_LENGTH_MAX:
        raise _Refused(index, "id", "too_long", f"source and id have more than {KEY_LENGTH_MAX} characters together")
    return {**_defaults(event), **data, "event_key": key}


def _check_attributes(index: int, event: Mapping[str, Any]) -> None:
    for name in REQUIRED:
        if not (isinstance(event.get(name), str) and event[name]):
            raise _Refused(index, name, "missing", "is required of an event, and a text")
    if event["specversion"] != VERSION:
        raise _Refused(index, "specversion", "invalid_event", f"{event['specversion']!r} is not {VERSION}")
    if event["type"] != EVENT_TYPE:
        raise _Refused(index, "type", "unknown_event_type", f"{event['type']!r} is not {EVENT_TYPE}")
    kind = event.get("datacontenttype", JSON)
    if not isinstance(kind, str) or kind.partition(";")[0].strip().lower() != JSON:
        raise _Refused(index, "datacontenttype", "invalid_event", f"{kind!r} is not {JSON}")


def _data(index: int, event: Mapping[str, Any]) -> Mapping[str, Any]:
    data = event.get("data")
    if "data_base64" in event:
        try:
            data = msgspec.json.decode(b64decode(event["data_base64"], validate=True))
        except (TypeError, ValueError) as wrong:
            raise _Refused(index, "data_base64", "invalid_event", f"holds no JSON: {wrong}") from None
    if not isinstance(data, Mapping):
        raise _Refused(index, "data", "invalid_event", "is no entry: an object with source, description and amount")
    return data


def _defaults(event: Mapping[str, Any]) -> dict[str, Any]:
    said = {"actor": event.get("subject"), "occurred_at": event.get("time")}
    return {name: value for name, value in said.items() if value is not None}
