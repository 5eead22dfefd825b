"""Monthly windows of a subscription, anchored at its start (BEHAVIOUR §7)."""

import calendar
import re
from datetime import datetime

from meterbook.core.instants import utc
from meterbook.errors import UnknownInterval

_INTERVAL = re.compile(r"(?:(?P<number>[1-9][0-9]{0,2}) )?(?P<unit>month|year)s?")
_MONTHS = {"month": 1, "year": 12}


def window_at(anchor: datetime, months: int, at: datetime) -> tuple[datetime, datetime]:
    """The half-open window `[start, end)` in UTC, `months` long, that contains `at`, also before the anchor.

    Every boundary is counted from the anchor itself, so a short month moves its own boundary and no later
    one: 31 January → 28 February → 31 March.
    """
    if months < 1:
        raise ValueError(f"a window lasts at least 1 month, not {months}")
    anchor, at = utc(anchor), utc(at)
    ahead = (_month_number(at) - _month_number(anchor)) // months * months
    if _months_after(anchor, ahead) > at:
        ahead -= months
    return _months_after(anchor, ahead), _months_after(anchor, ahead + months)


def interval_months(interval: str, count: int = 1) -> int:
    """The months in `count` of "month", "year" or "3 months"; a week or a day is `UnknownInterval`."""
    match = _INTERVAL.fullmatch(interval)
    if match is None or count < 1:
        raise UnknownInterval(interval if match is None else f"{count} × {interval}")
    return count * int(match["number"] or 1) * _MONTHS[match["unit"]]


def _month_number(at: datetime) -> int:
    return at.year * 12 + at.month - 1


def _months_after(anchor: datetime, months: int) -> datetime:
    year, month0 = divmod(_month_number(anchor) + months, 12)
    last_day = calendar.monthrange(year, month0 + 1)[1]
    return anchor.replace(year=year, month=month0 + 1, day=min(anchor.day, last_day))
