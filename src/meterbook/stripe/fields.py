"""Reads what is needed of one of Stripe's objects, and says by its path what is missing; what is not asked for may be anything."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from meterbook.errors import BadEvent

_ID = re.compile(r"[A-Za-z0-9_:.\-]{1,255}")
_INSTANT_MAX_S = 253_402_300_799
"""The end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Fields:
    """An object and where it stands. Each reader raises `BadEvent`; those called find_… give None for null and for nothing."""

    path: str
    of: Mapping[str, Any]

    def bad(self, name: str, what: str) -> BadEvent:
        return BadEvent(f"{self.path}{name} {what}")

    def find_text(self, name: str) -> str | None:
        value = self.of.get(name)
        if value is None or (isinstance(value, str) and value):
            return value
        raise self.bad(name, f"is no text: {value!r}")

    def text(self, name: str) -> str:
        value = self.find_text(name)
        if value is None:
            raise self.bad(name, "is missing")
        return value

    def find_id(self, name: str) -> str | None:
        """Of another object, also where Stripe was asked to put the object itself in its place."""
        value = self.of.get(name)
        if isinstance(value, Mapping):
            return self.table(name).id("id")
        if value is None or (isinstance(value, str) and _ID.fullmatch(value)):
            return value
        raise self.bad(name, f"is no id: {value!r}")

    def id(self, name: str) -> str:
        value = self.find_id(name)
        if value is None:
            raise self.bad(name, "is missing")
        return value

    def find_instant(self, name: str) -> datetime | None:
        value = self.of.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _INSTANT_MAX_S:
            raise self.bad(name, f"is no time in seconds: {value!r}")
        return datetime.fromtimestamp(value, UTC)

    def instant(self, name: str) -> datetime:
        value = self.find_instant(name)
        if value is None:
            raise self.bad(name, "is missing")
        return value

    def number(self, name: str, default: int | None = None) -> int:
        value = self.of.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(name, "is missing" if value is None else f"is no whole number: {value!r}")
        return value

    def flag(self, name: str) -> bool:
        """False where there is none."""
        value = self.of.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self.bad(name, f"is neither true nor false: {value!r}")

    def find_table(self, name: str) -> "Fields":
        """An empty one where there is none."""
        value = self.of.get(name)
        if value is None:
            return Fields(f"{self.path}{name}.", {})
        if not isinstance(value, Mapping):
            raise self.bad(name, f"is no object: {value!r}")
        return Fields(f"{self.path}{name}.", value)

    def table(self, name: str) -> "Fields":
        if self.of.get(name) is None:
            raise self.bad(name, "is missing")
        return self.find_table(name)

    def rows(self, name: str) -> Iterator["Fields"]:
        """The objects of one of Stripe's lists; none where there is no list."""
        listed = self.find_table(name)
        values = listed.of.get("data", [])
        if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
            raise listed.bad("data", "is no list of objects")
        for index, value in enumerate(values):
            yield Fields(f"{self.path}{name}.data[{index}].", value)
