"""What a page's address asks for, checked before anything is read."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from meterbook.console.desk import Asked, Desk
from meterbook.errors import InvalidUsage, Problem, UnknownEntity

ENTRY_FILTERS = ("actor", "source", "category", "workspace", "start", "end")
ROWS_PER_PAGE = 50
DIGITS_MAX = 19
NUMBER_MAX = 2**63 - 1


async def entity_of(request: Asked, desk: Desk) -> str:
    """A payer that is known: asking for one that is not must not make them known. Raises `UnknownEntity`."""
    entity: str = request.query_params.get("entity", "")
    if not await desk.book.knows(entity):
        raise UnknownEntity(f"{entity} is not known here.")
    return entity


def period_of(request: Asked) -> str | int:
    named: str = request.query_params.get("period", "current")
    return number_of(named, "period") if named not in {"current", "last"} else named


def number_of(text: str, field: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS_MAX and 0 < int(text) <= NUMBER_MAX):
        raise InvalidUsage([Problem(None, field, "invalid_number", "is no whole number above 0")])
    return int(text)


def filter_of(request: Asked) -> dict[str, str]:
    """As it was typed; empty fields filter nothing."""
    asked: Mapping[str, str] = request.query_params
    return {name: asked[name].strip() for name in ENTRY_FILTERS if asked.get(name, "").strip()}


def arguments_of(typed: Mapping[str, str]) -> dict[str, Any]:
    """For `Book.entries`. Raises `InvalidUsage`."""
    return {name: time_of(text, name) if name in {"start", "end"} else text for name, text in typed.items()}


def time_of(text: str, field: str) -> datetime:
    """Without a zone it is UTC, as a browser's field for times has none."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        said = "is no time such as 2026-05-24T12:00"
        raise InvalidUsage([Problem(None, field, "invalid_time", said)]) from None
    return at if at.utcoffset() is not None else at.replace(tzinfo=UTC)
