"""Which marks of the limit are reached (BEHAVIOUR §8): a jump over both claims both and tells about the larger."""

from decimal import Decimal

from meterbook.core.limits import standing
from meterbook.core.money import ZERO

ARMED_BELOW_PERCENT = 70
_MARKS: dict[str, tuple[int, ...]] = {"ok": (), "warning": (80,), "exceeded": (80, 100)}


def marks_reached(used: Decimal, limit: Decimal) -> tuple[int, ...]:
    """In rising order. A limit of 0 is nobody's news: nothing was ever allowed."""
    return () if limit == ZERO else _MARKS[standing(used, limit).status]
