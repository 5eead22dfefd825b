"""Arguments of calls that are no entries: numbers, times, flags. What is wrong is said by the argument's name. Raises `InvalidUsage`."""

from datetime import datetime

from meterbook.core.entries import is_id
from meterbook.errors import InvalidUsage, Problem


def check_whole(name: str, value: object, lowest: int, highest: int, code: str = "invalid_number") -> int:
    """A whole number within bounds; True is none."""
    if isinstance(value, int) and is_id(value) and lowest <= value <= highest:
        return value
    raise InvalidUsage(
        [Problem(None, name, code, f"{_shown(value)} is no whole number between {lowest:,} and {highest:,}")]
    )


def check_limit(value: object, rows_max: int) -> int:
    """How many rows of a list."""
    return check_whole("limit", value, 1, rows_max, "invalid_limit")


def check_moment(name: str, value: object) -> datetime:
    """Aware: a time without a zone means another instant on another machine."""
    if not isinstance(value, datetime):
        raise InvalidUsage([Problem(None, name, "invalid_time", f"{_shown(value)} is no datetime")])
    if value.utcoffset() is None:
        raise InvalidUsage([Problem(None, name, "naive_time", "has no time zone: pass an aware datetime")])
    return value


def check_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidUsage([Problem(None, name, "invalid_flag", f"{_shown(value)} is neither True nor False")])
    return value


def _shown(value: object) -> str:
    return f"{value!r:.40}" if isinstance(value, str | int | float) else type(value).__name__
