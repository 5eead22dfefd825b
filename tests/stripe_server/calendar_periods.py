"""When billing periods begin and end: whole intervals counted from an anchor, a day that a month lacks clipped to its last."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta

MONTHS = {"month": 1, "year": 12}
DAYS = {"day": 1, "week": 7}


def boundary(anchor: int, interval: str, count: int) -> int:
    """The end of the `count`-th interval after the anchor (before it, if negative)."""
    start = datetime.fromtimestamp(anchor, UTC)
    if interval in DAYS:
        return int((start + timedelta(days=DAYS[interval] * count)).timestamp())
    months = start.year * 12 + start.month - 1 + MONTHS[interval] * count
    year, month = divmod(months, 12)
    day = min(start.day, monthrange(year, month + 1)[1])
    return int(start.replace(year=year, month=month + 1, day=day).timestamp())


def end_after(anchor: int, interval: str, every: int, moment: int) -> int:
    """The first boundary later than a moment."""
    count = 0
    while boundary(anchor, interval, count * every) <= moment:
        count += 1
    while boundary(anchor, interval, (count - 1) * every) > moment:
        count -= 1
    return boundary(anchor, interval, count * every)


def share(amount: int, part: int, whole: int) -> int:
    """amount × part ÷ whole, half away from zero: what a part of a period costs."""
    size = (2 * abs(amount) * part + whole) // (2 * whole)
    return size if amount >= 0 else -size
