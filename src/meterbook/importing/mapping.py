"""Which column feeds which field of an entry."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meterbook.importing.refusal import ImportRefused

TEXT_FIELDS = (
    "actor",
    "source",
    "description",
    "category",
    "entity",
    "workspace",
    "workflow",
    "execution",
    "source_reference",
    "line",
)
TOKEN_FIELDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
FIELDS = (*TEXT_FIELDS, "amount", "model", "provider", *TOKEN_FIELDS, "occurred_at", "event_key", "metadata")

REQUIRED_FIELDS = ("actor", "source", "description")
_NEVER_CONSTANT = ("event_key", "line", *TOKEN_FIELDS)


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """``columns``: field → column or key; ``constants``: field → text for every row.

    A field that neither names is read from the column of its own name, whatever its case, if there is one.
    Times without an offset are in ``timezone``.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    timezone: tzinfo = UTC

    def __post_init__(self) -> None:
        for name in (*self.columns, *self.constants):
            if name not in FIELDS:
                raise ImportRefused(f"an entry has no field {name!r}; there are: {', '.join(FIELDS)}")
        if both := sorted(self.columns.keys() & self.constants.keys()):
            raise ImportRefused(f"{both[0]} is mapped to a column and set to a constant; choose one")
        if fixed := [name for name in _NEVER_CONSTANT if name in self.constants]:
            raise ImportRefused(f"{fixed[0]} can't be the same in every row; map it to a column")


@dataclass(frozen=True, slots=True)
class ResolvedMapping:
    """A mapping that has met a header: field → column, what is constant, and the columns that nothing reads."""

    columns: Mapping[str, str]
    constants: Mapping[str, str]
    timezone: tzinfo
    unused: tuple[str, ...]


def resolve(mapping: ColumnMapping, header: list[str] | None) -> ResolvedMapping:
    """The mapping for a file with this header; None: NDJSON, where each row names its own fields.

    Raises ImportRefused if a named column is not there, or nothing could ever give an entry its actor, source,
    description or amount.
    """
    columns = dict(mapping.columns)
    if header is None:
        named = {name: name for name in FIELDS}
    else:
        _require_columns(mapping, header)
        named = {column.lower(): column for column in header if column.lower() in FIELDS}
    for name, column in named.items():
        if name not in columns and name not in mapping.constants:
            columns[name] = column
    _require_fields(columns.keys() | mapping.constants.keys(), header)
    unused = tuple(column for column in header or () if column not in columns.values())
    return ResolvedMapping(columns, dict(mapping.constants), mapping.timezone, unused)


def _require_columns(mapping: ColumnMapping, header: list[str]) -> None:
    there = ", ".join(header) or "none"
    for name, column in mapping.columns.items():
        if column not in header:
            raise ImportRefused(f"{name} is mapped to column {column!r}, which is not in the header ({there})")
    folded = [column.lower() if column.lower() in FIELDS else column for column in header]
    for column in (*mapping.columns.values(), *FIELDS):
        if folded.count(column) > 1:
            raise ImportRefused(f"the header names the column {column!r} twice")


def _require_fields(given: set[str], header: list[str] | None) -> None:
    there = "" if header is None else f" The columns are: {', '.join(header) or 'none'}."
    for name in REQUIRED_FIELDS:
        if name not in given and not (name == "description" and "model" in given):
            raise ImportRefused(f"no column gives {name}: use --map {name}=COLUMN or --set {name}=TEXT.{there}")
    if "amount" not in given and not {"model", "input_tokens", "output_tokens"} <= given:
        raise ImportRefused(
            f"no column gives amount: use --map amount=COLUMN, or give model, input_tokens and output_tokens.{there}"
        )


def read_mapping_file(path: Path) -> ColumnMapping:
    """A TOML file: ``timezone = "UTC"``, and the tables ``[columns]`` and ``[constants]`` of field = text."""
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ImportRefused(f"the mapping file {path} can't be read: {error}") from error
    if strange := sorted(read.keys() - {"columns", "constants", "timezone"}):
        raise ImportRefused(f"the mapping file {path} has no use for {strange[0]!r}")
    return ColumnMapping(
        _texts(read.get("columns", {}), path),
        _texts(read.get("constants", {}), path),
        timezone_named(read.get("timezone", "UTC")),
    )


def _texts(table: object, path: Path) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise ImportRefused(f"in the mapping file {path}, each field = text; write numbers as text too")
    return table


def timezone_named(name: object) -> tzinfo:
    if name == "UTC":
        return UTC  # also where no time zone database is installed
    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ImportRefused(f"there is no time zone {name!r}; use a name like UTC or Europe/Vienna") from error
