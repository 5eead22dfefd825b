"""A raw row to an entry, or to the reason why it can't be one.

Here text becomes values. What a value may be (its sign, bounds, length) the ledger decides when it is recorded.
"""

import re
from collections.abc import Mapping
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Any

from meterbook.core.entries import Usage
from meterbook.importing.keys import RowKeys
from meterbook.importing.mapping import REQUIRED_FIELDS, TEXT_FIELDS, TOKEN_FIELDS, ResolvedMapping
from meterbook.importing.records import Row, RowProblem, parse_json
from meterbook.pricing import PriceBook, Tokens, UnknownPrice

COUNT_DIGITS_MAX = 12
SHOWN_LENGTH_MAX = 60

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9].*)?")


class _Unreadable(ValueError):
    """One value of a row can't be read; carries the RowProblem's code and message."""


class RowReader:
    """Reads the rows of one import, in their order: keys of equal rows count those before."""

    def __init__(self, mapping: ResolvedMapping, header: list[str] | None, keys: RowKeys, now: datetime) -> None:
        given = mapping.columns.keys() | mapping.constants.keys()
        self._columns = mapping.columns
        self._constants = mapping.constants
        self._timezone = mapping.timezone
        self._header = header
        self._indexes = [] if header is None else [(name, header.index(c)) for name, c in mapping.columns.items()]
        self._texts = tuple(name for name in TEXT_FIELDS if name in given)
        self._tokens = tuple(name for name in TOKEN_FIELDS if name in given)
        self._keys = keys
        self._prices = PriceBook()
        self._now = now

    def read(self, row: Row) -> Usage | RowProblem:
        """The entry, always with an event_key."""
        if row.problem is not None:
            return row.problem
        # A row that turns out bad takes its number too: mending one must not renumber its equals.
        key = self._keys.next_key(row.raw)
        try:
            return self._usage(self._values(row.cells), key)
        except _Unreadable as error:
            return RowProblem(*error.args)
        except UnknownPrice as error:
            return RowProblem("unknown_price", str(error))

    def _values(self, cells: list[str] | dict[str, object] | None) -> dict[str, object]:
        values: dict[str, object] = {**self._constants}
        if isinstance(cells, dict):
            for name, path in self._columns.items():
                value = _at(cells, path)
                if value is not None and value != "":
                    values[name] = value
            return values
        if cells is None or self._header is None or len(cells) != len(self._header):
            raise _Unreadable("row_fields", f"{len(cells or ())} fields where the header has {len(self._header or ())}")
        for name, index in self._indexes:
            if cell := cells[index]:
                values[name] = cell
        return values

    def _usage(self, values: dict[str, object], key: str) -> Usage:
        texts: dict[str, Any] = {name: _text(name, values[name]) for name in self._texts if name in values}
        at = _time(values["occurred_at"], self._timezone) if "occurred_at" in values else None
        counts = {name: _count(name, values[name]) for name in self._tokens if name in values}
        model = _text("model", values["model"]) if "model" in values else None
        provider = _text("provider", values["provider"]) if "provider" in values else None
        if model is not None:
            texts.setdefault("description", model)
        for name in REQUIRED_FIELDS:
            if name not in texts:
                raise _Unreadable("missing_field", f"{name} is missing")
        return Usage(
            **texts,
            amount=_number(values["amount"]) if "amount" in values else self._price(model, provider, counts, at),
            event_key=_text("event_key", values["event_key"]) if "event_key" in values else key,
            occurred_at=at,
            metadata=_metadata(model, counts, values.get("metadata")),
        )

    def _price(
        self, model: str | None, provider: str | None, counts: Mapping[str, int], at: datetime | None
    ) -> Decimal:
        if model is None or "input_tokens" not in counts or "output_tokens" not in counts:
            raise _Unreadable("missing_field", "neither an amount, nor a model with input_tokens and output_tokens")
        tokens = Tokens(
            counts["input_tokens"],
            counts["output_tokens"],
            counts.get("cache_read_tokens", 0),
            counts.get("cache_write_tokens", 0),
        )
        return self._prices.price(model, tokens, at or self._now, provider=provider)


def _at(cells: Mapping[str, object], path: str) -> object:
    """The value of a key; ``usage.input_tokens`` also reaches into objects, where no key has that name whole."""
    if path in cells or "." not in path:
        return cells.get(path)
    found: object = cells
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _Unreadable("bad_text", f"{name} is not a text")


def _number(value: object) -> Decimal:
    """Plain or scientific decimal digits, exactly as written. JSON numbers arrive as int or Decimal."""
    if isinstance(value, str):
        text = value.strip(" ")
        if _NUMBER.fullmatch(text):
            return Decimal(text)
    elif isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return Decimal(value)
    raise _Unreadable("bad_number", f"amount {_shown(value)} is not a decimal number like 0.0123")


def _count(name: str, value: object) -> int:
    if isinstance(value, str):
        digits = value.strip(" ")
        if digits.isascii() and digits.isdigit() and len(digits) <= COUNT_DIGITS_MAX:
            return int(digits)
    elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**COUNT_DIGITS_MAX:
        return value
    raise _Unreadable(
        "bad_number", f"{name} {_shown(value)} is not a whole number of at most {COUNT_DIGITS_MAX} digits"
    )


def _time(value: object, timezone: tzinfo) -> datetime:
    """ISO 8601, a space for the T allowed, digits beyond microseconds cut; without an offset, in ``timezone``."""
    text = value.strip(" ") if isinstance(value, str) else ""
    if _TIME.fullmatch(text):
        try:
            read = datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            return read if read.tzinfo is not None else read.replace(tzinfo=timezone)
    raise _Unreadable("bad_time", f"occurred_at {_shown(value)} is not a time like 2026-05-31T17:04:05Z")


def _metadata(model: str | None, counts: Mapping[str, int], value: object) -> dict[str, object] | None:
    """What the row says of itself, and the tokens that its price was made of."""
    found: dict[str, object] = {}
    if counts:
        found = {"model": model, **counts} if model is not None else {**counts}
    if value is not None:
        found |= _object(value)
    return found or None


def _object(value: object) -> dict[str, object]:
    try:
        read = _plain(parse_json(value) if isinstance(value, str) else value)
    except (ValueError, RecursionError) as error:
        raise _Unreadable("bad_metadata", f"metadata is not JSON that can be read: {error}") from error
    if not isinstance(read, dict):
        raise _Unreadable("bad_metadata", "metadata is not a JSON object")
    return read


def _plain(value: object) -> object:
    """Metadata is nobody's money: its fractions are JSON numbers again."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= SHOWN_LENGTH_MAX else text[:SHOWN_LENGTH_MAX] + "…")
