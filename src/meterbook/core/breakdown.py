"""Rounded breakdowns that add up (BEHAVIOUR §5)."""

import math
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import TypeVar

from meterbook.core.money import EXACT, total_of

Name = TypeVar("Name", str, int, date, tuple[str, str])


def apportion(amounts: Mapping[Name, Decimal], places: int = 2) -> dict[Name, Decimal]:
    """The amounts at `places`, in their order, adding up to their exact sum cut (towards zero) at `places`.

    By largest remainder: each is first taken down to the unit below it, negative ones too, and the units
    still missing go to those that lost most, ties by name. So each ends less than one unit from its exact
    amount, and one that needed no rounding keeps its own.
    """
    exact = {name: EXACT.scaleb(amount, places) for name, amount in amounts.items()}
    units = {name: math.floor(amount) for name, amount in exact.items()}
    total = total_of(exact.values())
    missing = math.trunc(total) - sum(units.values())
    lost = {name: EXACT.subtract(amount, Decimal(units[name])) for name, amount in exact.items()}
    for name in sorted(lost, key=lambda name: (-lost[name], name))[:missing]:
        units[name] += 1
    return {name: EXACT.scaleb(Decimal(count), -places) for name, count in units.items()}
