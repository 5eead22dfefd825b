"""Results as JSON: amounts are strings, times are UTC with a Z, the names are those of the Python results."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from meterbook.core.derivation import amount_text

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def as_json(value: object) -> Json:
    """Raises TypeError for what no result of a command holds."""
    match value:
        case None | bool() | int() | float() | str():
            found: Json = value
        case Decimal():
            found = amount_text(value)
        case datetime():
            found = time_text(value)
        case Mapping():
            found = {str(key): as_json(each) for key, each in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            found = {name: as_json(each) for name, each in value._asdict().items()}
        case list() | tuple():
            found = [as_json(each) for each in value]
        case _ if dataclasses.is_dataclass(value):
            found = {each.name: as_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
        case _:
            raise TypeError(f"no JSON for {type(value).__name__}")
    return found


def json_text(value: object) -> str:
    return json.dumps(as_json(value), ensure_ascii=False, indent=2)


def time_text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
